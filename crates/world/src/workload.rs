//! Random lives: what is asked of a volume, and what is done to it meanwhile.
//!
//! Small volumes, few blocks, much overlap: most bugs need two requests at the same place and a cut
//! between them.

use crate::disk::Trick;
use crate::history::{Life, Step};
use crate::rng::Rng;
use crate::scenario::Scenario;

/// What is done to the members, and what is demanded of the volume.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Profile {
    /// Power cuts only: everything flushed is there, nothing is unreadable.
    Cuts,
    /// Damage within redundancy, or members missing within it, and no cuts: every byte is right.
    Within,
    /// Members that acknowledge writes and lose, tear or misdirect them, no cuts: every byte is right
    /// where there is redundancy, and else right or an error.
    Tricks,
    /// Lives that open the volume in one way and then in another, each of them cut or closed.
    Modes,
    /// A power cut, then damage to the journal, then somebody decides what becomes of it.
    Mending,
    /// Members that acknowledge flushes and do nothing, and power cuts: each block is something that
    /// it once was, or an error.
    Lies,
    /// Anything: errors are allowed, wrong bytes are not.
    Beyond,
    /// Damage to members anywhere below the data, row by row within redundancy or beyond it, and power
    /// cuts: every block is right that cannot be lost, the others are right or an error.
    Scattered,
    /// Members that refuse to write some sectors, at most as many as redundancy, and power cuts: the same.
    Refused,
    /// Members that acknowledge the writes that are to heal them, and do nothing: what a scrub calls healed
    /// is.
    Unhealed,
}

/// The profiles that make sense for `scenario`.
#[must_use]
pub fn profiles(scenario: &Scenario) -> Vec<Profile> {
    let mut profiles = Vec::new();
    if !scenario.journal.is_empty() {
        return vec![Profile::Mending];
    }
    if !scenario.openings.is_empty() {
        profiles.extend([Profile::Modes; 4]);
    }
    if scenario.survives_cuts {
        profiles.extend([Profile::Cuts; 3]);
    }
    if scenario.redundancy > 0 {
        profiles.push(Profile::Within);
    }
    if scenario.verified && scenario.member_tags == 0 {
        profiles.push(Profile::Tricks);
    }
    if scenario.verified {
        profiles.extend([Profile::Lies, Profile::Beyond]);
    }
    if scenario.journalled && !scenario.verified {
        profiles.push(Profile::Beyond);
    }
    if scenario.atlas.is_some() {
        profiles.extend([Profile::Scattered; 2]);
        if scenario.redundancy > 0 {
            profiles.push(Profile::Refused);
        }
        // Elsewhere what was written reaches the disk later.
        if scenario.redundancy > 0 && (!scenario.verified || scenario.member_tags > 0) {
            profiles.push(Profile::Unhealed);
        }
    }
    profiles
}

/// Where requests of one history go.
#[derive(Clone, Debug)]
pub struct Places {
    blocks: u64,
    hot: Vec<(u64, u64)>,
}

impl Places {
    /// Two or three small regions of a volume of `blocks` blocks.
    pub fn draw(rng: &mut Rng, blocks: u64) -> Self {
        let region = |rng: &mut Rng| {
            let length = (1 + rng.below(24)).min(blocks);
            // The ends of a volume are where sizes are computed wrongly.
            let start = match rng.below(6) {
                0 => 0,
                1 => blocks - length,
                _ => rng.below(blocks - length + 1),
            };
            (start, length)
        };
        let count = 1 + rng.index(3);
        Self { blocks, hot: (0..count).map(|_| region(rng)).collect() }
    }

    /// One region, of as much as a volume's journal holds.
    pub fn wide(rng: &mut Rng, blocks: u64) -> Self {
        let length = WIDE.min(blocks);
        Self { blocks, hot: vec![(rng.below(blocks - length + 1), length)] }
    }

    fn range(&self, rng: &mut Rng, most: u64) -> (u64, u64) {
        let &(start, length) = rng.pick(&self.hot);
        let block = start + rng.below(length);
        let most = most.min(start + length - block).max(1);
        (block, 1 + rng.below(most))
    }

