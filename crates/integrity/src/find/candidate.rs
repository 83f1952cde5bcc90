//! What a volume may have been, and what speaks for it.

use super::entries::{Findings, look};
use super::{JournalTrace, SaltOf};
use crate::layout::{DeviceSectors, JournalLayout, Layout, resize};
use crate::superblock::{AREA_SECTORS, Flags, Superblock, tag_size_max};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use units::{BlockSize, SECTOR_BYTES, Sector, usize_of};

/// What decides the length of a journal section.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Form {
    /// The block.
    pub block: BlockSize,
    /// Bytes of tag.
    pub tag_size: u16,
    /// Whether sections carry a MAC.
    pub journal_mac: bool,
}

impl Form {
    fn flags(self) -> Flags {
        if self.journal_mac { Flags::JOURNAL_MAC } else { Flags::default() }
    }
}

/// Every form whose sections have `section_sectors` sectors (specification, section 3, steps 3 to 5
/// backwards).
#[must_use]
pub fn forms(section_sectors: u64) -> Vec<Form> {
    let mut forms = Vec::new();
    for block in (0..4).filter_map(BlockSize::from_log2_sectors) {
        // Entries are a multiple of eight in a section.
        let data = section_sectors.saturating_sub(8);
        if data == 0 || !data.is_multiple_of(8 * block.sectors()) {
            continue;
        }
        for journal_mac in [false, true] {
            let form = |tag_size| Form { block, tag_size, journal_mac };
            let fits = |form: &Form| {
                let (tag, flags) = (form.tag_size, form.flags());
                JournalLayout::new(block, tag, flags, 1).section_sectors == section_sectors
            };
            let tags = 1..=tag_size_max(block, form(1).flags());
            forms.extend(tags.map(form).filter(fits));
        }
    }
    forms
}

/// Where a block and its tag would lie.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// The block's first sector as users count.
    pub sector: Sector,
    /// The same on the data device.
    pub data: Sector,
    /// The tag's first byte on the metadata device.
    pub tag_byte: u64,
}

/// What was read there.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// The block's first sector as users count.
    pub sector: Sector,
    /// One block.
    pub data: &'a [u8],
    /// One tag.
    pub tag: &'a [u8],
}

/// What speaks for a candidate, and against it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Evidence {
    /// Blocks, at home and in the journal, that lead to the most frequent salt. One block agrees with
    /// itself, so this is 0 or at least 2.
    pub blocks_agree: u32,
    /// Blocks that were asked.
    pub blocks_asked: u32,
    /// That salt.
    pub salt: Option<[u8; 16]>,
    /// Journal entries that can be what the form says.
    pub entries_fit: u32,
    /// Journal entries that cannot.
    pub entries_odd: u32,
    /// Used journal entries.
    pub entries_used: u32,
    /// All tags in the journal end with a zero, as if they were shorter.
    pub tag_too_long: bool,
    /// Whether a MAC was seen in the journal, where there is one exactly if the form says so.
    pub mac_decided: Option<bool>,
    /// How usual the numbers are; says nothing about this volume.
    pub usual: u32,
}

impl Evidence {
    /// Which says more: agreeing blocks first, as a share; then entries; then what is usual.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Ordering {
        let share =
            |one: &Self, of: &Self| u64::from(one.blocks_agree) * u64::from(of.blocks_asked.max(1));
        let odd = |one: &Self, of: &Self| {
            u64::from(one.entries_odd) * u64::from((of.entries_odd + of.entries_fit).max(1))
        };
        share(self, other)
            .cmp(&share(other, self))
            .then(self.blocks_agree.cmp(&other.blocks_agree))
            .then(odd(other, self).cmp(&odd(self, other)))
            .then(other.tag_too_long.cmp(&self.tag_too_long))
            .then((self.mac_decided != Some(false)).cmp(&(other.mac_decided != Some(false))))
            .then(self.usual.cmp(&other.usual))
    }
}

/// A volume that may have been there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Candidate {
    /// Its superblock. The exposed size is the largest that fits the device; the salt is that of
    /// [`Evidence::salt`], or zero.
    pub superblock: Superblock,
    /// What follows from that.
    pub layout: Layout,
    /// Why it is one.
    pub evidence: Evidence,
    votes: Votes,
}

impl Candidate {
    /// Blocks by which this candidate can be told from others: the first ones, those at both sides of
    /// the first boundaries between runs, some in between, the last.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        let block = self.layout.block.sectors();
        let provided = self.layout.provided_sectors;
        let run = self.layout.log2_interleave.map_or(provided, |log2| 1 << log2);
        let first = (0..8).map(|index| index * block);
        let edges = (1..=4).flat_map(|index| {
            let edge = run.saturating_mul(index);
            [edge.saturating_sub(block), edge]
        });
        let spread = (1..16).map(|index| provided / 16 * index / block * block);
        let last = (1..=2).map(|index| provided.saturating_sub(index * block));
        let sectors: BTreeSet<u64> = first.chain(edges).chain(spread).chain(last).collect();
        let within = sectors.into_iter().filter(|sector| *sector < provided);
        within
            .map(|sector| {
                let run = self.layout.run(Sector(sector), block);
                Place { sector: run.sector, data: run.data, tag_byte: run.tag_byte }
            })
            .collect()
    }

    /// Asks what was read at [`Self::places`], all of it or some.
    pub fn judge(&mut self, blocks: &[Block], salt_of: SaltOf) {
        for block in blocks {
            self.votes.count(salt_of(block.sector, block.data, block.tag));
        }
        self.votes.tell(&mut self.evidence);
        self.superblock.salt = self.evidence.salt.unwrap_or_default();
    }

    /// What speaks for it and against it, a sentence each.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let found = &self.evidence;
        let mut reasons = vec![format!(
            "{} of {} blocks have tags that agree on the salt",
            found.blocks_agree, found.blocks_asked
        )];
        let entries = found.entries_fit + found.entries_odd;
        reasons.push(format!(
            "{} of {entries} journal entries can be entries, {} of them hold a block",
            found.entries_fit, found.entries_used
        ));
        if found.tag_too_long {
            reasons.push("every tag in the journal ends with zero: tags may be shorter".to_owned());
        }
        match found.mac_decided {
            Some(true) => reasons.push("the journal has MACs exactly if this says so".to_owned()),
            Some(false) => reasons.push("the journal's MACs speak against it".to_owned()),
            None => {}
        }
        reasons
    }
}

