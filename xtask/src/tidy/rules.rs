//! The rules that are read off the text of a source.

use super::house::{
    FILE_LINES_MAX, LONG_FILES, PRINTERS, ROOMS, SHARED_LAYERS, UNSAFE_HOMES, lies_in,
};
use super::scan::{Line, Source, is_word};

/// What is wrong with `source`.
pub(super) fn check(source: &Source) -> Vec<String> {
    let mut problems = Vec::new();
    unfinished(source, &mut problems);
    unsafety(source, &mut problems);
    printing(source, &mut problems);
    input_output(source, &mut problems);
    siblings(source, &mut problems);
    length(source, &mut problems);
    problems
}

/// Rows of the tables that no file needs any more.
pub(super) fn stale_exceptions(sources: &[Source]) -> Vec<String> {
    let places = UNSAFE_HOMES.iter().chain(PRINTERS).copied();
    let gone = places.filter(|place| !sources.iter().any(|file| lies_in(&file.path, &[*place])));
    let short = LONG_FILES.iter().map(|(path, _)| *path).filter(|path| {
        !sources.iter().any(|file| file.path == *path && file.code().count() > FILE_LINES_MAX)
    });
    gone.chain(short)
        .map(|place| format!("xtask/src/tidy/house.rs: {place} needs no exception; drop the row"))
        .collect()
}

fn unfinished(source: &Source, problems: &mut Vec<String>) {
    for (index, Line { code, comment, .. }) in source.lines.iter().enumerate() {
        for word in UNFINISHED {
            if has_word(code, word) || has_word(comment, word) {
                problems.push(source.at(
                    index + 1,
                    &format!("{word}; finish it, or say as a fact what does not work and why"),
                ));
            }
        }
        for call in ["todo!", "unimplemented!"] {
            if has_word(code, call) {
                problems.push(source.at(
                    index + 1,
                    &format!("{call}; return an error that names what is not supported"),
                ));
            }
        }
        if code.contains("#[ignore") {
            problems.push(source.at(
                index + 1,
                "an ignored test proves nothing; make it pass, or make it fast, or take it out",
            ));
        }
    }
}

fn unsafety(source: &Source, problems: &mut Vec<String>) {
    for (index, line) in source.lines.iter().enumerate() {
        if !has_word(&line.code, "unsafe") {
            continue;
        }
        if !lies_in(&source.path, UNSAFE_HOMES) {
            problems.push(source.at(
                index + 1,
                "`unsafe` away from its homes; use what gf, checksum, bio::Buf or runtime offer",
            ));
        } else if needs_reason(&line.code) && !has_reason(&source.lines, index) {
            problems.push(source.at(
                index + 1,
                "an `unsafe` block without a reason; write `// SAFETY:` above it, and why it is so",
            ));
        }
    }
}

/// A block or an implementation; functions state their conditions in their documentation.
fn needs_reason(code: &str) -> bool {
    code.split("unsafe").skip(1).any(|rest| {
        let rest = rest.trim_start();
        rest.starts_with('{') || rest.starts_with("impl")
    })
}

/// Whether a `SAFETY:` comment stands on the line, or above the statement that it is part of.
fn has_reason(lines: &[Line], index: usize) -> bool {
    if lines[index].comment.contains("SAFETY:") {
        return true;
    }
    for line in lines[..index].iter().rev() {
        let code = line.code.trim();
        if line.comment.contains("SAFETY:") {
            return true;
        }
        let is_part_of_it = match code.chars().last() {
            None => !line.comment.is_empty(),
            Some(last) => code.starts_with("#[") || !";{}".contains(last),
        };
        if !is_part_of_it {
            return false;
        }
    }
    false
}

fn printing(source: &Source, problems: &mut Vec<String>) {
    if lies_in(&source.path, PRINTERS) {
        return;
    }
    for (number, code) in source.code() {
        if ["println!", "print!", "eprintln!", "eprint!"].iter().any(|call| has_word(code, call)) {
            problems.push(source.at(
                number,
                "printing; return it, or tell `Events`: only the program's report speaks",
            ));
        }
    }
}