    /// Discards some of it.
    pub fn discard(&self, rng: &mut Rng) -> Step {
        let (block, blocks) = self.range(rng, WIDE);
        Step::Discard { block, blocks }
    }

    /// Reads everything that may have been written.
    pub fn reads(&self) -> impl Iterator<Item = Step> {
        self.hot.iter().map(|&(block, blocks)| Step::Read { block, blocks })
    }

    /// Reads the whole volume.
    pub fn read_all(&self) -> impl Iterator<Item = Step> {
        let blocks = self.blocks;
        (0..blocks)
            .step_by(32)
            .map(move |block| Step::Read { block, blocks: (blocks - block).min(32) })
    }
}

/// A random life that ends with a close.
pub fn life(rng: &mut Rng, scenario: &Scenario, places: &Places, requests: u64) -> Life {
    let window = *rng.pick(&[1, 2, 4, 8]);
    let mut steps = Vec::new();
    let most = *rng.pick(&[1, 4, 24]);
    let wait = *rng.pick(&[30, 3_000, 300_000, 15_000_000]);
    // Each life does some things often and others never: a uniform mixture hardly ever gets far
    // into any corner.
    let weights = USUAL.map(|usual| usual * *rng.pick(&[0, 1, 1, 3]));
    let weights = if weights.iter().sum::<u64>() == 0 { USUAL } else { weights };
    for _ in 0..requests {
        let (block, blocks) = places.range(rng, most);
        steps.push(match weighted(rng, &weights) {
            0 => Step::Write { block, blocks, fua: false },
            1 => Step::Write { block, blocks, fua: true },
            2 => Step::Flush,
            3 => Step::Read { block, blocks },
            4 => Step::Zeroes { block, blocks, unmap: rng.percent(50) },
            5 => Step::Discard { block, blocks },
            6 => Step::Settle,
            7 => Step::Slow { disk: rng.index(scenario.members) },
            8 => Step::Scrub,
            _ => Step::Wait(rng.below(wait)),
        });
    }
    Life { window, steps, ..Life::idle() }
}

/// A life of large writes, some of them durable, to one region: more than a journal holds.
pub fn wear(rng: &mut Rng, places: &Places) -> Life {
    let most = *rng.pick(&[8, WIDE]);
    let count = 3 + rng.below(24);
    let steps = (0..count).map(|_| {
        let (block, blocks) = places.range(rng, most);
        match rng.below(11) {
            10 => Step::Discard { block, blocks },
            0..4 => Step::Write { block, blocks, fua: true },
            4 => Step::Flush,
            5 => Step::Settle,
            _ => Step::Write { block, blocks, fua: false },
        }
    });
    Life { steps: steps.collect(), window: 4, ..Life::idle() }
}

/// What follows a power cut: sometimes a look at once, sometimes more work first; always everything
/// is read in the end.
pub fn afterlife(rng: &mut Rng, scenario: &Scenario, places: &Places) -> Life {
    let mut after = Life { window: *rng.pick(&[1, 4]), ..Life::idle() };
    if rng.percent(40) {
        after.steps.extend(places.reads());
    }
    if rng.percent(30) {
        let requests = 1 + rng.below(5);
        after = Life { steps: after.steps, ..life(rng, scenario, places, requests) };
    }
    if rng.percent(10) {
        after.steps.extend([Step::Wait(20_000_000), Step::Scrub]);
    }
    after.steps.push(Step::Settle);
    if rng.percent(10) {
        after.steps.extend(places.read_all());
    } else {
        after.steps.extend(places.reads());
    }
    after
}

/// Where and how much damage is done.
#[derive(Clone, Debug)]
pub struct Harm {
    /// How many members are damaged.
    pub victims: usize,
    /// Also where it costs the member (its superblock, its journal).
    pub anywhere: bool,
    /// For each disk, where it was written: damage is most telling there.
    pub written: Vec<Vec<u64>>,
}

