//! One life of a volume in a simulated machine, judged by the oracle.

use crate::disk::SimDisk;
use crate::history::{Life, Step};
use crate::image::Image;
use crate::opening::Opening;
use crate::oracle::{Oracle, ReadTicket};
use crate::power::{Power, Unsettled};
use crate::rng::Rng;
use crate::scenario::{Opened, Scenario, Suspects, Volume};
use crate::schedule::SimDriver;
use crate::tuples;
use crate::violation::Violation;
use bio::{Bio, Buf, Device, Events, Extent, Finding, IoError, Op, ScrubMode};
use runtime::{Executor, Semaphore};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;
use units::{SECTOR, Sector, u64_of, usize_of};

/// What a life starts with.
#[derive(Clone)]
pub struct Start {
    /// What the disks hold.
    pub images: Vec<Image>,
    /// What the volume may hold.
    pub oracle: Oracle,
}

/// Which boundaries are remembered as places for a power cut.
#[derive(Clone, Copy, Debug)]
pub enum Watch {
    /// None.
    Nothing,
    /// Every one.
    All,
    /// This one, and the power is really cut there.
    CutAt(u64),
    /// So many, drawn from this seed.
    Sample(usize, u64),
}

/// The machine at one boundary.
#[derive(Clone)]
pub struct Point {
    /// Its number.
    pub boundary: u64,
    /// The disks.
    pub disks: Vec<Unsettled>,
    /// What the volume may hold, before the crash.
    pub oracle: Oracle,
}

/// How a life went.
pub struct Outcome {
    /// What was wrong.
    pub violation: Option<Violation>,
    /// The boundaries that were remembered.
    pub points: Vec<Point>,
    /// The machine at the end (if it was not cut).
    pub end: Point,
    /// The hash of everything that happened.
    pub trace: u64,
    /// Requests that the disks served.
    pub requests: u64,
    /// For each disk the sectors at which writes began.
    pub written: Vec<Vec<u64>>,
}

impl Outcome {
    /// What came out, if nothing was wrong.
    ///
    /// # Errors
    /// What was wrong.
    pub fn sound(mut self) -> Result<Self, Violation> {
        self.violation.take().map_or(Ok(self), Err)
    }
}

/// Lives `life` from `start` on.
#[must_use]
pub fn live(
    scenario: &Scenario,
    start: Start,
    life: &Life,
    honest: bool,
    schedule: u64,
    watch: Watch,
) -> Outcome {
    let driver = SimDriver::new(schedule);
    let power = Power::new(&driver);
    let disks: Rc<[Rc<SimDisk>]> = scenario.disks(&power, start.images).into();
    let oracle = Rc::new(RefCell::new(begun(scenario, start.oracle, life)));
    let points = Rc::new(RefCell::new(Vec::new()));
    observe(&power, &disks, &oracle, &points, watch);
    let run = Run {
        disks: Rc::clone(&disks),
        oracle: Rc::clone(&oracle),
        honest,
        opening: life.opening,
        redundant: scenario.redundancy > 0,
        records_bad: scenario.records_bad,
        healed: RefCell::default(),
        suspects: RefCell::default(),
        violation: RefCell::default(),
    };
    let run = Rc::new(run);
    let member = |(index, disk): (usize, &Rc<SimDisk>)| {
        (!life.missing.contains(&index)).then(|| disk.device())
    };
    let members = disks.iter().enumerate().map(member).collect();
    let opening = (scenario.open)(members, life.opening, Events::none());
    let ended = {
        let executor = Executor::new(Rc::clone(&driver) as Rc<dyn runtime::Driver>);
        let whole = Rc::clone(&run).whole(opening, life.clone());
        let ended = catch_unwind(AssertUnwindSafe(|| executor.run(whole)));
        // Whatever still runs ends here, as it would with the process.
        driver.stop();
        ended
    };
    let panicked = ended.as_ref().err().map(|panic| Violation::Panic(message(panic.as_ref())));
    let stuck = matches!(ended, Ok(None))
        && (driver.exhausted() || points.borrow().is_empty() || !matches!(watch, Watch::CutAt(_)));
    let wrote = disks.iter().position(|disk| !disk.written().is_empty());
    let wrote = wrote.filter(|_| life.opening.writes_nothing()).map(Violation::Wrote);
    let violation =
        run.violation.take().or(panicked).or(stuck.then_some(Violation::Stuck)).or(wrote);
    power.forget_observer();
    let end = Point {
        boundary: power.boundaries(),
        disks: disks.iter().map(|disk| disk.unsettled()).collect(),
        oracle: oracle.borrow().clone(),
    };
    let requests = disks.iter().map(|disk| disk.requests()).sum();
    let written = disks.iter().map(|disk| disk.written()).collect();
    Outcome { violation, points: points.take(), end, trace: driver.trace(), requests, written }
}

