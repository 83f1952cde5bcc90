//! Images of the real kernel: what they decode to, and that encoding gives the same bytes back.

#![allow(clippy::unwrap_used, reason = "a test")]

use checksum::{Algorithm, BlockTagger, Key, SaltRegister};
use std::path::{Path, PathBuf};
use std::process::Command;
use steadfast_integrity::layout::{DeviceSectors, FormatOptions, format};
use steadfast_integrity::{
    CommitIds, EntrySector, Layout, Plan, Superblock, explain, superblock_area,
};
use units::{SECTOR_BYTES, Sector, u64_of, usize_of};

/// One entry of the manifest, with its raw image.
struct Golden {
    name: String,
    dump: String,
    table: String,
    state: String,
    algorithm: Algorithm,
    image: Vec<u8>,
}

impl Golden {
    fn tagger(&self, superblock: &Superblock) -> BlockTagger {
        // The manifest's `/k.hmac`.
        let key = Key::new((0..32).collect::<Vec<u8>>()).unwrap();
        let key = self.algorithm.is_keyed().then_some(&key);
        let salt = superblock.hashed_salt();
        BlockTagger::new(self.algorithm, key, salt, superblock.block).unwrap()
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden")
}

fn images() -> Vec<Golden> {
    let text = std::fs::read_to_string(folder().join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    let entries = manifest["entries"].as_array().unwrap();
    let ours = entries.iter().filter(|entry| entry["family"] == "dm-integrity");
    // The others have tests of their own in `modes.rs`.
    let others = ["+unclean", "-meta", "-nowipe", "jcrypt-", "recalc-"];
    let plain = |name: &str| others.iter().all(|other| !name.contains(other));
    let ours = ours.filter(|entry| plain(entry["name"].as_str().unwrap()));
    let images: Vec<Golden> = ours
        .map(|entry| {
            let made_by = entry["format_cmd"].as_str().unwrap();
            let mut words = made_by.split(' ').skip_while(|word| *word != "--integrity");
            let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
            let file = entry["files"][0]["file"].as_str().unwrap();
            let raw = Command::new("zstd").arg("-dcq").arg(folder().join(file)).output().unwrap();
            assert!(raw.status.success(), "zstd decompresses {file}");
            Golden {
                name: text("name"),
                dump: text("dump"),
                table: text("dm_table"),
                state: text("state"),
                algorithm: words.nth(1).map_or(Algorithm::Crc32c, |name| name.parse().unwrap()),
                image: raw.stdout,
            }
        })
        .collect();
    assert!(images.len() >= 14, "the images of this slice are there");
    images
}

fn opened(golden: &Golden) -> (Superblock, Layout) {
    let superblock = Superblock::decode(&golden.image[..4096]).unwrap();
    let sectors = u64_of(golden.image.len() / SECTOR_BYTES);
    let layout = Layout::of(&superblock, DeviceSectors::Interleaved(sectors)).unwrap();
    (superblock, layout)
}

#[test]
fn superblocks_decode_to_what_the_kernels_tool_says_and_encode_to_the_same_bytes() {
    for golden in images() {
        let (superblock, layout) = opened(&golden);
        assert_eq!(superblock_area(&superblock), golden.image[..4096], "{}", golden.name);
        for line in golden.dump.lines().skip(1) {
            let (name, value) = line.split_once(' ').unwrap();
            let ours = explain::fields(&superblock);
            let (_, ours) = ours.iter().find(|(field, _)| *field == name).unwrap();
            assert_eq!(ours, value.trim(), "{}: {name}", golden.name);
        }
        let journal = format!(" journal_sectors:{} ", layout.journal.sectors());
        assert!(golden.table.contains(&journal), "{}: {journal}", golden.name);
    }
}

#[test]
fn making_the_same_volume_gives_the_kernels_superblock() {
    for golden in images() {
        let (superblock, layout) = opened(&golden);
        let options = FormatOptions {
            journal_sectors: golden.name.contains("-j1m").then_some(2048),
            interleave_sectors: golden.name.contains("-inter8k").then_some(8192),
            fix_padding: !golden.name.contains("-legacypad"),
            fix_hmac: !golden.name.contains("-legacyhmac"),
            ..FormatOptions::new(superblock.block, superblock.tag_size, superblock.salt)
        };
        let sectors = u64_of(golden.image.len() / SECTOR_BYTES);
        let made = format(DeviceSectors::Interleaved(sectors), &options).unwrap();
        assert_eq!(made, (superblock, layout), "{}", golden.name);
    }
}

#[test]
fn every_tag_verifies_where_the_layout_says() {
    for golden in images() {
        let (superblock, layout) = opened(&golden);
        let tagger = golden.tagger(&superblock);
        for run in layout.runs(Sector::ZERO, layout.provided_sectors) {
            let data = usize_of(run.data.bytes())..usize_of((run.data + run.sectors).bytes());
            let blocks = usize_of(run.sectors / layout.block.sectors());
            let tags = usize_of(run.tag_byte)..usize_of(run.tag_byte) + blocks * layout.tag_bytes;
            let bad = tagger.verify(run.sector.0, &golden.image[data], &golden.image[tags]);
            assert_eq!(bad, None, "{}", golden.name);
        }
    }
}

#[test]
fn the_salt_of_a_volume_with_a_crc_is_found_again_from_any_block() {
    let mut count = 0;
    for golden in images().iter().filter(|golden| golden.algorithm.digest_len() == 4) {
        let (superblock, layout) = opened(golden);
        let block = layout.block.sectors();
        let found = [0, 5 * block, layout.provided_sectors - block].map(|sector| {
            let run = layout.run(Sector(sector), block);
            let at = usize_of(run.data.bytes());
            let data = &golden.image[at..at + layout.block.bytes()];
            let at = usize_of(run.tag_byte);
            let tag = golden.image[at..at + 4].try_into().unwrap();
            SaltRegister::behind(golden.algorithm, sector, data, tag).unwrap()
        });
        assert!(found.iter().all(|register| *register == found[0]), "{}", golden.name);
        let solved = Superblock { salt: found[0].salt(), ..superblock.clone() };
        let data = &[0x5A; 4096][..layout.block.bytes()];
        let (solved, lost) = (golden.tagger(&solved), golden.tagger(&superblock));
        assert_eq!(solved.tag(77 * block, data), lost.tag(77 * block, data), "{}", golden.name);
        count += 1;
    }
    assert!(count >= 9, "{count} images with CRCs");
}

#[test]
fn journals_tell_what_they_hold() {
    for golden in images() {
        let (superblock, layout) = opened(&golden);
        let journal = &layout.journal;
        let tagger = golden.tagger(&superblock);
        let section = |number: u32| {
            let start = usize_of(journal.section_start(number).bytes());
            &golden.image[start..start + journal.section_bytes()]
        };
        let summaries: Vec<_> = (0..journal.sections)
            .map(|number| journal.summarise(section(number), number, &CommitIds::PLAIN))
            .collect();
        let plan = Plan::new(&summaries).unwrap();
        let mut held = 0;
        let mut block = vec![0; layout.block.bytes()];
        for number in plan.replay_order() {
            for entry in 0..journal.entries_per_section {
                let section = section(number);
                let EntrySector::Used(sector) = journal.entry_sector(section, entry) else {
                    continue;
                };
                journal.read_data(section, entry, &mut block);
                let tag = journal.entry_tag(section, entry);
                assert_eq!(tagger.verify(sector, &block, tag), None, "{}", golden.name);
                held += 1;
            }
        }
        let clean = golden.state == "clean close";
        assert_eq!(held == 0, clean, "{}: {held} entries", golden.name);
    }
}

#[test]
fn the_kernels_tool_reads_what_is_made_here() {
    for (bytes, tag_size, mib) in [(512, 4, 64_u64), (4096, 4, 16), (512, 4, 1000), (2048, 4, 16)] {
        let block = units::BlockSize::from_bytes(bytes).unwrap();
        let options = FormatOptions::new(block, tag_size, [0x5a; 16]);
        let (superblock, _) = format(DeviceSectors::Interleaved(mib * 2048), &options).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), superblock_area(&superblock)).unwrap();
        file.as_file().set_len(mib << 20).unwrap();
        let tool = Command::new("integritysetup").arg("dump").arg(file.path()).output().unwrap();
        assert!(tool.status.success(), "{}", String::from_utf8_lossy(&tool.stderr));
        let dump = String::from_utf8(tool.stdout).unwrap();
        for (name, value) in explain::fields(&superblock) {
            let line = format!("{name} {value}");
            let known = name != "salt";
            let found = dump.lines().any(|dumped| dumped.trim() == line);
            assert!(found == known, "{name} {value} in:\n{dump}");
        }
    }
}
