//! Images of the real kernel, opened as volumes: they give the content that the kernel gave, and
//! looking at them in every way changes none of their bytes.

#![allow(clippy::unwrap_used, reason = "tests end with the first surprise")]

mod common;

use common::*;
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use steadfast_stack as stack;
use steadfast_stack::{Algorithm, CipherKind, Given, IntegrityChoice, Key, Member, OpenOptions};

struct Golden {
    entry: Value,
    paths: Vec<PathBuf>,
    _folder: tempfile::TempDir,
}

impl Golden {
    fn name(&self) -> &str {
        self.entry["name"].as_str().unwrap()
    }

    /// What has to be said to open it: keys, and where the data lies.
    fn given(&self) -> Given {
        let mut given = Given::default();
        // The manifest's `/k.hmac` and `/k.jcrypt`.
        let key = |first: u8| Key::new((first..first + 32).collect::<Vec<u8>>()).unwrap();
        if self.name().starts_with("hmac-sha256") {
            given.integrity = IntegrityChoice::Algorithm(Algorithm::HmacSha256, Some(key(0)));
        }
        if self.name().starts_with("jcrypt-ctr") {
            given.journal.cipher = Some((CipherKind::CtrAes, key(0x40)));
        }
        if self.is_separate() {
            let [metadata, data] = &members(&self.paths)[..] else { panic!("two files") };
            given.data_devices = vec![(metadata.clone(), data.clone())];
        }
        given
    }

    fn is_separate(&self) -> bool {
        self.name().contains("-meta")
    }

    fn members(&self) -> Vec<Member> {
        let count = if self.is_separate() { 1 } else { self.paths.len() };
        members(&self.paths[..count])
    }

    fn read_only(&self) -> OpenOptions {
        OpenOptions { given: self.given(), ..OpenOptions::read_only(self.members()) }
    }

    fn expected(&self) -> &str {
        self.entry["expect_sha256"].as_str().unwrap()
    }

    fn hashes(&self) -> Vec<String> {
        self.paths.iter().map(|path| sha256(&std::fs::read(path).unwrap())).collect()
    }
}

/// Whether all of it can be read: the tags of the others are not valid everywhere.
fn is_readable(entry: &Value) -> bool {
    let others = ["+unclean", "-nowipe", "recalc-"];
    let name = entry["name"].as_str().unwrap();
    others.iter().all(|other| !name.contains(other))
}

/// The images of a family, each decompressed into a folder of its own.
fn images(family: &str) -> Vec<Golden> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden");
    let text = std::fs::read_to_string(folder.join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let entries = manifest["entries"].as_array().unwrap().iter();
    let found: Vec<Golden> = entries
        .filter(|entry| entry["family"] == family && is_readable(entry))
        .map(|entry| {
            let target = tempfile::tempdir().unwrap();
            let files = entry["files"].as_array().unwrap().iter();
            let paths = files.map(|file| {
                let name = file["file"].as_str().unwrap();
                let path = target.path().join(name.trim_end_matches(".zst"));
                let source = folder.join(name);
                let done = Command::new("zstd").arg("-dqo").arg(&path).arg(&source).status();
                let done = done.expect("zstd runs; install the Debian package zstd");
                assert!(done.success(), "zstd decompresses {name}");
                path
            });
            Golden { entry: entry.clone(), paths: paths.collect(), _folder: target }
        })
        .collect();
    assert!(!found.is_empty(), "the images of {family} are there");
    found
}

/// Inspects, opens, reads, explains and checks; gives the content.
fn look_in_every_way(golden: &Golden) -> Vec<u8> {
    let (named, given) = (golden.members(), golden.given());
    let inspection = run(async move { stack::inspect(&named, &given).await });
    for member in &inspection.members {
        assert_eq!(member.problem, None, "{}", golden.name());
        assert!(member.integrity.is_some() || member.md.is_some());
    }
    with_volume(golden.read_only(), |volume| async move {
        let (content, bad) = read_all(&volume).await;
        assert_eq!(bad, 0);
        for sector in [0, 1, 4096, volume.device().limits().sectors - 1] {
            stack::explain(&volume, units::Sector(sector)).await.unwrap();
        }
        let check = scrub::Options::new(bio::ScrubMode::Check);
        let summary = volume.scrub(&check, |_, _| ControlFlow::Continue(())).await;
        assert_eq!(summary.unreadable.sectors, 0, "{:?}", summary.lines);
        assert_eq!(summary.inconsistent.sectors, 0, "{:?}", summary.lines);
        let _status = volume.status();
        content
    })
}

fn give_the_kernels_content(family: &str) {
    for golden in images(family) {
        let before = golden.hashes();
        let content = look_in_every_way(&golden);
        assert_eq!(sha256(&content), golden.expected(), "{}", golden.name());
        assert_eq!(golden.hashes(), before, "{}: no byte was changed", golden.name());
    }
}

#[test]
fn dm_integrity_volumes_give_the_kernels_content() {
    give_the_kernels_content("dm-integrity");
}

#[test]
fn md_arrays_give_the_kernels_content() {
    give_the_kernels_content("md");
}

#[test]
fn md_arrays_over_damaged_dm_integrity_give_the_kernels_content() {
    give_the_kernels_content("md-on-dm-integrity");
}

#[test]
fn opened_for_writing_and_closed_they_still_give_it_or_are_refused_by_name() {
    for family in ["dm-integrity", "md", "md-on-dm-integrity"] {
        for golden in images(family) {
            let before = golden.hashes();
            let options = OpenOptions { read_only: false, ..golden.read_only() };
            let refused = run(async move {
                match stack::open(&options).await {
                    Err(error) => Some(error.to_string()),
                    Ok(volume) => {
                        read_all(&volume).await;
                        volume.close().await.unwrap();
                        None
                    }
                }
            });
            let name = golden.name();
            let feature = if family != "dm-integrity"
                && (name.contains("bitmap") || name.contains("degraded"))
            {
                Some("a write-intent bitmap is not implemented for writing")
            } else if name.contains("ppl") {
                Some("a partial parity log is not implemented for writing")
            } else {
                None
            };
            assert_eq!(refused.as_deref(), feature, "{name}");
            if feature.is_some() {
                assert_eq!(golden.hashes(), before, "{name}: refused, and nothing written");
            }
            let content = look_in_every_way(&golden);
            assert_eq!(sha256(&content), golden.expected(), "{name}");
        }
    }
}

#[test]
fn a_volume_with_a_key_is_refused_without_it_and_names_what_was_tried() {
    let images = images("dm-integrity");
    let keyed = images.iter().find(|golden| golden.name() == "hmac-sha256-512").unwrap();
    let refused = |integrity| {
        let given = Given { integrity, ..Given::default() };
        let options = OpenOptions { given, ..keyed.read_only() };
        run(async move { stack::open(&options).await.err().unwrap().to_string() })
    };
    let text = refused(IntegrityChoice::Find);
    assert!(text.contains("any of sha256, blake2b-256, blake2s-256, crc32c, "), "{text}");
    assert!(text.contains("those with a key are tried only if named"), "{text}");
    let text = refused(IntegrityChoice::Algorithm(Algorithm::HmacSha256, None));
    assert!(text.contains("hmac-sha256 needs a key, and none was given"), "{text}");
    let other = Key::new([9; 32]).unwrap();
    let other = IntegrityChoice::Algorithm(Algorithm::HmacSha256, Some(other));
    let text = refused(other);
    assert!(text.contains("verifies with hmac-sha256: another key or algorithm"), "{text}");
}
