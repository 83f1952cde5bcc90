//! The words after a habit's name.

use anyhow::{Context, bail};
use std::collections::VecDeque;

/// Words not yet understood.
pub(crate) struct Words(VecDeque<String>);

impl Words {
    pub(crate) fn new(words: impl Iterator<Item = String>) -> Self {
        Self(words.collect())
    }

    /// Takes the first word.
    pub(crate) fn next(&mut self) -> Option<String> {
        self.0.pop_front()
    }

    /// Takes `name` and the word after it, wherever they stand.
    ///
    /// # Errors
    /// If `name` is the last word.
    pub(crate) fn option(&mut self, name: &str) -> anyhow::Result<Option<String>> {
        let Some(index) = self.0.iter().position(|word| word == name) else { return Ok(None) };
        let value = self.0.remove(index + 1).with_context(|| format!("{name} needs a value"))?;
        self.0.remove(index);
        Ok(Some(value))
    }

    /// Takes `name`, wherever it stands, and tells whether it did.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let index = self.0.iter().position(|word| word == name);
        index.and_then(|index| self.0.remove(index)).is_some()
    }

    /// Everything that is left, for another program.
    pub(crate) fn rest(self) -> Vec<String> {
        self.0.into()
    }

    /// # Errors
    /// If a word is left that nobody understood.
    pub(crate) fn end(self) -> anyhow::Result<()> {
        match self.0.front() {
            Some(word) => bail!("'{word}' means nothing here: `cargo xtask` lists what does"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Words {
        Words::new(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_and_flags_may_stand_anywhere() {
        let mut words = words("target --seconds 7 --json");
        assert!(words.flag("--json"));
        assert_eq!(words.option("--seconds").unwrap().as_deref(), Some("7"));
        assert_eq!(words.next().as_deref(), Some("target"));
        assert!(words.end().is_ok());
    }

    #[test]
    fn what_nobody_understood_is_an_error() {
        assert!(words("stray").end().is_err());
        assert!(words("--seconds").option("--seconds").is_err());
    }
}
