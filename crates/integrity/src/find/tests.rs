use super::*;
use crate::layout::{FormatOptions, format};
use crate::superblock::{AREA_BYTES, superblock_area};
use crate::{Flags, Layout, Sequence, Stamp, Superblock};
use checksum::BlockTagger;
use units::{BlockSize, u64_of};

/// A volume in memory whose data and tags fit, with `entries` blocks in its journal.
struct Volume {
    superblock: Superblock,
    layout: Layout,
    image: Vec<u8>,
}

const SALT: [u8; 16] = *b"an unknown salt.";

fn noise(sector: u64, index: usize) -> u8 {
    let mixed = (sector + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64_of(index / 8);
    mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9).to_be_bytes()[index % 8]
}

impl Volume {
    fn made(sectors: u64, options: &FormatOptions, algorithm: Algorithm, entries: u32) -> Self {
        let (superblock, layout) = format(DeviceSectors::Interleaved(sectors), options).unwrap();
        let tagger = tagger(&superblock, &layout, algorithm);
        let mut image = vec![0x55; usize_of(sectors) * 512];
        image[..AREA_BYTES].copy_from_slice(&superblock_area(&superblock));
        let block = layout.block;
        for run in layout.runs(Sector::ZERO, layout.provided_sectors) {
            for sector in
                (run.sector.0..run.sector.0 + run.sectors).step_by(usize_of(block.sectors()))
            {
                // Three quarters of it were never written: zeroes.
                let data = match sector / 64 % 4 {
                    0 => (0..block.bytes()).map(|index| noise(sector, index)).collect(),
                    _ => vec![0; block.bytes()],
                };
                let place = layout.run(Sector(sector), block.sectors());
                let start = usize_of(place.data.bytes());
                image[start..start + data.len()].copy_from_slice(&data);
                let tag = usize_of(place.tag_byte);
                tagger.tags(sector, &data, &mut image[tag..tag + layout.tag_bytes]);
            }
        }
        write_journal(&mut image, &layout, &tagger, entries);
        Self { superblock, layout, image }
    }

    /// Without its superblock, found again.
    fn found(&self, salt_of: SaltOf) -> Vec<Candidate> {
        let mut window = self.image.clone();
        window[..AREA_BYTES].fill(0);
        let device = DeviceSectors::Interleaved(u64_of(window.len()) / 512);
        in_window(&window, None, device, &CommitIds::PLAIN, salt_of)
    }
}

fn tagger(superblock: &Superblock, layout: &Layout, algorithm: Algorithm) -> BlockTagger {
    let salt = superblock.hashed_salt();
    BlockTagger::new(algorithm, None, salt, layout.block).unwrap().with_tag_bytes(layout.tag_bytes)
}

fn write_journal(image: &mut [u8], layout: &Layout, tagger: &BlockTagger, entries: u32) {
    let journal = &layout.journal;
    for number in 0..journal.sections {
        let start = usize_of(journal.section_start(number).bytes());
        let section = &mut image[start..start + journal.section_bytes()];
        journal.initialise(section);
        let stamp = Stamp { ids: CommitIds::PLAIN, section: number, sequence: Sequence::FIRST };
        let used = if number == 0 { entries.min(journal.entries_per_section) } else { 0 };
        for entry in 0..used {
            let sector = u64::from(entry) * 8;
            let data: Vec<u8> =
                (0..journal.block.bytes()).map(|index| noise(sector + 7, index)).collect();
            let mut tag = vec![0; layout.tag_bytes];
            tagger.tags(sector, &data, &mut tag);
            journal.write_entry(section, entry, sector, &data, &tag, &stamp);
        }
        journal.finish(section, used, &stamp);
    }
}

fn assert_same(found: &Candidate, volume: &Volume, what: &str) {
    let reasons = found.reasons();
    assert_eq!(found.layout, volume.layout, "{what}: {reasons:?}");
    assert_eq!(found.superblock.journal_sections, volume.superblock.journal_sections, "{what}");
}

