//! dm-integrity's bytes: superblock, journal sections, and the plan for a journal.

use crate::input::{Input, flip};
use integrity::journal::Sequence;
use integrity::layout::{DeviceSectors, FormatOptions, JournalLayout};
use integrity::open::{Discards, Mode, Recalculate, Request, open};
use integrity::recalculate::Keys;
use integrity::{
    CommitIds, EntrySector, Layout, Plan, SectionSummary, Stamp, Superblock, explain, format,
    replay, resize,
};
use units::{BlockSize, SECTOR, Sector, u64_of, usize_of};

/// Any bytes as a superblock: what decodes is encoded to the same bytes, and a layout that fits its
/// device stays inside of it.
pub fn superblock(bytes: &[u8]) {
    let Ok(superblock) = Superblock::decode(bytes) else { return };
    let encoded = superblock.encode();
    assert_eq!(encoded, bytes[..encoded.len()], "every bit survives");
    assert_eq!(Superblock::decode(&encoded).as_ref(), Ok(&superblock));
    assert!(!explain::fields(&superblock).is_empty());

    let mut rest = Input(&bytes[encoded.len()..]);
    // No device has more bytes than 64 bits can count.
    let mut sectors = || u64::from_le_bytes(rest.array()) / SECTOR;
    let (metadata, data) = (sectors(), sectors());
    for device in [
        DeviceSectors::Interleaved(32_768),
        DeviceSectors::Interleaved(metadata),
        DeviceSectors::Separate { metadata, data },
    ] {
        if let Ok(layout) = Layout::of(&superblock, device) {
            assert!(!explain::geometry(&layout).is_empty());
            if !layout.inline {
                lies_inside(&layout, device);
            }
        }
        if let Ok((resized, layout)) = resize(&superblock, device) {
            assert_eq!(Layout::of(&resized, device), Ok(layout), "what fits, fits");
            assert_eq!(resize(&resized, device), Ok((resized, layout)), "it fits already");
        }
    }
    opens_or_is_refused(&superblock, rest.byte());
}

fn opens_or_is_refused(superblock: &Superblock, choice: u8) {
    for mode in [Mode::Journal, Mode::Direct, Mode::Bitmap, Mode::Recovery, Mode::Inline] {
        let request = Request {
            separate: choice & 1 != 0,
            journal_mac: choice & 2 != 0,
            discards: if choice & 4 != 0 { Discards::Keyed } else { Discards::Refused },
            keys: Keys { integrity: choice & 8 != 0, journal_mac: choice & 2 != 0 },
            recalculate: if choice & 16 != 0 { Recalculate::Start } else { Recalculate::AsStored },
            ..Request::plain(mode)
        };
        match open(superblock, &request) {
            Ok(opening) => {
                assert!((1..=7).contains(&opening.version));
                assert_eq!(opening.flags.unknown(), superblock.flags.unknown(), "kept");
            }
            Err(refusal) => assert!(!refusal.to_string().is_empty()),
        }
    }
}

fn lies_inside(layout: &Layout, device: DeviceSectors) {
    let (metadata, data) = match device {
        DeviceSectors::Interleaved(sectors) => (sectors, sectors),
        DeviceSectors::Separate { metadata, data } => (metadata, data),
    };
    let block = layout.block.sectors();
    let last = layout.provided_sectors - block;
    for sector in [0, last / 2 / block * block, last] {
        let sector = Sector(sector);
        let run = layout.run(sector, block);
        assert_eq!(run.sectors, block, "a block lies in one run");
        assert!(run.data.0 + run.sectors <= data, "{run:?} of {data}");
        let tag_end = u128::from(run.tag_byte) + layout.tag_bytes as u128;
        assert!(tag_end <= u128::from(metadata) * u128::from(SECTOR), "{run:?} of {metadata}");
        assert!(layout.tags_end(&run) >= run.tag_byte);
        assert_eq!(layout.sector_of_tag(run.tag_byte), Some(sector), "{run:?}");
    }
}