/// Every volume whose journal leaves `trace`, with what the journal in `window` says about it; best
/// first as far as that goes. A few hundred as a rule, some thousands where one long tag is as good as
/// another; their blocks are not asked yet.
#[must_use]
pub fn candidates(
    trace: &JournalTrace,
    window: &[u8],
    device: DeviceSectors,
    salt_of: SaltOf,
) -> Vec<Candidate> {
    let separate = matches!(device, DeviceSectors::Separate { .. });
    let mut found = Vec::new();
    for form in forms(trace.section_sectors) {
        let journal = JournalLayout::new(form.block, form.tag_size, form.flags(), trace.sections);
        let sectors = if separate { device.data() } else { device.metadata() };
        let findings = look(&journal, form, JournalWindow { window, sectors }, salt_of);
        let interleaves: Vec<Option<u8>> =
            if separate { vec![None] } else { (3..=31).map(Some).collect() };
        let mut seen = BTreeSet::new();
        for log2_interleave in interleaves {
            for fix_padding in [!separate, false] {
                let superblock = guess(form, trace, log2_interleave, fix_padding);
                let Ok((superblock, layout)) = resize(&superblock, device) else { continue };
                if seen.insert((log2_interleave, layout.metadata_run)) {
                    let evidence = evidence(&findings, form, log2_interleave, fix_padding);
                    let votes = findings.votes.clone();
                    let mut candidate = Candidate { superblock, layout, evidence, votes };
                    candidate.judge(&[], salt_of);
                    found.push(candidate);
                }
            }
        }
    }
    super::rank(&mut found);
    found
}

fn guess(
    form: Form,
    trace: &JournalTrace,
    log2_interleave: Option<u8>,
    fix_padding: bool,
) -> Superblock {
    let padding = if fix_padding { Flags::FIX_PADDING } else { Flags::default() };
    Superblock {
        version: 5,
        log2_interleave,
        tag_size: form.tag_size,
        journal_sections: trace.sections,
        provided_sectors: 0,
        flags: form.flags().with(padding).with(Flags::FIX_HMAC),
        block: form.block,
        log2_blocks_per_bitmap_bit: 15 - form.block.log2_sectors(),
        recalc_sector: 0,
        salt: [0; 16],
        pad: [0; 2],
        pad2: [0; 8],
    }
}

fn evidence(
    findings: &Findings,
    form: Form,
    log2_interleave: Option<u8>,
    fix_padding: bool,
) -> Evidence {
    // Digests: crc32 and crc32c; xxhash64; sha256; sha1; sha512; cut ones.
    let tag = [4, 32, 8, 20, 64, 16].iter().rev().position(|tag| *tag == form.tag_size);
    let usual = [
        tag.map_or(0, |place| 40 + 2 * u32::try_from(place).expect("one of six")),
        if matches!(log2_interleave, Some(15) | None) { 20 } else { 0 },
        if [BlockSize::B512, BlockSize::B4096].contains(&form.block) { 10 } else { 0 },
        u32::from(fix_padding) * 4,
        u32::from(!form.journal_mac) * 8,
    ];
    Evidence {
        entries_fit: findings.fit,
        entries_odd: findings.odd,
        entries_used: findings.used,
        tag_too_long: findings.used > 1 && findings.tag_ends_zero == findings.used,
        mac_decided: (findings.slices > 0).then_some(form.journal_mac),
        usual: usual.into_iter().sum(),
        ..Evidence::default()
    }
}

/// The journal in a window of the device's first bytes.
#[derive(Clone, Copy)]
pub(super) struct JournalWindow<'a> {
    pub(super) window: &'a [u8],
    /// Of the device with the data.
    pub(super) sectors: u64,
}

impl<'a> JournalWindow<'a> {
    pub(super) fn section(&self, journal: &JournalLayout, number: u32) -> Option<&'a [u8]> {
        let before = AREA_SECTORS + journal.section_sectors * u64::from(number);
        let start = usize_of(before) * SECTOR_BYTES;
        self.window.get(start..start + journal.section_bytes())
    }
}

/// Salts with how often each was seen.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Votes {
    pub(super) asked: u32,
    counts: BTreeMap<[u8; 16], u32>,
}

impl Votes {
    pub(super) fn count(&mut self, salt: Option<[u8; 16]>) {
        self.asked += 1;
        if let Some(salt) = salt {
            *self.counts.entry(salt).or_default() += 1;
        }
    }

    fn tell(&self, evidence: &mut Evidence) {
        let best = self.counts.iter().max_by_key(|(_, count)| **count);
        let best = best.filter(|(_, count)| **count > 1);
        evidence.blocks_asked = self.asked;
        evidence.blocks_agree = best.map_or(0, |(_, count)| *count);
        evidence.salt = best.map(|(salt, _)| *salt);
    }
}
