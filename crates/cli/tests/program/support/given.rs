//! Volumes of which the disk does not say everything.

use super::volume::{hashes, on};
use super::{MIB, Said, noise, text};
use std::path::PathBuf;
use tempfile::TempDir;

/// A volume in a scratch folder, and what has to be said of it.
pub struct Given {
    pub folder: TempDir,
    pub members: Vec<PathBuf>,
    /// Those of the data, where they are others.
    pub data: Vec<PathBuf>,
    pub options: Vec<String>,
}

impl Given {
    /// Of `count` members; `options` are those that every verb needs, `more` those of `create`.
    pub fn create(count: usize, separate: bool, options: &[&str], more: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("there is room");
        let path = |name: String| folder.path().join(name);
        for (name, bytes) in [("KEY", [7; 40]), ("OTHER", [8; 40]), ("WRONG", [9; 40])] {
            std::fs::write(path(name.to_owned()), bytes).expect("the folder is ours");
        }
        std::fs::write(path("CIPHER".to_owned()), [6; 32]).expect("the folder is ours");
        let members: Vec<PathBuf> = (0..count).map(|slot| path(format!("m{slot}"))).collect();
        let data = (0..if separate { count } else { 0 }).map(|slot| path(format!("data={slot}")));
        let data: Vec<PathBuf> = data.collect();
        let mut given = Self { folder, members, data, options: Vec::new() };
        given.options = given.resolved(options);
        for (member, data) in given.members.iter().zip(&given.data) {
            let pair = format!("{}={}", text(member), text(data));
            given.options.extend(["--data-device".to_owned(), pair]);
        }
        let mut create = vec!["--size", "8M"];
        create.extend(more);
        given.on("create", &create).ended(0);
        given
    }

    /// Names of key files become paths.
    pub fn resolved(&self, options: &[&str]) -> Vec<String> {
        let folder = text(self.folder.path()).to_owned();
        options.iter().map(|option| option.replace("file=", &format!("file={folder}/"))).collect()
    }

    pub fn on(&self, verb: &str, more: &[&str]) -> Said {
        let options = self.options.iter().map(String::as_str).chain(more.iter().copied());
        on(verb, &self.members, &options.collect::<Vec<&str>>())
    }

    /// The verb with these options instead of its own.
    pub fn with(&self, verb: &str, options: &[&str]) -> Said {
        let options = self.resolved(options);
        on(verb, &self.members, &options.iter().map(String::as_str).collect::<Vec<&str>>())
    }

    pub fn files(&self) -> Vec<PathBuf> {
        self.members.iter().chain(&self.data).cloned().collect()
    }

    /// What goes in comes out; every verb that only looks changes nothing.
    #[track_caller]
    pub fn keeps_what_it_is_given(&self, seed: u64) {
        let bytes = noise(4 * MIB, seed);
        let source = self.folder.path().join("source");
        std::fs::write(&source, &bytes).expect("there is room");
        self.on("import", &["-q", "--from", text(&source)]).ended(0);
        let before = hashes(&self.files());
        let length = bytes.len().to_string();
        let out = self.on("export", &["-q", "--to", "-", "--length", &length]).ended(0);
        assert!(out.stdout == bytes, "other bytes come out: {:?}", self.options);
        for (verb, more) in [
            ("inspect", &[][..]),
            ("status", &[]),
            ("explain", &["--sector", "4321"]),
            ("scrub", &["--check"]),
        ] {
            self.on(verb, more).ended(0);
        }
        assert_eq!(hashes(&self.files()), before, "{:?}", self.options);
        self.on("scrub", &[]).ended(0);
    }
}