fn input_output(source: &Source, problems: &mut Vec<String>) {
    let pure = ROOMS.iter().filter(|room| room.pure);
    let mut folders = pure.map(|room| format!("crates/{}/src/", room.name));
    if !folders.any(|folder| source.path.starts_with(&folder)) {
        return;
    }
    let mut text = String::new();
    let mut numbers = Vec::new();
    for (number, code) in source.code() {
        numbers.push((text.len(), number));
        text.push_str(code);
        text.push('\n');
    }
    for (at, name) in paths_below(&text, "std") {
        let address = name.starts_with("net::Ip") || name.starts_with("net::Socket");
        let first = name.split("::").next().unwrap_or_default();
        if IO_MODULES.contains(&first) && !address {
            let after = numbers.partition_point(|(begin, _)| *begin <= at);
            problems.push(source.at(
                numbers[after - 1].1,
                &format!("std::{first} in a format; take bytes and give bytes, let a layer do I/O"),
            ));
        }
    }
    for (number, code) in source.code() {
        for name in IO_WORDS {
            if has_word(code, name) {
                problems.push(source.at(
                    number,
                    &format!("`{name}` in a format; formats neither wait nor call the system"),
                ));
            }
        }
    }
}

/// What follows `root::` wherever it is named in `text`, braces opened, with the place.
fn paths_below(text: &str, root: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices(&format!("{root}::")) {
        if text[..at].ends_with(is_word) {
            continue;
        }
        let tail = &text[at + root.len() + 2..];
        let Some(group) = tail.strip_prefix('{') else {
            let end = tail.find(|c| !is_word(c) && c != ':').unwrap_or(tail.len());
            found.push((at, tail[..end].to_owned()));
            continue;
        };
        let (mut depth, mut name) = (1_usize, String::new());
        for character in group.chars() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 || (depth == 1 && character == ',') {
                found.push((at, std::mem::take(&mut name)));
            } else if is_word(character) || character == ':' {
                name.push(character);
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

fn siblings(source: &Source, problems: &mut Vec<String>) {
    let Some(rest) = source.path.strip_prefix("crates/layers/src/") else { return };
    let Some((own, _)) = rest.split_once('/') else { return };
    for (number, code) in source.code() {
        for (_, path) in paths_below(code, "crate") {
            let sibling = path.split("::").next().unwrap_or_default();
            let is_layer = sibling.starts_with(char::is_lowercase);
            if is_layer && sibling != own && !SHARED_LAYERS.contains(&sibling) {
                problems.push(source.at(
                    number,
                    &format!(
                        "layer {own} imports its sibling {sibling}; take a `Device`, and let \
                         stack join them"
                    ),
                ));
            }
        }
    }
}

fn length(source: &Source, problems: &mut Vec<String>) {
    let count = source.code().count();
    let excused = LONG_FILES.iter().any(|(path, _)| *path == source.path);
    if count > FILE_LINES_MAX && !excused {
        problems.push(format!(
            "{}: {count} lines outside tests, more than {FILE_LINES_MAX}; find the second thing \
             it knows and give that a module",
            source.path
        ));
    }
}

/// Whether `word` stands in `text` with nothing before or after that would make it another.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let after = &text[at + word.len()..];
        !text[..at].ends_with(is_word) && !after.starts_with(is_word)
    })
}

impl Source {
    fn at(&self, number: usize, problem: &str) -> String {
        format!("{}:{number}: {problem}", self.path)
    }
}