/// Damages members in runs of neighbouring sectors, since that is how damage comes.
pub fn damage(rng: &mut Rng, scenario: &Scenario, harm: &Harm, life: &mut Life) {
    let all = if harm.anywhere { scenario.members } else { scenario.peers() };
    let mut members: Vec<usize> = (0..all).collect();
    rng.shuffle(&mut members);
    members.truncate(harm.victims);
    for disk in members {
        match rng.below(10) {
            0 => life.missing.push(disk),
            1 => insert(rng, life, Step::Gone { disk }),
            2 if scenario.verified && harm.anywhere => {
                // The fields of a superblock lie in its first bytes.
                let mask = 1 << rng.below(8);
                let byte = rng.index(64);
                insert(rng, life, Step::Flip { disk, sector: 0, byte, mask });
            }
            _ => (0..=rng.below(3)).for_each(|_| damage_run(rng, scenario, harm, disk, life)),
        }
    }
}

/// Lets some members lie about some flushes.
pub fn lies(rng: &mut Rng, scenario: &Scenario, life: &mut Life) {
    let victims = 1 + rng.index(scenario.redundancy.max(1));
    let mut members: Vec<usize> = (0..scenario.members).collect();
    rng.shuffle(&mut members);
    for &disk in members.iter().take(victims) {
        for _ in 0..=rng.below(3) {
            let nth = rng.below(6);
            insert(rng, life, Step::Lie { disk, nth });
        }
    }
}

/// Damages one commit id of a journal that was written at `written`.
pub fn commit_id(rng: &mut Rng, scenario: &Scenario, written: &[u64]) -> Step {
    let journal = &scenario.journal;
    let begun: Vec<u64> = written.iter().copied().filter(|at| journal.contains(at)).collect();
    let from = if begun.is_empty() { journal.start } else { *rng.pick(&begun) };
    let sector = (from + rng.below(64)).min(journal.end - 1);
    let mask = 1 << rng.below(8);
    Step::Flip { disk: 0, sector, byte: 504 + rng.index(8), mask }
}

/// Plays a trick on one write, or one read, of each victim. One only: two could take a block and its tag.
pub fn tricks(rng: &mut Rng, scenario: &Scenario, victims: usize, life: &mut Life) {
    let mut members: Vec<usize> = (0..scenario.peers()).collect();
    rng.shuffle(&mut members);
    for &disk in members.iter().take(victims) {
        let trick = match rng.below(4) {
            3 => {
                let nth = rng.below(12);
                insert(rng, life, Step::Stale { disk, nth });
                continue;
            }
            0 => Trick::Lose,
            1 => Trick::Misdirect(scenario.member_block.sectors() * (1 + rng.below(64))),
            _ => Trick::Tear(scenario.member_block.sectors() * rng.below(8)),
        };
        let nth = rng.below(12);
        insert(rng, life, Step::Trick { disk, nth, trick });
    }
}

fn damage_run(rng: &mut Rng, scenario: &Scenario, harm: &Harm, disk: usize, life: &mut Life) {
    let all = 0..scenario.member_sectors;
    let range = if harm.anywhere { all } else { scenario.damageable.clone() };
    let written = harm.written.get(disk).filter(|written| !written.is_empty());
    let start = match written {
        Some(written) if rng.percent(70) => *rng.pick(written) + rng.below(4),
        _ => range.start + rng.below(range.end - range.start),
    };
    let longest = *rng.pick(&[1, 8, 64]);
    let end = (start + 1 + rng.below(longest)).min(range.end);
    let flips = scenario.rots() && rng.percent(60);
    for sector in start.max(range.start)..end {
        let step = if flips {
            let mask = u8::try_from(1 + rng.below(255)).expect("below 256");
            Step::Flip { disk, sector, byte: rng.index(512 + scenario.member_tags), mask }
        } else {
            Step::Spoil { disk, sector }
        };
        insert(rng, life, step);
    }
}

