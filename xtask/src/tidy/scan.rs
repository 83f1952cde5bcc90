//! Rust text, line by line: what is code, what is comment, what is test.
//!
//! A scanner, not a parser: it knows comments, strings and characters well enough to take them
//! out, and follows `#[cfg(test)]` to the end of the item or into the file that it names. Paths
//! and words are then safe to look for in what is left.

use std::collections::HashSet;

/// One line.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Without comments, and with strings emptied.
    pub(super) code: String,
    /// The text of its comments.
    pub(super) comment: String,
    pub(super) is_test: bool,
}

/// One file.
pub(super) struct Source {
    /// From the root of the checkout.
    pub(super) path: String,
    pub(super) lines: Vec<Line>,
    /// Files that hold only tests, because this one says so.
    test_modules: Vec<String>,
}

impl Source {
    pub(super) fn scan(path: String, text: &str) -> Self {
        let mut source = Self { path, lines: split(text), test_modules: Vec::new() };
        source.mark_tests(text);
        source
    }

    pub(super) fn all_is_test(&mut self) {
        for line in &mut self.lines {
            line.is_test = true;
        }
    }

    /// Code outside tests, with line numbers from one.
    pub(super) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.lines.iter().enumerate().filter(|(_, line)| !line.is_test);
        lines.map(|(index, line)| (index + 1, line.code.as_str()))
    }

    fn mark_tests(&mut self, text: &str) {
        let raw: Vec<_> = text.lines().collect();
        let mut index = 0;
        while index < self.lines.len() {
            let code = self.lines[index].code.trim_start();
            if !code.starts_with("#[cfg(test)]") && !code.starts_with("#[cfg(all(test") {
                index += 1;
                continue;
            }
            let end = self.item_end(index);
            for line in &mut self.lines[index..=end] {
                line.is_test = true;
            }
            self.note_module(index, end, &raw);
            index = end + 1;
        }
    }

    /// The last line of the item whose attributes begin at `first`.
    fn item_end(&self, first: usize) -> usize {
        let mut depth = 0_usize;
        for (index, line) in self.lines.iter().enumerate().skip(first) {
            for character in line.code.chars() {
                match character {
                    '{' | '(' | '[' => depth += 1,
                    '}' | ')' | ']' => {
                        depth = depth.saturating_sub(1);
                        if depth == 0 && character == '}' {
                            return index;
                        }
                    }
                    ';' if depth == 0 => return index,
                    _ => {}
                }
            }
        }
        self.lines.len() - 1
    }

    /// If the item is `mod name;`, its file is a test.
    fn note_module(&mut self, first: usize, last: usize, raw: &[&str]) {
        let code = self.lines[last].code.trim();
        let Some((_, name)) = code.strip_suffix(';').and_then(|code| code.split_once("mod "))
        else {
            return;
        };
        let (folder, file) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let path = raw[first..=last].iter().find_map(|line| line.split_once("#[path = \""));
        if let Some((_, rest)) = path {
            let file = rest.split('"').next().unwrap_or_default();
            self.test_modules.push(format!("{folder}/{file}"));
            return;
        }
        let own = match file {
            "lib.rs" | "main.rs" | "mod.rs" => String::new(),
            _ => format!("/{}", file.trim_end_matches(".rs")),
        };
        self.test_modules.push(format!("{folder}{own}/{name}.rs"));
        self.test_modules.push(format!("{folder}{own}/{name}/"));
    }
}

/// The files that hold only tests.
pub(super) struct TestFiles(HashSet<String>);

impl TestFiles {
    pub(super) fn among(sources: &[Source]) -> Self {
        Self(sources.iter().flat_map(|source| source.test_modules.iter().cloned()).collect())
    }

    pub(super) fn contain(&self, path: &str) -> bool {
        let below = |folder: &String| folder.ends_with('/') && path.starts_with(folder.as_str());
        path.contains("/tests/") || self.0.contains(path) || self.0.iter().any(below)
    }
}

/// What the scanner is in the middle of.
enum Inside {
    Code,
    LineComment,
    /// How deep.
    BlockComment(usize),
    /// The hashes of a raw string, none for one with escapes.
    Text(Option<usize>),
}

fn split(text: &str) -> Vec<Line> {
    let characters: Vec<char> = text.chars().collect();
    let mut lines = vec![Line::default()];
    let mut inside = Inside::Code;
    let mut at = 0;
    while at < characters.len() {
        let rest = &characters[at..];
        if rest[0] == '\n' {
            if matches!(inside, Inside::LineComment) {
                inside = Inside::Code;
            }
            lines.push(Line::default());
            at += 1;
            continue;
        }
        let previous = at.checked_sub(1).map(|at| characters[at]);
        let line = lines.last_mut().expect("there is a first line, and none is taken out");
        at += step(rest, previous, &mut inside, line);
    }
    if text.ends_with('\n') {
        lines.pop();
    }
    lines
}