#[test]
fn every_parameter_set_is_found_again_by_its_tags() {
    let sets = [
        (512, 4, None, None, true),
        (512, 4, Some(8192), None, true),
        (512, 4, Some(512), Some(1000), true),
        (512, 4, Some(512), None, false),
        (1024, 4, None, Some(300), true),
        (2048, 4, Some(2048), None, true),
        (4096, 4, None, None, true),
        (4096, 4, None, None, false),
        (4096, 4, Some(8), Some(2500), true),
        (512, 8, None, None, true),
        (4096, 32, Some(4096), None, true),
        (512, 100, Some(1024), None, true),
    ];
    let kinds = [(Algorithm::Crc32c, 0), (Algorithm::Crc32, 40)].into_iter().cycle();
    for (set, (algorithm, entries)) in sets.into_iter().zip(kinds) {
        let (block, tag, interleave_sectors, journal_sectors, fix_padding) = set;
        let options = FormatOptions {
            interleave_sectors,
            journal_sectors,
            fix_padding,
            ..FormatOptions::new(BlockSize::from_bytes(block).unwrap(), tag, SALT)
        };
        let volume = Volume::made(12_288, &options, algorithm, entries);
        let what = format!("{options:?} {algorithm} {entries}");
        let found = volume.found(&salt_of_crc(algorithm));
        assert_same(&found[0], &volume, &what);
        let evidence = &found[0].evidence;
        assert_eq!(evidence.blocks_agree, evidence.blocks_asked, "{what}");
        // The salt that was found tags every block as the lost one did.
        let again = tagger(&found[0].superblock, &found[0].layout, algorithm);
        let lost = tagger(&volume.superblock, &volume.layout, algorithm);
        let data = vec![0x3c; volume.layout.block.bytes()];
        assert_eq!(again.tag(64, &data), lost.tag(64, &data), "{what}");
    }
}

#[test]
fn volumes_without_a_salt_and_with_a_journal_mac_are_found() {
    for (fix_hmac, journal_mac) in [(false, false), (true, true), (false, true)] {
        let options =
            FormatOptions { fix_hmac, journal_mac, ..FormatOptions::new(BlockSize::B512, 4, SALT) };
        let volume = Volume::made(16_384, &options, Algorithm::Crc32c, 20);
        let found = volume.found(&salt_of_crc(Algorithm::Crc32c));
        assert_same(&found[0], &volume, "a journal of 20 or 21 entries a sector");
        assert_eq!(found[0].superblock.flags.has(Flags::JOURNAL_MAC), journal_mac);
    }
}

#[test]
fn a_hash_that_cannot_be_run_backwards_is_found_with_the_salt_known() {
    let options = FormatOptions::new(BlockSize::B4096, 32, SALT);
    let volume = Volume::made(24_576, &options, Algorithm::Sha256, 0);
    let known = |sector: Sector, data: &[u8], tag: &[u8]| {
        let block = BlockSize::from_bytes(u64_of(data.len()))?;
        let tagger = BlockTagger::new(Algorithm::Sha256, None, Some(SALT), block).ok()?;
        let tagger = tagger.with_tag_bytes(tag.len());
        // Any tag size between one and the digest's would verify; the whole one is usual.
        tagger.verify(sector.0, data, tag).is_none().then_some(SALT)
    };
    let found = volume.found(&known);
    assert_same(&found[0], &volume, "sha256");
    assert_eq!(found[0].superblock, volume.superblock);
}

#[test]
fn without_a_single_tag_the_journal_says_what_it_knows() {
    let options = FormatOptions {
        journal_sectors: Some(2000),
        ..FormatOptions::new(BlockSize::B512, 20, SALT)
    };
    let volume = Volume::made(24_576, &options, Algorithm::Sha1, 30);
    let found = volume.found(&|_, _, _| None);
    // Block, tag (its bytes lie in the entries) and journal are right; the interleave is a guess.
    let journal = volume.layout.journal;
    assert_eq!(found[0].layout.journal, journal);
    assert_eq!((found[0].superblock.tag_size, found[0].evidence.blocks_agree), (20, 0));
    assert_eq!(found[0].evidence.salt, None);
}

