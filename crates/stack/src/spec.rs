//! Stacks as text: `raid5(integrity(file:a.img), integrity(file:b.img), missing)`.
//!
//! ```text
//!   node    = leaf | name "(" node { "," node } ")"
//!   leaf    = "file:" PATH
//!           | ("sectors:" | "nvme-qemu:") DATA "+" METADATA [ "/" PROFILE ] ":" PATH
//!           | "nbd://..." | "nbd+unix://..." | "memory:" SIZE | "missing"
//!   node    = "integrity" "(" node "," "data=" leaf ")"    (data on a device of its own)
//!   node    = LEVEL "(" node { "," node } "," "journal=" node ")"    (of RAID 4, 5 and 6: the write journal)
//!   name    = "integrity" | LEVEL | "fault"
//!   LEVEL   = "linear" | "raid0" | "raid1" | "raid4" | "raid5" | "raid6" | "raid10"
//! ```
//!
//! A leaf is one word. What a word cannot hold as it is (blanks, commas, parentheses, quotes) is
//! put in double quotes, where `\"` and `\\` stand for themselves: `file:"a, b.img"`. `fault` takes
//! a leaf and then its rules, as words ([`crate::fault`]).
//!
//! An array in the text is a claim about what lies on its members: level, slots, UUID and where a write journal
//! begins come from their superblocks, nothing is put together without them.
//!
//! The text is what a volume prints of itself, what `--stack` takes, and what tests and bug reports
//! use. Here it is only read and printed; building is [`crate::open()`]'s work.

use crate::fault::parse_rule;
use crate::member::Member;
use crate::size::{format_size, parse_size};
use std::fmt::{self, Write};
use std::str::FromStr;

/// Nodes inside each other, at most: deeper than any stack that makes sense.
const DEPTH_MAX: usize = 16;
/// What names the device with the data.
const DATA: &str = "data=";
/// What names an array's write journal.
const JOURNAL: &str = "journal=";
/// Nodes in one text, at most.
const NODES_MAX: usize = 1024;

/// The array levels that can be spelled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ArrayLevel {
    /// One member behind the other.
    Linear,
    /// Stripes without redundancy.
    Raid0,
    /// Mirrors.
    Raid1,
    /// One strip of parity, always on the last member.
    Raid4,
    /// One strip of parity.
    Raid5,
    /// Two strips of parity.
    Raid6,
    /// Stripes over mirrors.
    Raid10,
}

impl ArrayLevel {
    /// The number in the md superblock.
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::Linear => -1,
            Self::Raid0 => 0,
            Self::Raid1 => 1,
            Self::Raid4 => 4,
            Self::Raid5 => 5,
            Self::Raid6 => 6,
            Self::Raid10 => 10,
        }
    }

    /// From the number in the md superblock.
    #[must_use]
    pub const fn from_number(level: i32) -> Option<Self> {
        match level {
            -1 => Some(Self::Linear),
            0 => Some(Self::Raid0),
            1 => Some(Self::Raid1),
            4 => Some(Self::Raid4),
            5 => Some(Self::Raid5),
            6 => Some(Self::Raid6),
            10 => Some(Self::Raid10),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Raid0 => "raid0",
            Self::Raid1 => "raid1",
            Self::Raid4 => "raid4",
            Self::Raid5 => "raid5",
            Self::Raid6 => "raid6",
            Self::Raid10 => "raid10",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        let all = [
            Self::Linear,
            Self::Raid0,
            Self::Raid1,
            Self::Raid4,
            Self::Raid5,
            Self::Raid6,
            Self::Raid10,
        ];
        all.into_iter().find(|level| level.name() == name)
    }
}

/// A stack, or a part of one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Node {
    /// A file, a block device, or an NBD export.
    Member(Member),
    /// So many bytes of memory, zeroed.
    Memory(u64),
    /// A member that is not there.
    Missing,
    /// dm-integrity over what is below; with a second node the data lies there, and everything
    /// else on the first.
    Integrity(Box<Node>, Option<Box<Node>>),
    /// An md array over its members; with a third part, that is its write journal.
    Array(ArrayLevel, Vec<Node>, Option<Box<Node>>),
    /// Faults, injected above what is below; the rules are the fault layer's words.
    Fault(Box<Node>, Vec<String>),
}