const UNFINISHED: &[&str] = &["TODO", "FIXME", "XXX"];
const IO_MODULES: &[&str] = &["fs", "io", "net", "os", "process", "thread"];
const IO_WORDS: &[&str] = &["async", "libc", "rustix", "tokio"];

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: &str = "crates/runtime/src/ring.rs";
    const FORMAT: &str = "crates/md/src/a.rs";

    fn problems(path: &str, text: &str) -> Vec<String> {
        check(&Source::scan(path.into(), text))
    }

    fn count(path: &str, text: &str) -> usize {
        problems(path, text).len()
    }

    #[test]
    fn unfinished_work_is_reported_in_tests_too() {
        assert_eq!(count(FORMAT, concat!("// TO", "DO: later\n")), 1);
        assert_eq!(count(FORMAT, "fn a() { todo!() }"), 1);
        assert_eq!(count("crates/md/tests/a.rs", "#[ignore = \"slow\"]\nfn a() {}"), 1);
        assert_eq!(count(FORMAT, "let text = \"TODO\"; // a mastodon\n"), 0);
    }

    #[test]
    fn unsafe_lives_in_its_homes() {
        let text = "// SAFETY: it is.\nunsafe { a() }\n";
        assert_eq!(count(FORMAT, text), 1);
        assert_eq!(count(HOME, text), 0);
        assert_eq!(count(FORMAT, "#![forbid(unsafe_code)] // unsafe\n"), 0);
    }

    #[test]
    fn an_unsafe_block_says_why() {
        assert_eq!(count(HOME, "let a = unsafe { b() };"), 1);
        assert_eq!(count(HOME, "// SAFETY: it is\n// so.\nlet a =\n    unsafe { b() };"), 0);
        assert_eq!(count(HOME, "// SAFETY: one.\nx();\nunsafe { b() };"), 1);
        assert_eq!(count(HOME, "// SAFETY: one.\n\nunsafe { b() };"), 1);
        assert_eq!(count(HOME, "unsafe impl Send for A {}"), 1);
        assert_eq!(count(HOME, "/// # Safety\n/// Aligned.\nunsafe fn a() {}"), 0);
    }

    #[test]
    fn only_the_report_prints() {
        assert_eq!(count("crates/stack/src/a.rs", "fn a() { println!(\"x\") }"), 1);
        assert_eq!(count("crates/cli/src/report.rs", "fn a() { println!(\"x\") }"), 0);
        assert_eq!(
            count("crates/stack/src/a.rs", "#[cfg(test)]\nmod t { fn a() { print!() } }"),
            0
        );
    }

    #[test]
    fn formats_do_no_input_or_output() {
        assert_eq!(count(FORMAT, "use std::fs::File;"), 1);
        assert_eq!(count(FORMAT, "use std::{\n  fmt,\n  io::{self, Read},\n};"), 1);
        assert_eq!(count(FORMAT, "async fn a() {}"), 1);
        assert_eq!(count(FORMAT, "use std::{fmt, net::Ipv6Addr};"), 0);
        assert_eq!(count(FORMAT, "#[cfg(test)]\nmod tests {\n use std::fs;\n}"), 0);
        assert_eq!(count("crates/layers/src/file/mod.rs", "use std::io;"), 0);
    }

    #[test]
    fn a_place_is_its_line() {
        let found = problems(FORMAT, "use std::fmt;\n\n#[cfg(test)]\nuse x;\nuse std::fs;\n");
        assert!(found.len() == 1 && found[0].starts_with("crates/md/src/a.rs:5:"), "{found:?}");
    }

    #[test]
    fn layers_do_not_import_their_siblings() {
        let path = "crates/layers/src/mirror/mod.rs";
        assert_eq!(count(path, "use crate::linear::Linear;"), 1);
        assert_eq!(count(path, "use crate::{array::Member, fault::Fault};"), 1);
        assert_eq!(count(path, "use crate::array::Member; use crate::mirror::read;"), 0);
        assert_eq!(count("crates/layers/src/lib.rs", "use crate::linear::Linear;"), 0);
    }

    #[test]
    fn long_files_are_split() {
        assert_eq!(count(FORMAT, &"a();\n".repeat(FILE_LINES_MAX)), 0);
        assert_eq!(count(FORMAT, &"a();\n".repeat(FILE_LINES_MAX + 1)), 1);
    }
}