#[test]
fn half_a_journal_of_noise_is_still_a_journal() {
    let options = FormatOptions {
        journal_sectors: Some(1000),
        ..FormatOptions::new(BlockSize::B512, 4, SALT)
    };
    let mut volume = Volume::made(24_576, &options, Algorithm::Crc32c, 0);
    for sector in (8..volume.layout.initial_sectors).filter(|sector| sector % 5 < 2) {
        volume.image[usize_of(sector) * 512..][..512].fill(0x77);
    }
    let trace = JournalTrace::find(&volume.image, &CommitIds::PLAIN).unwrap();
    assert_eq!((trace.section_sectors, trace.sections, trace.complete), (176, 5, true));
    assert_eq!((trace.seen, trace.witnesses), (880, 528));
    assert_same(&volume.found(&salt_of_crc(Algorithm::Crc32c))[0], &volume, "torn");
}

#[test]
fn a_window_that_ends_in_the_journal_says_so() {
    let options = FormatOptions {
        journal_sectors: Some(1000),
        ..FormatOptions::new(BlockSize::B512, 4, SALT)
    };
    let volume = Volume::made(24_576, &options, Algorithm::Crc32c, 0);
    let trace = JournalTrace::find(&volume.image[..600 * 512], &CommitIds::PLAIN).unwrap();
    assert_eq!((trace.section_sectors, trace.sections, trace.complete), (176, 4, false));
    assert_eq!(JournalTrace::find(&volume.image[..4096], &CommitIds::PLAIN), None);
    assert_eq!(JournalTrace::find(&[], &CommitIds::PLAIN), None);
}

#[test]
fn a_few_stray_sectors_of_an_older_journal_are_no_sections() {
    let options = FormatOptions {
        journal_sectors: Some(400),
        ..FormatOptions::new(BlockSize::B512, 4, SALT)
    };
    let mut volume = Volume::made(24_576, &options, Algorithm::Crc32c, 0);
    for (section, sector) in [(3_u32, 5_u64), (4, 100), (4, 101)] {
        let at = usize_of(8 + 176 * u64::from(section) + sector) * 512;
        let id = CommitIds::PLAIN.id(section, sector, Sequence::FIRST);
        volume.image[at + 504..at + 512].copy_from_slice(&id.to_le_bytes());
    }
    let trace = JournalTrace::find(&volume.image, &CommitIds::PLAIN).unwrap();
    assert_eq!((trace.section_sectors, trace.sections), (176, 2));
}

#[test]
fn a_single_section_without_its_end_is_taken_for_the_shortest() {
    let options =
        FormatOptions { journal_sectors: Some(1), ..FormatOptions::new(BlockSize::B512, 4, SALT) };
    let mut volume = Volume::made(24_576, &options, Algorithm::Crc32c, 0);
    volume.image[(8 + 175) * 512..][..512].fill(0);
    let trace = JournalTrace::find(&volume.image, &CommitIds::PLAIN).unwrap();
    assert_eq!((trace.section_sectors, trace.sections), (176, 1));
}

#[test]
fn noise_holds_no_volume() {
    let noise: Vec<u8> = (0..1 << 20).map(|index| noise(3, index)).collect();
    let device = DeviceSectors::Interleaved(2048);
    assert!(in_window(&noise, None, device, &CommitIds::PLAIN, &|_, _, _| None).is_empty());
}

#[test]
fn forms_are_what_makes_sections_of_that_length() {
    let of = |sectors| {
        let all = forms(sectors);
        let blocks: Vec<usize> = all.iter().map(|form| form.block.bytes()).collect();
        (blocks.first().copied(), blocks.last().copied(), all.len())
    };
    // 21 entries of 24 bytes: tags of 1 to 8, without a MAC.
    assert_eq!(of(176), (Some(512), Some(512), 8));
    let with_20 = forms(168).into_iter().filter(|form| form.block == BlockSize::B512);
    assert!(with_20.map(|form| form.journal_mac).eq([true; 8]), "room for a MAC");
    assert_eq!(of(177), (None, None, 0));
    assert_eq!((forms(8).len(), forms(0).len()), (0, 0));
}