impl Node {
    /// What the leaves below are, `missing` ones included, in the order of the text: each with the
    /// faults directly above it, if there are any.
    ///
    /// Devices that hold only the data of a member are no leaves, see [`Self::pairs`].
    pub fn leaves(&self) -> impl Iterator<Item = &Self> + '_ {
        self.pairs().map(|(leaf, _)| leaf)
    }

    /// The same leaves, each with the device that holds its data, if that is another.
    pub fn pairs(&self) -> Box<dyn Iterator<Item = (&Self, Option<&Self>)> + '_> {
        match self {
            Self::Member(_) | Self::Memory(_) | Self::Missing => {
                Box::new(std::iter::once((self, None)))
            }
            Self::Fault(lower, _) if lower.is_leaf() => Box::new(std::iter::once((self, None))),
            Self::Integrity(lower, Some(data)) => {
                Box::new(lower.pairs().map(|(leaf, _)| (leaf, Some(&**data))))
            }
            Self::Integrity(lower, None) | Self::Fault(lower, _) => lower.pairs(),
            Self::Array(_, members, journal) => {
                Box::new(members.iter().chain(journal.as_deref()).flat_map(Self::pairs))
            }
        }
    }

    /// Whether nothing is below it.
    #[must_use]
    pub const fn is_leaf(&self) -> bool {
        matches!(self, Self::Member(_) | Self::Memory(_) | Self::Missing)
    }

    /// The member, if it is a leaf with a name, perhaps with faults above it.
    #[must_use]
    pub fn member(&self) -> Option<&Member> {
        match self {
            Self::Member(member) => Some(member),
            Self::Fault(lower, _) => lower.member(),
            _ => None,
        }
    }

    /// Whether `found` is what this claims: the same levels over the same members. Members of an
    /// array may be in any order, and injected faults change nothing about the shape.
    #[must_use]
    pub fn same_shape(&self, found: &Self) -> bool {
        match (self, found) {
            (Self::Fault(lower, _), _) => lower.same_shape(found),
            (_, Self::Fault(lower, _)) => self.same_shape(lower),
            (Self::Integrity(a, None), Self::Integrity(b, None)) => a.same_shape(b),
            (Self::Integrity(a, Some(data)), Self::Integrity(b, Some(other))) => {
                a.same_shape(b) && data.same_shape(other)
            }
            (Self::Array(level, claimed, journal), Self::Array(other, members, found)) => {
                let same_journal = match (journal, found) {
                    (Some(journal), Some(found)) => journal.same_shape(found),
                    (journal, found) => journal.is_none() && found.is_none(),
                };
                let holds = |a: &[Self], b: &[Self]| {
                    a.iter().all(|one| b.iter().any(|other| one.same_shape(other)))
                };
                level == other
                    && same_journal
                    && claimed.len() == members.len()
                    && holds(claimed, members)
                    && holds(members, claimed)
            }
            _ => self == found,
        }
    }
}

/// Why a text is no stack.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("stack text, byte {at}: found {found}, expected {expected}")]
pub struct SpecError {
    /// Byte offset in the text.
    pub at: usize,
    /// What is there.
    pub found: String,
    /// What would make sense there.
    pub expected: String,
}

impl FromStr for Node {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut parser = Parser { text, at: 0, nodes: 0 };
        let node = parser.node(0)?;
        parser.skip_blanks();
        if parser.at < text.len() { Err(parser.unexpected("the end")) } else { Ok(node) }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    nodes: usize,
}

