//! What a journal found at open means: what to replay, in which order, and where to go on.
//!
//! A journal is written round and round; every lap has a sequence number, modulo four, in all of
//! its sectors. A crash interrupts one lap somewhere:
//!
//! ```text
//!   sections   0    1    2    3    4
//!   sequence   1    1    1  | 0    0        lap 1 was in progress, 3 and 4 are of lap 0
//!                             ^ replay from here, round to section 2: oldest first
//! ```
//!
//! Replay starts at the oldest section and stops at the first that is not of the lap expected
//! there (torn, or written out of order): nothing behind it was promised to anybody. Sections of
//! the older lap were written home long ago; replaying them again changes nothing, since every
//! newer value is either replayed later or was never durable.
//!
//! This module plans; it reads no section ([`crate::journal`] does) and writes none. (Specification
//! section 6.6, steps 1 to 7.)

use crate::journal::Sequence;

/// What the commit ids of one section say, and whether it holds anything.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SectionSummary {
    /// The set of sequences found in its sectors, one bit each ([`Sequence::bit`]).
    pub sequences: u8,
    /// The first sector of the section whose id belongs to no sequence.
    pub bad_sector: Option<u64>,
    /// Entries that are not unused.
    pub used_entries: usize,
    /// It should carry a MAC and does not: what it names must not be believed.
    pub forged: bool,
}

impl SectionSummary {
    /// Whether every sector was written in lap `sequence`.
    #[must_use]
    pub fn holds(&self, sequence: Sequence) -> bool {
        self.bad_sector.is_none() && !self.forged && self.sequences == sequence.bit()
    }
}

/// Where journalling goes on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Resume {
    /// Write on at `section` with `sequence`; the journal stays as it is.
    InPlace {
        /// The next section to be written.
        section: u32,
        /// The lap that it is written in.
        sequence: Sequence,
    },
    /// Every section has to be initialised first, in the order of [`Plan::reinitialise_order`],
    /// with `initial`; then write on at section 0 with the lap after it.
    Reinitialise {
        /// The lap to initialise with.
        initial: Sequence,
    },
}

/// What to do with a journal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Plan {
    /// The oldest section.
    pub first: u32,
    /// How many sections from there on, going round, are to be replayed in this order. 0 also when
    /// the journal holds nothing.
    pub count: u32,
    /// What to do when the replayed blocks are durable.
    pub resume: Resume,
    /// The lap with which the journal is initialised if it must be.
    initial: Sequence,
    sections: u32,
}

/// Why there is nothing that can be replayed with certainty.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// Sectors with an id of no lap: damaged, or not encrypted with this key.
    #[error(
        "journal section {section} has no valid commit id in its sector {sector}; {} of {sections} \
         sections are sound", .sound.len()
    )]
    CommitId {
        /// The first damaged section.
        section: u32,
        /// Its first damaged sector.
        sector: u64,
        /// Sections in all.
        sections: u32,
        /// The sections that were written whole in one lap.
        sound: Vec<u32>,
    },
    /// A section written whole whose MAC is not that of its entries: damaged, forged, or made with
    /// another key.
    #[error("journal section {section} does not carry the MAC of its entries")]
    Mac {
        /// The first such section.
        section: u32,
    },
    /// All four laps at once: no writer leaves that behind.
    #[error("the journal's commit ids are of four laps at once, at most three are possible")]
    FourLaps,
    /// No sections at all.
    #[error("the volume has no journal")]
    Empty,
}

impl Plan {
    /// Decides. `summaries` has one element for each section, in order.
    ///
    /// # Errors
    /// [`PlanError`]: the volume must then not be written to, and what the journal holds must not
    /// be thrown away.
    pub fn new(summaries: &[SectionSummary]) -> Result<Self, PlanError> {
        check_ids(summaries)?;
        check_macs(summaries)?;
        Self::despite_damage(summaries)
    }