/// The oracle as it judges `life`.
fn begun(scenario: &Scenario, mut oracle: Oracle, life: &Life) -> Oracle {
    oracle.lives(scenario.tears(life.opening));
    for &disk in &life.missing {
        oracle.harm();
        oracle.damaged(|damage, now| damage.lose(disk, now));
    }
    if life.opening == Opening::Discard {
        oracle.rewinds();
    }
    oracle
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

fn observe(
    power: &Rc<Power>,
    disks: &Rc<[Rc<SimDisk>]>,
    oracle: &Rc<RefCell<Oracle>>,
    points: &Rc<RefCell<Vec<Point>>>,
    watch: Watch,
) {
    let (disks, oracle, points) = (Rc::clone(disks), Rc::clone(oracle), Rc::clone(points));
    let mains = Rc::downgrade(power);
    let look = move |boundary| Point {
        boundary,
        disks: disks.iter().map(|disk| disk.unsettled()).collect(),
        oracle: oracle.borrow().clone(),
    };
    let observer: crate::power::Observer = match watch {
        Watch::Nothing => return,
        Watch::All => Box::new(move |boundary| points.borrow_mut().push(look(boundary))),
        Watch::CutAt(place) => Box::new(move |boundary| {
            if boundary == place {
                points.borrow_mut().push(look(boundary));
                if let Some(power) = mains.upgrade() {
                    power.driver().stop();
                }
            }
        }),
        Watch::Sample(count, seed) => {
            let mut rng = Rng::derived(seed, 3);
            Box::new(move |boundary| {
                // Vitter's reservoir: every boundary has the same chance to be remembered.
                let mut points = points.borrow_mut();
                if points.len() < count {
                    points.push(look(boundary));
                } else if let Ok(slot) = usize::try_from(rng.below(boundary))
                    && slot < count
                {
                    points[slot] = look(boundary);
                }
            })
        }
    };
    power.observe(observer);
}

struct Run {
    disks: Rc<[Rc<SimDisk>]>,
    oracle: Rc<RefCell<Oracle>>,
    honest: bool,
    opening: Opening,
    redundant: bool,
    /// Members have bad block logs.
    records_bad: bool,
    /// What a scrub called healed in its first pass: by member, sectors.
    healed: RefCell<Vec<(Option<Rc<str>>, Extent)>>,
    /// Where the volume says that a power cut may have made blocks unreadable, if it does.
    suspects: RefCell<Option<Suspects>>,
    violation: RefCell<Option<Violation>>,
}

impl Run {
    async fn whole(self: Rc<Self>, opening: Opened, life: Life) {
        let volume = match opening.await {
            Ok(volume) => volume,
            Err(_) if self.honest => return,
            Err(error) => return self.blame(Violation::NotOpened(error)),
        };
        self.suspects.replace(volume.suspects.clone());
        let window = Semaphore::new(life.window);
        for step in life.steps {
            if self.violation.borrow().is_some() {
                return;
            }
            let permit = match step {
                Step::Scrub | Step::Settle => window.acquire(life.window).await,
                _ => window.acquire(1).await,
            };
            match step {
                Step::Wait(micros) => runtime::sleep(Duration::from_micros(micros)).await,
                Step::Settle => {}
                Step::Scrub => self.scrub(&volume).await,
                Step::Slow { disk } => self.disks[disk].set_slow(true),
                Step::Flip { .. }
                | Step::Spoil { .. }
                | Step::Swap { .. }
                | Step::Refuse { .. }
                | Step::Accept { .. }
                | Step::Gone { .. }
                | Step::Trick { .. }
                | Step::Lie { .. }
                | Step::Stale { .. } => self.harm(step),
                Step::Write { .. } | Step::Zeroes { .. } | Step::Discard { .. }
                    if self.opening.writes_nothing() => {}
                request => {
                    let (run, device) = (Rc::clone(&self), volume.device.clone());
                    let _detached = runtime::spawn(async move {
                        run.request(&device, request).await;
                        drop(permit);
                    });
                }
            }
        }
        drop(window.acquire(life.window).await);
        match (volume.close)().await {
            Ok(()) => self.oracle.borrow_mut().closes(),
            Err(error) => self.failed("close", error),
        }
    }

    /// Does to a disk what `step` says, and tells the oracle.
    fn harm(&self, step: Step) {
        let (disks, mut oracle) = (&self.disks, self.oracle.borrow_mut());
        oracle.harm();
        let mut strike = |disk, sector| {
            oracle.damaged(|damage, now| damage.strike(disk, sector, now));
        };
        match step {
            Step::Flip { disk, sector, byte, mask } => {
                strike(disk, sector);
                oracle.rots();
                disks[disk].flip(sector, byte, mask);
            }
            Step::Spoil { disk, sector } => {
                strike(disk, sector);
                disks[disk].spoil(sector);
            }
            Step::Swap { disk, one, other } => {
                strike(disk, one);
                strike(disk, other);
                disks[disk].swap(one, other);
            }
            Step::Refuse { disk, sector, sectors } => {
                for sector in sector..sector + sectors {
                    let alone = self.records_bad;
                    oracle.damaged(|damage, now| damage.refuse(disk, sector, alone, now));
                    disks[disk].refuse(sector);
                }
            }
            Step::Accept { disk } => {
                oracle.damaged(|damage, _| damage.accept(disk));
                disks[disk].accept();
            }
            Step::Gone { disk } => {
                oracle.damaged(|damage, now| damage.lose(disk, now));
                disks[disk].set_gone(true);
            }
            Step::Trick { disk, nth, trick } => {
                oracle.tricks();
                disks[disk].play(nth, trick);
            }
            Step::Lie { disk, nth } => {
                oracle.doubts(self.redundant);
                disks[disk].lie(nth);
            }
            Step::Stale { disk, nth } => disks[disk].answer_stale(nth),
            _ => unreachable!("no harm"),
        }
    }

    fn blame(&self, violation: Violation) {
        self.violation.borrow_mut().get_or_insert(violation);
    }

    /// Something that changes the volume failed.
    fn failed(&self, request: &str, error: IoError) {
        let excused = self.oracle.borrow().excuses_writes();
        if !self.honest && !excused {
            let (request, error) = (request.to_owned(), error.to_string());
            self.blame(Violation::Failed { request, error });
        }
    }

    async fn request(&self, device: &Device, step: Step) {
        match step {
            Step::Read { block, blocks } => self.read(device, block, blocks).await,
            Step::Flush => {
                let ticket = self.oracle.borrow_mut().flush_starts();
                match device.flush().await {
                    Ok(()) => self.oracle.borrow_mut().flush_ends(ticket),
                    Err(error) => self.failed("flush", error),
                }
            }
            Step::Write { block, blocks, .. }
            | Step::Zeroes { block, blocks, .. }
            | Step::Discard { block, blocks } => self.write(device, step, block, blocks).await,
            _ => unreachable!("not a request"),
        }
    }

    async fn write(&self, device: &Device, step: Step, block: u64, blocks: u64) {
        let zeroes = !matches!(step, Step::Write { .. });
        let ticket = self.oracle.borrow_mut().write_starts(block, blocks, zeroes);
        let per_block = device.limits().logical_block.sectors();
        let (sector, sectors) = (Sector(block * per_block), blocks * per_block);
        let fua = matches!(step, Step::Write { fua: true, .. });
        let mut bio = match step {
            Step::Write { .. } => {
                let mut data = Buf::alloc(usize_of(Sector(sectors).bytes()));
                let oracle = self.oracle.borrow();
                let pieces = data.as_mut_slice().chunks_exact_mut(oracle.block_bytes());
                for (block, piece) in (block..).zip(pieces) {
                    oracle.fill(block, ticket.version(), piece);
                }
                let mut bio = Bio::write(sector, data);
                tuples::sign(&mut bio, device.limits());
                bio
            }
            Step::Zeroes { unmap, .. } => Bio::write_zeroes(sector, sectors, unmap),
            _ if device.limits().discard => Bio::discard(sector, sectors),
            _ => Bio::write_zeroes(sector, sectors, true),
        };
        if fua {
            bio.op = Op::Write { fua };
        }
        match device.submit(&mut bio).await {
            Ok(()) => self.oracle.borrow_mut().write_ends(&ticket, fua),
            Err(error) => {
                self.oracle.borrow_mut().write_fails(&ticket);
                self.failed(&step.to_string(), error);
            }
        }
    }

    async fn read(&self, device: &Device, block: u64, blocks: u64) {
        if self.read_once(device, block, blocks).await || blocks == 1 {
            return;
        }
        // One bad block does not excuse its neighbours.
        for block in block..block + blocks {
            self.read_once(device, block, 1).await;
        }
    }

    /// Whether it is judged; else each block is to be read by itself.
    async fn read_once(&self, device: &Device, block: u64, blocks: u64) -> bool {
        let per_block = device.limits().logical_block.sectors();
        let ticket = self.oracle.borrow_mut().read_starts(block);
        let home_only = self.opening == Opening::Recovery;
        let sector = Sector(block * per_block);
        match tuples::read(device, sector, blocks * per_block).await {
            Ok((data, wrong)) => {
                let mut oracle = self.oracle.borrow_mut();
                let judged = match home_only {
                    true => oracle.read_ever(block, data.as_slice()),
                    false => oracle.read_ends(ticket, data.as_slice()),
                };
                let rotten = oracle.is_rotten();
                drop(oracle);
                if let Err(violation) = judged {
                    self.blame(violation);
                }
                if let Some(found) = wrong.filter(|_| !rotten) {
                    self.blame(Violation::Tuple { block, found });
                }
            }
            Err(_) if home_only => {}
            Err(_) if blocks > 1 && (self.honest || self.excuses_some(block, blocks, &ticket)) => {
                return false;
            }
            Err(_) if self.oracle.borrow().excuses(block, &ticket) => {
                if !self.is_suspected(block, per_block) {
                    self.blame(Violation::Unsuspected(block));
                }
            }
            Err(error) if !self.honest => {
                let (request, error) =
                    (Step::Read { block, blocks }.to_string(), error.to_string());
                self.blame(Violation::Failed { request, error });
            }
            Err(_) => {}
        }
        true
    }

    fn excuses_some(&self, block: u64, blocks: u64, ticket: &ReadTicket) -> bool {
        let oracle = self.oracle.borrow();
        (block..block + blocks).any(|block| oracle.excuses(block, ticket))
    }

    /// Whether the volume says that a power cut may have made `block` unreadable, if it says any such
    /// thing and nobody wrote there since.
    fn is_suspected(&self, block: u64, per_block: u64) -> bool {
        let suspects = self.suspects.borrow();
        let oracle = self.oracle.borrow();
        let counts = oracle.is_torn(block) && !oracle.is_harmed();
        let Some(suspects) = suspects.as_ref().filter(|_| counts) else {
            return true;
        };
        let sector = Sector(block * per_block);
        suspects().iter().any(|&(from, sectors)| (from..from + sectors).contains(&sector))
    }

    /// Whether a cut excuses that a part of a volume without redundancy cannot be read.
    fn excuses_all(&self, extent: &Extent) -> bool {
        let oracle = self.oracle.borrow();
        let per_block = u64_of(oracle.block_bytes()) / SECTOR;
        let ticket = ReadTicket::now(&oracle);
        let mut blocks =
            extent.sector.0 / per_block..(extent.sector + extent.sectors).0 / per_block;
        blocks.all(|block| oracle.excuses(block, &ticket))
    }

    /// Two passes: the first heals, the second must find nothing, and without any harm done nor may
    /// the first. What the first called healed the second may not find in any case.
    async fn scrub(&self, volume: &Volume) {
        let Some(scrub) = volume.scrub.clone() else { return };
        self.healed.take();
        for (pass, mode) in [ScrubMode::Repair, ScrubMode::Check].into_iter().enumerate() {
            for step in 0..scrub.steps() {
                for found in scrub.scrub(step, mode).await.found {
                    if !self.excuses_found(pass, &found) {
                        let (finding, member, extent) = found;
                        let place = member.unwrap_or_else(|| "the volume".into());
                        let text =
                            format!("pass {pass}: {finding:?} on {place} at {}", extent.sector);
                        self.blame(Violation::Scrub(text));
                    }
                }
            }
        }
        self.oracle.borrow_mut().scrubbed();
    }

    /// Whether a scrub may say so in its first pass (0) or its second.
    fn excuses_found(&self, pass: usize, found: &(Finding, Option<Rc<str>>, Extent)) -> bool {
        let (finding, member, extent) = found;
        let is_healed = self.healed.borrow().iter().any(|(healed, of)| {
            let apart = of.sector + of.sectors <= extent.sector
                || extent.sector + extent.sectors <= of.sector;
            healed == member && !apart
        });
        if pass > 0 && is_healed && *finding != Finding::Resynced {
            return false;
        }
        if *finding == Finding::Healed {
            self.healed.borrow_mut().push((member.clone(), *extent));
        }
        let oracle = self.oracle.borrow();
        let excused = match finding {
            Finding::Resynced => pass == 0,
            Finding::Healed => pass == 0 && (oracle.is_harmed() || oracle.is_tearing()),
            // Healing others may bring back evidence for what was lost.
            Finding::Healable => {
                oracle.is_tricked() || oracle.excuses_healable() || oracle.any_lost()
            }
            Finding::Unreadable if self.opening == Opening::Recovery => true,
            // Parity of a row with a block that is torn, or lost, is so too.
            Finding::Unreadable if member.is_some() => oracle.any_lost(),
            Finding::Unreadable => self.excuses_all(extent),
            _ => false,
        };
        self.honest || excused
    }
}
