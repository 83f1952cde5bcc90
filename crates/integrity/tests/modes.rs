//! Images of the real kernel that are more than a plain volume with a journal: bitmap, no journal,
//! separate metadata, encrypted journal, unwritten and half recalculated volumes; and every volume of
//! CRC-32C found again without its superblock.

#![allow(clippy::unwrap_used, reason = "a test")]

use checksum::{Algorithm, BlockTagger, Key};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::process::Command;
use steadfast_integrity::bitmap::{UNIT_BYTES, Verdict, verdict};
use steadfast_integrity::find::{decrypt, in_window, salt_of_crc};
use steadfast_integrity::layout::{DeviceSectors, FormatOptions, buffer_sectors};
use steadfast_integrity::open::{Mode, Request, open};
use steadfast_integrity::recalculate::Recalculation;
use steadfast_integrity::{
    Bitmap, CipherKind, CommitIds, EntrySector, Flags, JournalCipher, Layout, Plan, SectionSummary,
    Superblock, format, superblock_area,
};
use units::{SECTOR_BYTES, Sector, u64_of, usize_of};

struct Golden {
    entry: Value,
    /// With superblock, journal and tags.
    metadata: Vec<u8>,
    /// With the data, if that is another.
    data: Option<Vec<u8>>,
}

fn golden(name: &str) -> Golden {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden");
    let text = std::fs::read_to_string(folder.join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let entries = manifest["entries"].as_array().unwrap();
    let entry = entries.iter().find(|entry| entry["name"] == name).unwrap().clone();
    let image = |index: usize| {
        let file = entry["files"][index]["file"].as_str()?;
        let raw = Command::new("zstd").arg("-dcq").arg(folder.join(file)).output().unwrap();
        assert!(raw.status.success(), "zstd decompresses {file}");
        Some(raw.stdout)
    };
    Golden { metadata: image(0).unwrap(), data: image(1), entry }
}

impl Golden {
    fn text(&self, key: &str) -> &str {
        self.entry[key].as_str().unwrap_or_default()
    }

    fn data(&self) -> &[u8] {
        self.data.as_deref().unwrap_or(&self.metadata)
    }

    fn device(&self) -> DeviceSectors {
        let sectors = |image: &[u8]| u64_of(image.len() / SECTOR_BYTES);
        let metadata = sectors(&self.metadata);
        match &self.data {
            None => DeviceSectors::Interleaved(metadata),
            Some(data) => DeviceSectors::Separate { metadata, data: sectors(data) },
        }
    }

    fn opened(&self) -> (Superblock, Layout) {
        let superblock = Superblock::decode(&self.metadata[..4096]).unwrap();
        assert_eq!(superblock_area(&superblock), self.metadata[..4096]);
        let layout = Layout::of(&superblock, self.device()).unwrap();
        let table = self.text("dm_table");
        let buffer = format!(" buffer_sectors:{} ", buffer_sectors(&layout, None));
        assert!(table.contains(&buffer), "{table}");
        let journal = format!(" journal_sectors:{} ", layout.journal.sectors());
        assert!(table.contains(&journal), "{table}");
        (superblock, layout)
    }

    fn section<'a>(&'a self, layout: &Layout, number: u32) -> &'a [u8] {
        let start = usize_of(layout.journal.section_start(number).bytes());
        &self.metadata[start..start + layout.journal.section_bytes()]
    }

    /// Every block, with its data and whether its tag fits.
    fn blocks(&self) -> impl Iterator<Item = (u64, &[u8], bool)> {
        let (superblock, layout) = self.opened();
        let tagger = tagger(&superblock);
        (0..layout.provided_sectors).step_by(usize_of(layout.block.sectors())).map(move |sector| {
            let run = layout.run(Sector(sector), layout.block.sectors());
            let data = &self.data()[usize_of(run.data.bytes())..][..layout.block.bytes()];
            let tag = &self.metadata[usize_of(run.tag_byte)..][..layout.tag_bytes];
            (sector, data, tagger.verify(sector, data, tag).is_none())
        })
    }

    fn content_hash(&self) -> String {
        hash(&self.blocks().flat_map(|(_, data, _)| data).copied().collect::<Vec<u8>>())
    }
}