/// Damages some rows, each on one or more disks, up to two more than redundancy survives.
pub fn scatter(rng: &mut Rng, scenario: &Scenario, written: &[Vec<u64>], life: &mut Life) {
    let Some(atlas) = &scenario.atlas else { return };
    let can_be: Vec<u64> =
        atlas.sectors(0).filter(|sector| scenario.damageable.contains(sector)).collect();
    for _ in 0..=rng.below(3) {
        let mut disks: Vec<usize> = (0..scenario.peers()).collect();
        rng.shuffle(&mut disks);
        disks.truncate(1 + rng.index(scenario.redundancy + 2));
        // The same place on all of them: the same rows.
        let hot = written.get(disks[0]).filter(|written| !written.is_empty());
        let from = hot.filter(|_| rng.percent(70)).map(|written| *rng.pick(written));
        let from = from.unwrap_or(*rng.pick(&can_be)) + rng.below(4);
        let longest = *rng.pick(&[1, 4, 16]);
        let run: Vec<u64> =
            can_be.iter().copied().filter(|&at| at >= from).take(1 + rng.index(longest)).collect();
        for disk in disks {
            let kinds = if scenario.rots() { 5 } else { 3 };
            let kind = if scenario.verified { rng.below(kinds) } else { 0 };
            for &sector in &run {
                let step = harm_at(rng, kind, disk, (sector, &can_be));
                insert(rng, life, step);
            }
        }
    }
}

/// One kind of damage at a sector.
fn harm_at(rng: &mut Rng, kind: u64, disk: usize, (sector, all): (u64, &[u64])) -> Step {
    match kind {
        0 | 1 => Step::Spoil { disk, sector },
        2 => Step::Swap { disk, one: sector, other: *rng.pick(all) },
        _ => {
            let mask = u8::try_from(1 + rng.below(255)).expect("below 256");
            Step::Flip { disk, sector, byte: rng.index(512), mask }
        }
    }
}

/// Lets some members refuse to write some sectors, and perhaps take writes again later. With `anywhere`
/// also where it costs the member.
pub fn refuse(rng: &mut Rng, scenario: &Scenario, anywhere: bool, life: &mut Life) {
    let victims = 1 + rng.index(scenario.redundancy);
    let mut members: Vec<usize> = (0..scenario.peers()).collect();
    rng.shuffle(&mut members);
    for &disk in members.iter().take(victims) {
        for _ in 0..=rng.below(3) {
            let all = 0..scenario.member_sectors;
            let range = if anywhere && rng.percent(20) { all } else { scenario.damageable.clone() };
            let sector = range.start + rng.below(range.end - range.start);
            let longest = *rng.pick(&[1, 8, 32]);
            let sectors = (1 + rng.below(longest)).min(range.end - sector);
            insert(rng, life, Step::Refuse { disk, sector, sectors });
        }
        if rng.percent(30) {
            life.steps.push(Step::Accept { disk });
        }
    }
}

/// Damages some sectors of a member that then acknowledges writes and does nothing, and scrubs.
pub fn unhealed(rng: &mut Rng, scenario: &Scenario, written: &[Vec<u64>], life: &mut Life) {
    let disk = rng.index(scenario.peers());
    life.steps.extend([Step::Flush, Step::Wait(1_000_000), Step::Settle]);
    let hot = written.get(disk).map_or(&[][..], Vec::as_slice);
    for _ in 0..=rng.below(3) {
        let range = &scenario.damageable;
        let drawn = range.start + rng.below(range.end - range.start);
        let sector = if hot.is_empty() { drawn } else { *rng.pick(hot) };
        if range.contains(&sector) {
            life.steps.push(Step::Spoil { disk, sector });
        }
    }
    for nth in 0..4 {
        if rng.percent(60) {
            life.steps.push(Step::Trick { disk, nth, trick: Trick::Lose });
        }
    }
    life.steps.push(Step::Scrub);
}

fn weighted(rng: &mut Rng, weights: &[u64]) -> usize {
    let mut left = rng.below(weights.iter().sum());
    for (index, &weight) in weights.iter().enumerate() {
        match left.checked_sub(weight) {
            Some(rest) => left = rest,
            None => return index,
        }
    }
    unreachable!("below the sum")
}

fn insert(rng: &mut Rng, life: &mut Life, step: Step) {
    let at = rng.index(life.steps.len() + 1);
    life.steps.insert(at, step);
}

/// Blocks that a worn region has.
const WIDE: u64 = 48;
/// How often: write, FUA, flush, read, zeroes, discard, settle, slow, scrub, wait.
const USUAL: [u64; 10] = [40, 10, 14, 15, 5, 4, 2, 1, 1, 6];