/// Takes the next piece of `rest` and says how many characters it had.
fn step(rest: &[char], previous: Option<char>, inside: &mut Inside, line: &mut Line) -> usize {
    match *inside {
        Inside::LineComment => {
            line.comment.push(rest[0]);
            1
        }
        Inside::BlockComment(depth) => {
            let (taken, depth) = match rest {
                ['*', '/', ..] => (2, depth - 1),
                ['/', '*', ..] => (2, depth + 1),
                _ => {
                    line.comment.push(rest[0]);
                    (1, depth)
                }
            };
            *inside = if depth == 0 { Inside::Code } else { Inside::BlockComment(depth) };
            taken
        }
        Inside::Text(None) => match rest {
            // An escaped line break is left for the caller to count.
            ['\\', '\n', ..] => 1,
            ['\\', _, ..] => 2,
            ['"', ..] => {
                *inside = Inside::Code;
                line.code.push('"');
                1
            }
            _ => 1,
        },
        Inside::Text(Some(hashes)) => {
            let closes = rest[0] == '"'
                && rest.len() > hashes
                && rest[1..=hashes].iter().all(|character| *character == '#');
            if !closes {
                return 1;
            }
            *inside = Inside::Code;
            line.code.push('"');
            1 + hashes
        }
        Inside::Code => code_step(rest, previous, inside, line),
    }
}

fn code_step(rest: &[char], previous: Option<char>, inside: &mut Inside, line: &mut Line) -> usize {
    let in_word = previous.is_some_and(is_word);
    match rest {
        ['/', '/', ..] => {
            *inside = Inside::LineComment;
            2
        }
        ['/', '*', ..] => {
            *inside = Inside::BlockComment(1);
            2
        }
        ['"', ..] => {
            *inside = Inside::Text(None);
            line.code.push('"');
            1
        }
        ['r', ..] | ['b' | 'c', 'r', ..] if !in_word => {
            let prefix = if rest[0] == 'r' { 1 } else { 2 };
            let hashes = rest[prefix..].iter().take_while(|character| **character == '#').count();
            if rest.get(prefix + hashes) == Some(&'"') {
                *inside = Inside::Text(Some(hashes));
                line.code.push('"');
                return prefix + hashes + 1;
            }
            line.code.push(rest[0]);
            1
        }
        // A character; what is not one is a lifetime.
        ['\'', '\\', _, tail @ ..] => {
            let closing = tail.iter().position(|character| *character == '\'');
            closing.map_or(1, |length| 3 + length + 1)
        }
        ['\'', _, '\'', ..] => 3,
        _ => {
            line.code.push(rest[0]);
            1
        }
    }
}

/// Whether a character may be part of a name.
pub(super) fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Vec<String> {
        split(text).into_iter().map(|line| line.code.trim_end().to_owned()).collect()
    }

    #[test]
    fn comments_and_strings_are_taken_out() {
        assert_eq!(code("let a = 1; // unsafe\nlet b;"), ["let a = 1;", "let b;"]);
        assert_eq!(code("a /* x /* y */ \" */ b"), ["a  b"]);
        assert_eq!(code(r#"say("a \" // b"); c"#), [r#"say(""); c"#]);
        assert_eq!(code("x(r#\"a \"b\" \"#); y"), ["x(\"\"); y"]);
        assert_eq!(code("f(b\"unsafe\", br\"x\")"), ["f(b\"\", \"\")"]);
    }

    #[test]
    fn characters_are_not_strings_and_lifetimes_are_not_characters() {
        assert_eq!(
            code("f('\"', '\\'', '\\u{1}', 'x'); g::<'a>(&'a y)"),
            ["f(, , , ); g::<'a>(&'a y)"]
        );
    }

    #[test]
    fn lines_are_counted_through_strings() {
        let lines = code("a(\"one \\\n two\n three\");\nb");
        assert_eq!(lines, ["a(\"", "", "\");", "b"]);
    }

    #[test]
    fn comments_are_kept_apart() {
        assert_eq!(split("x // why\n")[0].comment, " why");
    }

    #[test]
    fn a_test_module_is_test_to_its_last_brace() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() { c() }\n}\nfn d() {}\n";
        let source = Source::scan("crates/x/src/a.rs".into(), text);
        let tests: Vec<_> = source.lines.iter().map(|line| line.is_test).collect();
        assert_eq!(tests, [false, true, true, true, true, false]);
    }

    #[test]
    fn a_test_module_elsewhere_is_found() {
        let text =
            "#[cfg(test)]\nmod tests;\nmod b;\n#[cfg(test)]\n#[path = \"c_tests.rs\"]\nmod c;";
        let tests = TestFiles::among(&[Source::scan("crates/x/src/a.rs".into(), text)]);
        assert!(tests.contain("crates/x/src/a/tests.rs"));
        assert!(tests.contain("crates/x/src/a/tests/more.rs"));
        assert!(tests.contain("crates/x/src/c_tests.rs"));
        assert!(tests.contain("crates/x/tests/golden.rs"));
        assert!(!tests.contain("crates/x/src/a/b.rs"));
        assert!(!tests.contain("crates/x/src/tests.rs"));
    }
}
