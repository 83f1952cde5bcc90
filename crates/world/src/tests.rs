//! The simulator is held against layers that are known to be right, and known to be wrong.

use crate::history::History;
use crate::scenario::{Scenario, Volume, disk};
use crate::violation::Violation;
use crate::{Catalogue, Failure};
use bio::{Bio, BlockDevice, Buf, Device, IoResult, Limits, LocalFuture, Op};
use std::cell::Cell;
use units::{BlockSize, SECTOR_BYTES, Sector};

/// What is wrong with a toy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Bug {
    None,
    /// The record is not durable before the data is written in place.
    NoFlushAfterRecord,
    /// FUA is dropped.
    NoFua,
    /// Every seventh write goes one block too far.
    OffByOne,
    /// Requests of more than three blocks never end.
    Hangs,
}

/// A device of two-sector blocks over single sectors, made atomic by one journal record:
///
/// 1. record `address, both sectors, checksum` in sectors 0..3; flush. A crash before: nothing.
/// 2. write both sectors in place; flush. A crash between: the record is replayed at open.
/// 3. clear the record. A crash before: replayed again, with the same bytes.
struct Toy {
    lower: Device,
    limits: Limits,
    bug: Bug,
    busy: runtime::RangeLock,
    writes: Cell<u64>,
}

const RECORD_SECTORS: u64 = 3;

fn checksum(bytes: &[u8]) -> u64 {
    crate::rng::hash_bytes(1, bytes)
}

impl Toy {
    async fn open(lower: Device, bug: Bug) -> IoResult<Self> {
        let block = BlockSize::from_bytes(1024).unwrap();
        let sectors = (lower.limits().sectors - RECORD_SECTORS) & !1;
        let record = lower.read(Sector::ZERO, RECORD_SECTORS).await?;
        let (head, data) = record.as_slice().split_at(SECTOR_BYTES);
        let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
        if word(0) != 0 && word(8) == checksum(data) ^ word(0) {
            lower.write(Sector(word(0)), Buf::copy_of(data)).await?;
            lower.flush().await?;
        }
        let limits = Limits::new(sectors, block);
        Ok(Self { lower, limits, bug, busy: runtime::RangeLock::default(), writes: Cell::new(0) })
    }

    async fn store(&self, sector: Sector, data: &[u8]) -> IoResult {
        let _busy = self.busy.lock(0..1).await;
        let mut place = sector + RECORD_SECTORS;
        self.writes.set(self.writes.get() + 1);
        if self.bug == Bug::OffByOne && self.writes.get().is_multiple_of(7) {
            place += 2;
            if place.0 + 2 > self.lower.limits().sectors {
                return Ok(());
            }
        }
        let mut record = vec![0; SECTOR_BYTES];
        record[..8].copy_from_slice(&place.0.to_le_bytes());
        record[8..16].copy_from_slice(&(checksum(data) ^ place.0).to_le_bytes());
        record.extend_from_slice(data);
        self.lower.write(Sector::ZERO, Buf::copy_of(&record)).await?;
        if self.bug != Bug::NoFlushAfterRecord {
            self.lower.flush().await?;
        }
        self.lower.write(place, Buf::copy_of(data)).await?;
        if self.bug != Bug::NoFua {
            self.lower.flush().await?;
        }
        Ok(())
    }
}

impl BlockDevice for Toy {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    async fn submit(&self, bio: &mut Bio) -> IoResult {
        if self.bug == Bug::Hangs && bio.sectors() > 6 {
            std::future::pending::<()>().await;
        }
        match bio.op {
            Op::Read => {
                let _busy = self.busy.lock(0..1).await;
                let home = bio.sector;
                bio.sector = home + RECORD_SECTORS;
                let result = self.lower.submit(bio).await;
                bio.sector = home;
                result
            }
            Op::Flush => self.lower.flush().await,
            _ => {
                for index in 0..bio.sectors() / 2 {
                    let mut block = [0; 1024];
                    if !bio.data.is_empty() {
                        bio.data.copy_to(units::usize_of(index) * 1024, &mut block);
                    }
                    self.store(bio.sector + index * 2, &block).await?;
                }
                Ok(())
            }
        }
    }
}