    /// Decides as if damaged sections had been torn by a crash. Only for reading: what
    /// [`Self::unproven_order`] names may be newer than what is replayed, and newer than what is
    /// home.
    ///
    /// # Errors
    /// [`PlanError::FourLaps`], [`PlanError::Empty`].
    pub fn despite_damage(summaries: &[SectionSummary]) -> Result<Self, PlanError> {
        let sections = u32::try_from(summaries.len()).map_err(|_| PlanError::Empty)?;
        if sections == 0 {
            return Err(PlanError::Empty);
        }
        let found = summaries.iter().fold(0, |found, summary| found | summary.sequences);
        let used = |sequence: Sequence| found & sequence.bit() != 0;
        let mut empty = summaries.iter().all(|summary| summary.used_entries == 0);

        let last = first_unused(found)?.minus(1);
        let mut want = last.minus(1);
        if !used(want) && used(want.minus(1)) {
            // Re-initialisation was interrupted at its very end.
            empty = true;
        }
        let newest = (0_u32..)
            .zip(summaries)
            .filter(|(_, summary)| summary.sequences & last.bit() != 0)
            .map(|(section, _)| section)
            .last();
        let mut first = newest.map_or(0, |section| section + 1);
        if first == sections {
            first = 0;
            want = want.plus(1);
        }
        let mut count = 0;
        for section in (first..sections).chain(0..first) {
            if !summaries[units::usize_of(section.into())].holds(want) {
                break;
            }
            count += 1;
            if section + 1 == sections {
                want = want.plus(1);
            }
        }
        let initial = last.minus(2);
        let resume = if count == sections {
            Resume::InPlace { section: first, sequence: want }
        } else {
            Resume::Reinitialise { initial }
        };
        Ok(Self { first, count: if empty { 0 } else { count }, resume, initial, sections })
    }

    /// The same for whoever will not write to the journal (specification, section 6.6, step 7): what
    /// it replays must not be found by the next opening, when it may be older than what is home.
    #[must_use]
    pub fn unjournalled(mut self) -> Self {
        if self.count > 0 {
            self.resume = Resume::Reinitialise { initial: self.initial };
        }
        self
    }

    /// The sections to replay, oldest first.
    pub fn replay_order(&self) -> impl Iterator<Item = u32> + use<> {
        self.round().take(units::usize_of(self.count.into()))
    }

    /// The sections that are not replayed, oldest first. None of them counts if the journal is
    /// undamaged.
    pub fn unproven_order(&self) -> impl Iterator<Item = u32> + use<> {
        self.round().skip(units::usize_of(self.count.into()))
    }

    /// The sections to initialise, in batches that must be durable one after the other.
    ///
    /// 1. The oldest section alone. A crash before: all is replayed again. After: the oldest
    ///    section is not of the lap expected there, so nothing is replayed.
    /// 2. All others but the newest. A crash within: the newest section still names the last lap,
    ///    and replay still starts, and stops, at the oldest.
    /// 3. The newest. A crash within: two laps that do not follow each other, which counts as
    ///    empty.
    #[must_use]
    pub fn reinitialise_order(&self) -> [Vec<u32>; 3] {
        let mut round = self.round();
        let oldest = round.by_ref().take(1).collect();
        let rest: Vec<u32> = round.collect();
        match rest.split_last() {
            None => [oldest, Vec::new(), Vec::new()],
            Some((newest, middle)) => [oldest, middle.to_vec(), vec![*newest]],
        }
    }

    /// The lap that sections are initialised with when this journal is made anew, whether or not
    /// [`Self::resume`] demands it: two before the newest.
    #[must_use]
    pub fn initial(&self) -> Sequence {
        match self.resume {
            Resume::Reinitialise { initial } => initial,
            Resume::InPlace { section: 0, sequence } => sequence.minus(3),
            Resume::InPlace { sequence, .. } => sequence.minus(2),
        }
    }

    fn round(&self) -> impl Iterator<Item = u32> + use<> {
        (self.first..self.sections).chain(0..self.first)
    }
}

/// Step 1: every sector must name a lap.
fn check_ids(summaries: &[SectionSummary]) -> Result<(), PlanError> {
    let sections = u32::try_from(summaries.len()).map_err(|_| PlanError::Empty)?;
    let damaged = (0_u32..)
        .zip(summaries)
        .find_map(|(section, summary)| summary.bad_sector.map(|sector| (section, sector)));
    let Some((section, sector)) = damaged else { return Ok(()) };
    let sound = (0_u32..)
        .zip(summaries)
        .filter(|(_, summary)| summary.bad_sector.is_none() && summary.sequences.count_ones() == 1)
        .map(|(section, _)| section)
        .collect();
    Err(PlanError::CommitId { section, sector, sections, sound })
}

/// Step 6, before anything is replayed: a section that was written whole has its MAC. (In a torn one
/// slices of two MACs may lie side by side; it is not replayed.)
fn check_macs(summaries: &[SectionSummary]) -> Result<(), PlanError> {
    let whole = |summary: &SectionSummary| summary.sequences.count_ones() == 1;
    let forged = (0_u32..).zip(summaries).find(|(_, one)| one.forged && whole(one));
    forged.map_or(Ok(()), |(section, _)| Err(PlanError::Mac { section }))
}