/// A sound section of a journal, damaged: judging and reading it never panics, and what is read
/// from an entry can be written as one.
pub fn journal(bytes: &[u8]) {
    let mut input = Input(bytes);
    let journal = journal_layout(input.byte());
    let ids = if input.byte() & 1 == 0 {
        CommitIds::PLAIN
    } else {
        CommitIds::new([input.byte(), input.byte(), input.byte(), input.byte()].map(u64::from))
    };
    let number = u32::from(input.byte());
    let mut section = vec![0; journal.section_bytes()];
    journal.initialise(&mut section);
    let stamp = Stamp { ids, section: number, sequence: sequence(input.byte()) };
    journal.stamp(&mut section, &stamp);
    match input.byte() % 3 {
        // The rest damages single bits ...
        0 => {
            while !input.is_empty() {
                flip(&mut section, input.number());
            }
        }
        // ... or bytes anywhere ...
        1 => {
            while !input.is_empty() {
                let place = usize_of(u64::from(input.number())) % section.len();
                section[place] = input.byte();
            }
        }
        // ... or is the section, from its start.
        _ => {
            let length = input.0.len().min(section.len());
            section[..length].copy_from_slice(&input.0[..length]);
        }
    }

    let summary = journal.summarise(&section, number, &ids);
    let mut used = 0;
    let mut block = vec![0; journal.block.bytes()];
    let mut copy = vec![0; journal.section_bytes()];
    for entry in 0..journal.entries_per_section {
        let EntrySector::Used(sector) = journal.entry_sector(&section, entry) else { continue };
        used += 1;
        let tag = journal.entry_tag(&section, entry).to_vec();
        journal.read_data(&section, entry, &mut block);
        if sector >> 32 < 0xffff_fffe {
            journal.write_entry(&mut copy, entry, sector, &block, &tag, &stamp);
            let mut again = vec![0; block.len()];
            journal.read_data(&copy, entry, &mut again);
            assert_eq!(again, block);
            assert_eq!(journal.entry_sector(&copy, entry), EntrySector::Used(sector));
            assert_eq!(journal.entry_tag(&copy, entry), tag);
        }
    }
    assert_eq!(summary.used_entries, used);
    let section_sectors = journal.section_sectors;
    assert!(summary.bad_sector.is_none_or(|sector| sector < section_sectors));
}

/// Small sections: the larger the tag, the fewer entries. (424 bytes fit every kind of entry.)
fn journal_layout(choice: u8) -> JournalLayout {
    let block = BlockSize::from_log2_sectors(choice & 3).expect("0 to 3 are block sizes");
    let tag_size = match choice >> 2 & 3 {
        0 => 4,
        1 => 32,
        2 => 200,
        _ => 424,
    };
    let options = FormatOptions {
        fix_hmac: choice & 0x10 != 0,
        journal_mac: choice & 0x20 != 0,
        ..FormatOptions::new(block, tag_size, [0; 16])
    };
    let (_, layout) =
        format(DeviceSectors::Interleaved(1 << 20), &options).expect("512 MiB hold a volume");
    layout.journal
}

fn sequence(number: u8) -> Sequence {
    Sequence::FIRST.plus(number & 3)
}

/// Any findings in a journal of up to 64 sections: what is replayed are whole sections of laps
/// that follow each other, each section is in exactly one list.
pub fn replay(bytes: &[u8]) {
    let summaries: Vec<_> = bytes.iter().take(SECTIONS_MAX).copied().map(summary).collect();
    match Plan::new(&summaries) {
        Ok(plan) => {
            assert!(summaries.iter().all(|summary| summary.bad_sector.is_none()));
            check_plan(&plan, &summaries);
            assert_eq!(Plan::despite_damage(&summaries), Ok(plan));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(plan) = Plan::despite_damage(&summaries) {
        check_plan(&plan, &summaries);
    }
}

fn summary(byte: u8) -> SectionSummary {
    let bad = byte & 0x10 != 0;
    // A section without a sound sector has no sequence, and no other has none.
    let sequences = if byte & 0x0f == 0 && !bad { 1 } else { byte & 0x0f };
    SectionSummary {
        sequences,
        bad_sector: bad.then_some(3),
        used_entries: usize::from(byte >> 5),
        forged: byte & 0x1f == 0x1f,
    }
}

fn check_plan(plan: &Plan, summaries: &[SectionSummary]) {
    let all: Vec<u32> = (0..).take(summaries.len()).collect();
    let mut once: Vec<u32> = plan.replay_order().chain(plan.unproven_order()).collect();
    once.sort_unstable();
    assert_eq!(once, all, "replayed or unproven");
    let mut anew = plan.reinitialise_order().concat();
    anew.sort_unstable();
    assert_eq!(anew, all, "initialised once");

    let lap_of = |section: u32| {
        let summary = &summaries[usize_of(u64::from(section))];
        Sequence::ALL.into_iter().find(|lap| summary.holds(*lap)).expect("replayed: of one lap")
    };
    let replayed: Vec<u32> = plan.replay_order().collect();
    for pair in replayed.windows(2) {
        let laps = u8::from(pair[1] == 0);
        assert_eq!(lap_of(pair[1]), lap_of(pair[0]).plus(laps), "laps follow each other");
    }
    if let replay::Resume::InPlace { section, .. } = plan.resume {
        assert!(u64::from(section) < u64_of(summaries.len()));
    }
}

const SECTIONS_MAX: usize = 64;