fn toy(bug: Bug) -> Catalogue {
    let open = move |members: Vec<Option<Device>>, _, _| -> LocalFuture<'static, _> {
        Box::pin(async move {
            let lower = members[0].clone().unwrap();
            let toy = Toy::open(lower, bug).await.map_err(|error| error.to_string())?;
            Ok(Volume::flushed(Device::new(toy)))
        })
    };
    let plain = disk("toy", BlockSize::B512);
    Catalogue::of(vec![Scenario { member_sectors: 35, open: Box::new(open), ..plain }])
}

fn first_failure(catalogue: &Catalogue, seeds: u64) -> Option<Failure> {
    (1..=seeds).find_map(|seed| catalogue.run(seed).err()).map(|failure| *failure)
}

#[test]
fn a_right_layer_has_no_violation() {
    assert!(first_failure(&toy(Bug::None), 300).is_none());
}

#[test]
fn a_missing_flush_is_found_and_shown_in_a_few_events() {
    let catalogue = toy(Bug::NoFlushAfterRecord);
    let failure = first_failure(&catalogue, 50).expect("found within fifty seeds");
    let short = catalogue.shrink(failure).unwrap();
    assert!(matches!(short.violation, Violation::Wrong { .. }), "{short}");
    let steps: usize = short.history.lives.iter().map(|life| life.steps.len()).sum();
    assert!(steps <= 2, "{short}");
    let again: History = short.history.to_string().parse().unwrap();
    assert_eq!(catalogue.replay(&again).unwrap(), Some(short.violation));
}

#[test]
fn a_dropped_fua_is_found() {
    assert!(first_failure(&toy(Bug::NoFua), 100).is_some());
}

#[test]
fn a_misplaced_write_is_found_and_the_block_is_named() {
    let catalogue = toy(Bug::OffByOne);
    let failure = first_failure(&catalogue, 50).expect("found within fifty seeds");
    let short = catalogue.shrink(failure).unwrap();
    assert!(matches!(short.violation, Violation::Wrong { .. }), "{short}");
}

#[test]
fn a_request_that_never_ends_is_found() {
    let failure = first_failure(&toy(Bug::Hangs), 50).expect("found within fifty seeds");
    assert_eq!(failure.violation, Violation::Stuck);
}

#[test]
fn a_seed_twice_is_the_same_trace_and_two_seeds_are_not() {
    let catalogue = Catalogue::default();
    let traces: Vec<_> = (0..20).map(|seed| catalogue.run(seed).unwrap()).collect();
    for (seed, report) in (0..).zip(&traces) {
        assert_eq!(&Catalogue::default().run(seed).unwrap(), report, "seed {seed}");
    }
    let distinct: std::collections::BTreeSet<_> = traces.iter().map(|r| r.trace).collect();
    assert_eq!(distinct.len(), traces.len());
}

#[test]
fn cuts_between_any_two_boundaries_and_all_their_states_leave_the_toy_whole() {
    use crate::explore::{cut, fresh};
    use crate::machine::{Watch, live};
    use crate::power::survivals;
    let open_toy = toy(Bug::None);
    let scenario = open_toy.scenario("toy").unwrap();
    let text = "scenario toy\nseed 5\nlife 4\nwrite 0 2\nfua 1 1\nflush\nwrite 0 1\nclose\n\
                life 1\nread 0 8\nclose";
    let history: History = text.parse().unwrap();
    let first = live(&scenario, fresh(&scenario, 5), &history.lives[0], false, 5, Watch::All);
    assert!(first.violation.is_none());
    let mut states = 0;
    for point in &first.points {
        for survival in survivals(&point.disks, 4096, &mut crate::rng::Rng::new(1)) {
            let start = cut(point, survival);
            let second = live(&scenario, start, &history.lives[1], false, 6, Watch::All);
            assert_eq!(second.violation, None, "boundary {} {survival}", point.boundary);
            states += 1;
            for point in &second.points {
                for survival in survivals(&point.disks, 4096, &mut crate::rng::Rng::new(1)) {
                    let start = cut(point, survival);
                    let third = live(&scenario, start, &history.lives[1], false, 7, Watch::Nothing);
                    assert_eq!(third.violation, None);
                    states += 1;
                }
            }
        }
    }
    assert!(states > 100, "{states}");
}

#[test]
fn the_seeds_of_bugs_that_were_fixed_stay_quiet() {
    let catalogue = Catalogue::default();
    let mut replayed = 0;
    for history in crate::seeds() {
        assert_eq!(catalogue.replay(&history), Ok(None), "{history}");
        replayed += 1;
    }
    assert_eq!(replayed, include_str!("../seeds.txt").matches("\n---\n").count());
}