impl Parser<'_> {
    fn node(&mut self, depth: usize) -> Result<Node, SpecError> {
        self.nodes += 1;
        if depth > DEPTH_MAX || self.nodes > NODES_MAX {
            let limit = format!("at most {DEPTH_MAX} levels and {NODES_MAX} nodes");
            return Err(self.unexpected(&limit));
        }
        self.skip_blanks();
        let start = self.at;
        let word = self.word()?;
        if !self.eat('(') {
            return self.leaf(start, &word);
        }
        let node = match word.as_str() {
            "integrity" => self.integrity(depth)?,
            "fault" => {
                let lower = self.node(depth + 1)?;
                if !lower.is_leaf() {
                    let expected = "a leaf: faults are injected where the members are".to_owned();
                    return Err(SpecError { at: start, found: "'fault'".to_owned(), expected });
                }
                let mut rules = Vec::new();
                while self.eat(',') {
                    self.skip_blanks();
                    let at = self.at;
                    let word = self.word()?;
                    if let Err(error) = parse_rule(&word) {
                        let (found, expected) = (format!("'{}'", error.found), error.expected);
                        return Err(SpecError { at, found, expected: expected.to_owned() });
                    }
                    rules.push(word);
                }
                Node::Fault(Box::new(lower), rules)
            }
            name => match ArrayLevel::from_name(name) {
                Some(level) => self.array(level, depth)?,
                None => {
                    let expected =
                        "integrity, linear, raid0, raid1, raid4, raid5, raid6, raid10 or fault";
                    let (found, expected) = (format!("'{word}'"), expected.to_owned());
                    return Err(SpecError { at: start, found, expected });
                }
            },
        };
        if self.eat(')') { Ok(node) } else { Err(self.unexpected("')'")) }
    }

    fn integrity(&mut self, depth: usize) -> Result<Node, SpecError> {
        let lower = Box::new(self.node(depth + 1)?);
        if !self.eat(',') {
            return Ok(Node::Integrity(lower, None));
        }
        self.skip_blanks();
        let start = self.at;
        if !self.text[start..].starts_with(DATA) {
            return Err(self.unexpected("data=LEAF or ')'"));
        }
        self.at += DATA.len();
        let data = self.node(depth + 1)?;
        let is_leaf = |node: &Node| matches!(node, Node::Fault(..)) || node.is_leaf();
        if data == Node::Missing || !is_leaf(&data) || !is_leaf(&lower) {
            let expected = "a leaf with the data beside a leaf with the rest".to_owned();
            return Err(SpecError { at: start, found: format!("'{DATA}'"), expected });
        }
        Ok(Node::Integrity(lower, Some(Box::new(data))))
    }

    fn array(&mut self, level: ArrayLevel, depth: usize) -> Result<Node, SpecError> {
        let mut members = vec![self.node(depth + 1)?];
        while self.eat(',') {
            self.skip_blanks();
            if self.text[self.at..].starts_with(JOURNAL) {
                let journal = self.journal(level, depth)?;
                return Ok(Node::Array(level, members, Some(Box::new(journal))));
            }
            members.push(self.node(depth + 1)?);
        }
        Ok(Node::Array(level, members, None))
    }

    fn journal(&mut self, level: ArrayLevel, depth: usize) -> Result<Node, SpecError> {
        let start = self.at;
        self.at += JOURNAL.len();
        let journal = self.node(depth + 1)?;
        let has_parity = matches!(level, ArrayLevel::Raid4 | ArrayLevel::Raid5 | ArrayLevel::Raid6);
        if has_parity && !matches!(journal, Node::Array(..) | Node::Missing) {
            return Ok(journal);
        }
        let expected = "a device with the write journal of a raid4, raid5 or raid6".to_owned();
        Err(SpecError { at: start, found: format!("'{JOURNAL}'"), expected })
    }

    fn leaf(&self, at: usize, word: &str) -> Result<Node, SpecError> {
        let wrong = |expected: String| SpecError { at, found: format!("'{word}'"), expected };
        if word == "missing" {
            return Ok(Node::Missing);
        }
        if let Some(path) = word.strip_prefix("file:") {
            if path.is_empty() {
                return Err(wrong("a path behind 'file:'".to_owned()));
            }
            return Ok(Node::Member(Member::Path(path.into())));
        }
        if let Some(size) = word.strip_prefix("memory:") {
            return parse_size(size).map(Node::Memory).map_err(|error| wrong(error.to_string()));
        }
        if nbd::Uri::looks_like(word) || Member::looks_like_sectors(word) {
            return Member::parse(word).map(Node::Member).map_err(|error| wrong(error.to_string()));
        }
        let known = "file:PATH, sectors:512+8:PATH, nvme-qemu:512+8:PATH, nbd://..., nbd+unix://..., \
                     memory:SIZE or missing";
        Err(wrong(known.to_owned()))
    }

    /// A run of plain characters and quoted pieces.
    fn word(&mut self) -> Result<String, SpecError> {
        let mut word = String::new();
        let mut quoted = false;
        let start = self.at;
        while let Some(c) = self.peek() {
            match c {
                '"' => {
                    quoted = !quoted;
                    self.at += 1;
                }
                '\\' if quoted => {
                    self.at += 1;
                    match self.peek() {
                        Some(escaped @ ('"' | '\\')) => {
                            word.push(escaped);
                            self.at += 1;
                        }
                        _ => return Err(self.unexpected("'\"' or '\\' behind '\\'")),
                    }
                }
                c if quoted || is_plain(c) => {
                    word.push(c);
                    self.at += c.len_utf8();
                }
                _ => break,
            }
        }
        if quoted {
            return Err(self.unexpected("'\"'"));
        }
        if self.at == start { Err(self.unexpected("a name")) } else { Ok(word) }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn skip_blanks(&mut self) {
        while let Some(c) = self.peek().filter(|c| c.is_whitespace()) {
            self.at += c.len_utf8();
        }
    }

    fn eat(&mut self, wanted: char) -> bool {
        self.skip_blanks();
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn unexpected(&self, expected: &str) -> SpecError {
        let found = self.peek().map_or_else(|| "the end".to_owned(), |c| format!("'{c}'"));
        SpecError { at: self.at, found, expected: expected.to_owned() }
    }
}

fn is_plain(c: char) -> bool {
    !c.is_whitespace() && !matches!(c, '(' | ')' | ',' | '"')
}

/// Prints a word, in quotes where it must be.
struct Word<'a>(&'a str);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.is_empty() && self.0.chars().all(is_plain) {
            return f.write_str(self.0);
        }
        f.write_char('"')?;
        for c in self.0.chars() {
            if matches!(c, '"' | '\\') {
                f.write_char('\\')?;
            }
            f.write_char(c)?;
        }
        f.write_char('"')
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(Member::Path(path)) => {
                write!(f, "file:{}", Word(&path.to_string_lossy()))
            }
            Self::Member(member) => Word(&member.to_string()).fmt(f),
            Self::Memory(bytes) => write!(f, "memory:{}", format_size(*bytes)),
            Self::Missing => f.write_str("missing"),
            Self::Integrity(lower, None) => write!(f, "integrity({lower})"),
            Self::Integrity(lower, Some(data)) => write!(f, "integrity({lower}, {DATA}{data})"),
            Self::Array(level, members, journal) => {
                write!(f, "{}(", level.name())?;
                for (index, member) in members.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{member}")?;
                }
                if let Some(journal) = journal {
                    write!(f, ", {JOURNAL}{journal}")?;
                }
                f.write_char(')')
            }
            Self::Fault(lower, rules) => {
                write!(f, "fault({lower}")?;
                for rule in rules {
                    write!(f, ", {}", Word(rule))?;
                }
                f.write_char(')')
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use layers::file::{SectorFormat, SectorLayout};
    use proptest::prelude::*;
    use units::BlockSize;

    #[test]
    fn the_documented_example_is_read() {
        let text = "raid5(integrity(file:a.img), integrity(file:b.img), missing)";
        let node: Node = text.parse().unwrap();
        let Node::Array(ArrayLevel::Raid5, members, None) = &node else { panic!("{node:?}") };
        assert_eq!(members.len(), 3);
        assert_eq!(members[2], Node::Missing);
        assert_eq!(node.to_string(), text);
    }

    #[test]
    fn a_claim_is_compared_without_regard_to_order() {
        let node = |text: &str| text.parse::<Node>().unwrap();
        let found = node("raid5(integrity(file:a), integrity(file:b), missing)");
        assert!(node("raid5(integrity(file:b), missing, integrity(file:a))").same_shape(&found));
        assert!(
            node("raid5(integrity(fault(file:b)), missing, integrity(file:a))").same_shape(&found)
        );
        for wrong in [
            "raid6(integrity(file:a), integrity(file:b), missing)",
            "raid5(integrity(file:a), file:b, missing)",
            "raid5(integrity(file:a), integrity(file:b), integrity(file:c))",
            "raid5(integrity(file:a), integrity(file:b))",
            "raid5(integrity(file:a), integrity(file:b), missing, journal=file:j)",
        ] {
            assert!(!node(wrong).same_shape(&found), "{wrong}");
        }
    }

    #[test]
    fn a_write_journal_is_part_of_the_claim() {
        let node = |text: &str| text.parse::<Node>().unwrap();
        let text = "raid5(integrity(file:a), missing, file:c, journal=integrity(file:j))";
        let found = node(text);
        assert_eq!(found.to_string(), text);
        let leaves: Vec<String> = found.leaves().map(ToString::to_string).collect();
        assert_eq!(leaves, ["file:a", "missing", "file:c", "file:j"], "it is opened too");
        for same in [
            "raid5(file:c, integrity(file:a), missing, journal=integrity(file:j))",
            "raid5(file:c, integrity(file:a), missing ,\tjournal=integrity(fault(file:j)) )",
        ] {
            assert!(node(same).same_shape(&found), "{same}");
        }
        for other in [
            "raid5(integrity(file:a), missing, file:c)",
            "raid5(integrity(file:a), missing, file:c, integrity(file:j))",
            "raid5(integrity(file:a), missing, file:c, journal=file:j)",
            "raid5(integrity(file:a), missing, file:c, journal=integrity(file:k))",
        ] {
            assert!(!node(other).same_shape(&found), "{other}");
        }
    }

    #[test]
    fn every_level_is_spelled_as_md_prints_it() {
        for number in [-1, 0, 1, 4, 5, 6, 10] {
            let level = ArrayLevel::from_number(number).unwrap();
            assert_eq!(level.number(), number);
            let text = format!("{}(file:a, missing)", md::superblock::Level::from_number(number));
            let node: Node = text.parse().unwrap();
            let members = vec!["file:a".parse().unwrap(), Node::Missing];
            assert_eq!(node, Node::Array(level, members, None));
            assert_eq!(node.to_string(), text);
        }
        assert_eq!(ArrayLevel::from_number(2), None);
    }

    #[test]
    fn blanks_do_not_matter() {
        let node: Node = " raid1 ( file:a ,\n file:b ) ".parse().unwrap();
        assert_eq!(node.to_string(), "raid1(file:a, file:b)");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, at, expected) in [
            ("", 0, "a name"),
            ("raid5(file:a", 12, "')'"),
            ("raid5(file:a))", 13, "the end"),
            (
                "raid7(file:a)",
                0,
                "integrity, linear, raid0, raid1, raid4, raid5, raid6, raid10 or fault",
            ),
            (
                "a.img",
                0,
                "file:PATH, sectors:512+8:PATH, nvme-qemu:512+8:PATH, nbd://..., nbd+unix://..., \
                 memory:SIZE or missing",
            ),
            (
                "raid1(sectors:520:a)",
                6,
                "sectors of '520' bytes, expected 512, 1024, 2048 or 4096 \
              with metadata behind it, such as 512+8 or 4096+64",
            ),
            (
                "raid1(file:a, file:b, journal=file:j)",
                22,
                "a device with the write journal of a raid4, raid5 or raid6",
            ),
            (
                "raid5(file:a, file:b, journal=missing)",
                22,
                "a device with the write journal of a raid4, raid5 or raid6",
            ),
            ("raid5(file:a, journal=file:j, file:b)", 28, "')'"),
            ("file:\"a", 7, "'\"'"),
            ("file:", 0, "a path behind 'file:'"),
        ] {
            let error = Node::from_str(text).unwrap_err();
            assert_eq!((error.at, error.expected.as_str()), (at, expected), "{text}");
        }
        assert!(Node::from_str("nbds://h/").unwrap_err().expected.contains("TLS"));
    }

    #[test]
    fn depth_is_bounded() {
        let text = "integrity(".repeat(100_000);
        assert!(Node::from_str(&text).unwrap_err().expected.contains("at most"));
    }

    fn any_node() -> impl Strategy<Value = Node> {
        let leaf = prop_oneof![
            "[ -~äß\t]{1,12}".prop_map(|path| Node::Member(Member::Path(path.into()))),
            ("[ -~äß\t]{1,12}", 1u16..70).prop_map(|(path, metadata)| {
                let format = SectorFormat::new(BlockSize::B4096, metadata);
                let layout =
                    if metadata % 2 == 0 { SectorLayout::AtEnd } else { SectorLayout::Interleaved };
                let format = SectorFormat { layout, ..format };
                Node::Member(Member::Sectors { format, path: path.into() })
            }),
            (0u64..1 << 50).prop_map(Node::Memory),
            Just(Node::Missing),
            Just("nbd://[::1]:99/ex%20port").prop_map(|uri| uri.parse().unwrap()),
            Just("nbd+unix:///?socket=/run/a%2cb.sock").prop_map(|uri| uri.parse().unwrap()),
        ];
        let rule = prop_oneof![Just("read:8-16:medium"), Just("any:all:corrupt=1/2:7")];
        let rules = prop::collection::vec(rule.prop_map(str::to_owned), 0..3);
        let leaf = prop_oneof![
            3 => leaf.clone(),
            1 => (leaf, rules).prop_map(|(lower, rules)| Node::Fault(Box::new(lower), rules)),
        ];
        let level =
            prop_oneof![Just(ArrayLevel::Raid1), Just(ArrayLevel::Raid5), Just(ArrayLevel::Raid6)];
        leaf.prop_recursive(3, 24, 4, move |inner| {
            prop_oneof![
                inner.clone().prop_map(|lower| Node::Integrity(Box::new(lower), None)),
                (level.clone(), prop::collection::vec(inner, 1..5))
                    .prop_map(|(level, members)| Node::Array(level, members, None)),
                prop::collection::vec(Just(Node::Memory(7)), 2..4).prop_map(|mut members| {
                    let journal = members.pop().map(Box::new);
                    Node::Array(ArrayLevel::Raid6, members, journal)
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(node in any_node()) {
            prop_assert_eq!(node.to_string().parse::<Node>(), Ok(node));
        }

        #[test]
        fn no_text_panics(text in "[a-z0-9:(),\"\\\\ ]{0,40}") {
            let _outcome = text.parse::<Node>();
        }
    }
}