fn tagger(superblock: &Superblock) -> BlockTagger {
    let salt = superblock.hashed_salt();
    BlockTagger::new(Algorithm::Crc32c, None, salt, superblock.block).unwrap()
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The sectors of the ranges that a map of the manifest marks with `sign`.
fn marked(map: &Value, sign: &str) -> Vec<u64> {
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap() / 512;
    let ranges = map.as_array().unwrap().iter().map(|line| {
        let parts: Vec<&str> = line.as_str().unwrap().split_whitespace().collect();
        (number(parts[0])..number(parts[0]) + number(parts[1]), parts[2])
    });
    ranges.filter(|(_, found)| *found == sign).flat_map(|(range, _)| range).collect()
}

/// The bytes of a key file, as the manifest gives them.
fn journal_key() -> Key {
    Key::new((0x40..0x60).collect::<Vec<u8>>()).unwrap()
}

#[test]
fn an_encrypted_journal_holds_the_newest_data() {
    let golden = golden("jcrypt-ctr-512+unreplayed");
    let (superblock, layout) = golden.opened();
    let journal = &layout.journal;
    let cipher = JournalCipher::new(CipherKind::CtrAes, &journal_key(), journal).unwrap();
    let mut sections = Vec::new();
    let mut summaries: Vec<SectionSummary> = Vec::new();
    for number in 0..journal.sections {
        let mut section = golden.section(&layout, number).to_vec();
        cipher.decrypt(number, &mut section);
        summaries.push(journal.summarise(&section, number, &cipher.commit_ids()));
        let mut again = section.clone();
        cipher.encrypt(number, &mut again);
        assert!(again == golden.section(&layout, number), "section {number}");
        sections.push(section);
    }
    let plan = Plan::new(&summaries).unwrap();

    assert_eq!(golden.content_hash(), golden.text("ignoring_journal_sha256"));
    let mut content: Vec<u8> = golden.blocks().flat_map(|(_, data, _)| data).copied().collect();
    let tagger = tagger(&superblock);
    let mut replayed = 0;
    for number in plan.replay_order() {
        let section = &sections[usize_of(number.into())];
        for entry in 0..journal.entries_per_section {
            let EntrySector::Used(sector) = journal.entry_sector(section, entry) else { continue };
            let start = usize_of(sector) * SECTOR_BYTES;
            let block = &mut content[start..start + layout.block.bytes()];
            journal.read_data(section, entry, block);
            let tag = journal.entry_tag(section, entry);
            assert_eq!(tagger.verify(sector, block, tag), None, "sector {sector}");
            replayed += 1;
        }
    }
    // Ten blocks of 4096 bytes: the newer ranges of the recipe.
    assert_eq!(replayed, 80);
    assert_eq!(hash(&content), golden.text("expect_sha256"));
}

#[test]
fn with_another_key_no_sector_of_an_encrypted_journal_has_an_id() {
    let golden = golden("jcrypt-ctr-512+unreplayed");
    let (_, layout) = golden.opened();
    let journal = &layout.journal;
    let other = Key::new([0x41; 32]).unwrap();
    let wrong = JournalCipher::new(CipherKind::CtrAes, &other, journal).unwrap();
    let mut section = golden.section(&layout, 0).to_vec();
    let plain = journal.summarise(&section, 0, &CommitIds::PLAIN);
    assert_eq!((plain.sequences, plain.bad_sector), (0, Some(0)), "not a plain journal");
    wrong.decrypt(0, &mut section);
    let summary = journal.summarise(&section, 0, &wrong.commit_ids());
    assert_eq!((summary.sequences, summary.bad_sector), (0, Some(0)));
}

#[test]
fn volumes_with_a_metadata_device_are_made_and_read_as_the_kernel_does() {
    for name in ["crc32c-512-meta", "crc32c-512-meta+partreplayed"] {
        let golden = golden(name);
        let (superblock, layout) = golden.opened();
        let options = FormatOptions {
            fix_padding: false,
            ..FormatOptions::new(superblock.block, superblock.tag_size, superblock.salt)
        };
        assert_eq!(format(golden.device(), &options), Ok((superblock, layout)));
        assert!(golden.blocks().all(|(_, _, sound)| sound), "{name}");
        assert_eq!(golden.content_hash(), golden.text("expect_sha256"), "{name}");
    }
}

#[test]
fn a_bitmap_that_was_closed_is_a_journal_again() {
    let golden = golden("crc32c-512-bitmap");
    let (superblock, layout) = golden.opened();
    assert!(!superblock.flags.has(Flags::DIRTY_BITMAP));
    for number in 0..layout.journal.sections {
        let section = golden.section(&layout, number);
        let summary = layout.journal.summarise(section, number, &CommitIds::PLAIN);
        assert_eq!((summary.sequences, summary.bad_sector, summary.used_entries), (1, None, 0));
    }
}

#[test]
fn a_bitmap_that_was_not_closed_names_the_dirty_regions() {
    let golden = golden("crc32c-512-bitmap+unclean");
    let (superblock, layout) = golden.opened();
    let log2 = superblock.log2_blocks_per_bitmap_bit;
    let area = &golden.metadata[4096..][..usize_of(layout.journal.sectors()) * SECTOR_BYTES];
    let bitmap = Bitmap::decode(&layout, log2, area).unwrap();
    // One region covers it all.
    assert_eq!((bitmap.bit_count(), bitmap.units()), (1, 1));
    assert_eq!(bitmap.dirty().collect::<Vec<_>>(), [(Sector(0), 32_328)]);
    let mut unit = area[..UNIT_BYTES].to_vec();
    bitmap.encode_unit(0, &mut unit);
    assert!(unit == area[..UNIT_BYTES], "what is stale stays");

    assert_eq!(verdict(&superblock, &bitmap, Mode::Bitmap, Some(15), false), Verdict::Regions);
    assert_eq!(verdict(&superblock, &bitmap, Mode::Journal, None, false), Verdict::Everything);
    let opening = open(&superblock, &Request::plain(Mode::Journal)).unwrap();
    assert!(!opening.replays, "there is no journal to replay");
    // All the newer data arrived, whatever its tags say.
    assert_eq!(golden.content_hash(), golden.text("expect_sha256"));
}

#[test]
fn a_crash_without_a_journal_leaves_the_blocks_that_the_kernel_cannot_read() {
    let golden = golden("crc32c-512-nojournal+unclean");
    let bad: Vec<u64> =
        golden.blocks().filter(|(_, _, sound)| !sound).map(|(sector, ..)| sector).collect();
    assert_eq!(bad, marked(&golden.entry["unreadable_map"], "-"));
}

#[test]
fn of_an_unwiped_volume_what_was_written_is_readable() {
    let golden = golden("crc32c-512-nowipe");
    let good: Vec<u64> =
        golden.blocks().filter(|(_, _, sound)| *sound).map(|(sector, ..)| sector).collect();
    assert_eq!(good, marked(&golden.entry["readable"], "+"));
}

#[test]
fn a_recalculation_that_stopped_has_valid_tags_up_to_its_position() {
    let golden = golden("recalc-half-crc32c");
    let (superblock, layout) = golden.opened();
    let state = Recalculation::of(&superblock).unwrap();
    assert_eq!((state.position(), layout.provided_sectors), (98_304, 129_160));
    for (sector, _, sound) in golden.blocks() {
        let covered = state.covered(Sector(sector), 1) == 1;
        assert!(sound || !covered, "sector {sector}");
    }
    assert_eq!(golden.content_hash(), golden.text("expect_sha256"), "as the kernel read it");
    let step = state.step(&layout).unwrap();
    assert_eq!((step.sector, step.sectors), (Sector(98_304), 129_160 - 98_304));
}

#[test]
fn every_volume_is_found_again_without_its_superblock() {
    let names = [
        "crc32-512",
        "crc32c-4k",
        "crc32c-4k-j1m",
        "crc32c-512",
        "crc32c-512+partreplayed",
        "crc32c-512-bitmap+unclean",
        "crc32c-512-inter8k",
        "crc32c-512-j1m",
        "crc32c-512-j1m+unreplayed",
        "crc32c-512-legacypad",
        "crc32c-512-meta",
        "crc32c-512-meta+partreplayed",
        "crc32c-512-nojournal+unclean",
        "crc32c-512-nowipe",
        "jcrypt-ctr-512+unreplayed",
        "recalc-half-crc32c",
    ];
    for name in names {
        let mut golden = golden(name);
        let (superblock, layout) = golden.opened();
        golden.metadata[..4096].fill(0);
        let ids = match name.starts_with("jcrypt") {
            true => decrypt(&mut golden.metadata, CipherKind::CtrAes, &journal_key()).unwrap(),
            false => Some(CommitIds::PLAIN),
        };
        let algorithm = if name == "crc32-512" { Algorithm::Crc32 } else { Algorithm::Crc32c };
        let salt_of = salt_of_crc(algorithm);
        let (metadata, data) = (&golden.metadata, golden.data.as_deref());
        let found = in_window(metadata, data, golden.device(), &ids.unwrap(), &salt_of);
        assert_eq!(found[0].layout, layout, "{name}: {:?}", found[0].reasons());
        let salt = found[0].evidence.salt.unwrap();
        let block = vec![0x5a; layout.block.bytes()];
        let tag =
            |salt| BlockTagger::new(algorithm, None, salt, layout.block).unwrap().tag(8, &block);
        assert_eq!(tag(Some(salt)), tag(superblock.hashed_salt()), "{name}");
    }
}