/// Step 2: the lap after the newest.
fn first_unused(found: u8) -> Result<Sequence, PlanError> {
    let used = |sequence: Sequence| found & sequence.bit() != 0;
    let [first, .., last] = Sequence::ALL;
    if used(last) {
        return Sequence::ALL.into_iter().find(|&s| !used(s)).ok_or(PlanError::FourLaps);
    }
    let mut unused = last;
    while unused != first && !used(unused.minus(1)) {
        unused = unused.minus(1);
    }
    Ok(unused)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One section for each character: a digit is a lap; `x` is torn between laps 0 and 1.
    fn laps(text: &str, used_entries: usize) -> Vec<SectionSummary> {
        text.chars()
            .map(|c| {
                let sequences = c.to_digit(10).map_or(0b11, |lap| 1 << lap);
                SectionSummary { sequences, used_entries, ..SectionSummary::default() }
            })
            .collect()
    }

    fn plan(text: &str) -> Plan {
        Plan::new(&laps(text, 1)).unwrap()
    }

    fn in_place(section: u32, lap: usize) -> Resume {
        Resume::InPlace { section, sequence: Sequence::ALL[lap] }
    }

    fn anew(lap: usize) -> Resume {
        Resume::Reinitialise { initial: Sequence::ALL[lap] }
    }

    #[test]
    fn the_worked_crash_replays_all_and_goes_on_at_section_3() {
        let plan = plan("11100");
        assert_eq!(plan.replay_order().collect::<Vec<_>>(), [3, 4, 0, 1, 2]);
        assert_eq!(plan.resume, in_place(3, 1));
    }

    #[test]
    fn a_new_journal_starts_at_section_0_with_lap_1() {
        let plan = Plan::new(&laps("00000", 0)).unwrap();
        assert_eq!((plan.first, plan.count, plan.resume), (0, 0, in_place(0, 1)));
    }

    #[test]
    fn a_clean_close_goes_on_where_it_stopped() {
        // Section 6.4: after 3 sections used of 5, sections 3, 4 have lap 1 and 0..2 lap 2.
        let plan = Plan::new(&laps("22211", 0)).unwrap();
        assert_eq!((plan.count, plan.resume), (0, in_place(3, 2)));
    }

    #[test]
    fn laps_wrap_from_three_to_zero() {
        assert_eq!(plan("00033").resume, in_place(3, 0));
        assert_eq!(plan("33322").resume, in_place(3, 3));
        assert_eq!(plan("33333").resume, in_place(0, 0));
    }

    #[test]
    fn a_journal_is_made_anew_with_the_lap_two_before_its_newest() {
        for (text, lap) in [("11100", 3), ("33333", 1), ("00033", 2), ("1", 3), ("11x00", 3)] {
            assert_eq!(plan(text).initial(), Sequence::ALL[lap], "{text}");
        }
    }

    #[test]
    fn a_torn_section_ends_the_replay_and_the_journal_is_made_anew() {
        let plan = plan("11x00");
        assert_eq!(plan.replay_order().collect::<Vec<_>>(), [3, 4, 0, 1]);
        assert_eq!(plan.resume, anew(3));
    }

    #[test]
    fn a_section_that_overtook_its_predecessor_is_not_replayed() {
        let plan = plan("11010");
        assert_eq!(plan.replay_order().collect::<Vec<_>>(), [4, 0, 1]);
    }

    #[test]
    fn a_journal_of_one_section_replays_it_or_nothing() {
        assert_eq!((plan("1").count, plan("1").resume), (1, in_place(0, 2)));
        assert_eq!((plan("x").count, plan("x").resume), (0, anew(3)));
        assert_eq!(plan("x").reinitialise_order(), [vec![0], vec![], vec![]]);
        assert_eq!(plan("1x").reinitialise_order(), [vec![0], vec![], vec![1]]);
    }

    #[test]
    fn a_whole_section_without_its_mac_ends_everything_and_a_torn_one_does_not() {
        let mut summaries = laps("11000", 1);
        summaries[1].forged = true;
        assert_eq!(Plan::new(&summaries), Err(PlanError::Mac { section: 1 }));
        let despite = Plan::despite_damage(&summaries).unwrap();
        assert_eq!(despite.replay_order().collect::<Vec<_>>(), [2, 3, 4, 0]);
        let mut torn = laps("11x00", 1);
        torn[2].forged = true;
        assert_eq!(Plan::new(&torn).unwrap().replay_order().collect::<Vec<_>>(), [3, 4, 0, 1]);
    }

    #[test]
    fn a_damaged_id_names_the_place_and_what_is_sound() {
        let mut summaries = laps("11x00", 1);
        summaries[4].bad_sector = Some(9);
        let sound = vec![0, 1, 3];
        let expected = PlanError::CommitId { section: 4, sector: 9, sections: 5, sound };
        assert_eq!(Plan::new(&summaries), Err(expected));
        let despite = Plan::despite_damage(&summaries).unwrap();
        assert_eq!(despite.replay_order().collect::<Vec<_>>(), [3]);
        assert_eq!(despite.unproven_order().collect::<Vec<_>>(), [4, 0, 1, 2]);
        assert_eq!(Plan::new(&laps("0123", 1)), Err(PlanError::FourLaps));
        assert_eq!(Plan::new(&[]), Err(PlanError::Empty));
    }

    /// Closing initialises the sections from `next` on in the lap of the log, and those before it in
    /// the lap after it. Whichever of these writes a disk lost while saying that all is well: what is
    /// replayed is the end of the log, without a gap, so it is home already and nothing newer is.
    #[test]
    fn a_close_of_which_writes_were_lost_replays_nothing_that_is_older_than_home() {
        for lap in Sequence::ALL {
            for (next, lost) in (0..5_usize).flat_map(|next| (0..32_u32).map(move |l| (next, l))) {
                let state: Vec<SectionSummary> = (0..5)
                    .map(|section| {
                        let (logged, closed) = match section < next {
                            true => (lap, lap.plus(1)),
                            false => (lap.minus(1), lap),
                        };
                        let lost = lost >> section & 1 == 1;
                        let sequences = if lost { logged } else { closed }.bit();
                        SectionSummary {
                            sequences,
                            used_entries: lost.into(),
                            ..SectionSummary::default()
                        }
                    })
                    .collect();
                let plan = Plan::new(&state).unwrap();
                let log = (next..5).chain(0..next);
                let newest_first: Vec<usize> = log.rev().collect();
                let replayed: Vec<usize> = (plan.replay_order())
                    .map(|section| units::usize_of(section.into()))
                    .filter(|&section| state[section].used_entries > 0)
                    .collect();
                let end_of_log = newest_first[..replayed.len()].iter().rev();
                assert!(replayed.iter().eq(end_of_log), "{lap:?} {next} {lost:05b} {replayed:?}");
            }
        }
    }

    /// Every crash within re-initialisation, in every order of writes within a batch, each section
    /// old, torn or new: nothing is replayed, and the next plan ends in a usable journal.
    #[test]
    fn a_crash_while_reinitialising_never_replays_an_old_value() {
        for last in 0..4_u8 {
            for newest in 0..4_usize {
                let (lap, older) = (1 << last, 1 << ((last + 3) % 4));
                let mut state: Vec<SectionSummary> = (0..4)
                    .map(|section| SectionSummary {
                        sequences: if section <= newest { lap } else { older },
                        used_entries: 1,
                        ..SectionSummary::default()
                    })
                    .collect();
                state[newest].sequences = lap | older; // torn: this is why it is made anew
                let plan = Plan::new(&state).unwrap();
                let Resume::Reinitialise { initial } = plan.resume else { panic!("torn") };
                for batch in plan.reinitialise_order() {
                    for choice in 0..3_usize.pow(u32::try_from(batch.len()).unwrap()) {
                        let mut crashed = state.clone();
                        let mut choice = choice;
                        for &section in &batch {
                            let summary = &mut crashed[section as usize];
                            match choice % 3 {
                                0 => {}
                                1 => summary.sequences |= initial.bit(),
                                _ => {
                                    summary.sequences = initial.bit();
                                    summary.used_entries = 0;
                                }
                            }
                            choice /= 3;
                        }
                        let begun =
                            crashed[plan.first as usize] != state_at_start(&plan, lap, older);
                        let next = Plan::new(&crashed).unwrap();
                        if begun {
                            assert_eq!(next.count, 0, "{last} {newest} {crashed:?}");
                        }
                    }
                    for &section in &batch {
                        let summary = &mut state[section as usize];
                        summary.sequences = initial.bit();
                        summary.used_entries = 0;
                    }
                }
                let done = Plan::new(&state).unwrap();
                let sequence = initial.plus(1);
                assert_eq!(done.resume, Resume::InPlace { section: 0, sequence });
            }
        }
    }

    /// What the oldest section was before any of it was initialised.
    fn state_at_start(plan: &Plan, lap: u8, older: u8) -> SectionSummary {
        let sequences = if plan.first == 0 { lap } else { older };
        SectionSummary { sequences, used_entries: 1, ..SectionSummary::default() }
    }
}
