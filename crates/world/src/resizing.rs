//! Power cuts while a volume is made larger or smaller.
//!
//! At every boundary the volume has its old size or its new one, with everything that it held; what is
//! new reads as zeroes. The same command, given again, goes on.

use crate::disk::SimDisk;
use crate::explore::{closed, cut, fresh, schedule};
use crate::history::{Life, Step};
use crate::image::Image;
use crate::machine::{Point, Start, Watch, live};
use crate::oracle::{Oracle, Violation};
use crate::power::{Power, survivals};
use crate::rng::Rng;
use crate::scenario::Scenario;
use crate::schedule::SimDriver;
use crate::workload::{Places, afterlife, life};
use bio::{Device, LocalFuture};
use checksum::Algorithm;
use layers::linear::Linear;
use runtime::Executor;
use stack::resize::{Opened, Part, Place, ResizeOptions, resize_at};
use stack::{Given, IntegrityChoice, LeafKind, Member, MemberError};
use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::rc::Rc;
use units::{SECTOR, SECTOR_BYTES, Sector};

/// Resizes `scenario` a few times, with lives between, and judges what every power cut leaves.
///
/// # Errors
/// The first violation.
pub fn resize(scenario: &Scenario, seed: u64) -> Result<u64, Violation> {
    let mut rng = Rng::derived(seed, 6);
    // A file has a hole where it was lengthened, and nothing behind its end; a device has garbage.
    let kind = if rng.percent(50) { LeafKind::File } else { LeafKind::BlockDevice };
    let made = scenario.member_sectors;
    let mut start = fresh(scenario, seed);
    let mut resizing = Resizing { scenario, kind, seed, length: made, cuts: 0 };
    for round in 0..3 {
        start = resizing.used(&mut rng, start, round)?;
        let other = made + 8 * rng.below(90);
        start = resizing.to(&mut rng, start, other)?;
    }
    resizing.used(&mut rng, start, 3)?;
    Ok(resizing.cuts)
}

struct Resizing<'a> {
    scenario: &'a Scenario,
    kind: LeafKind,
    seed: u64,
    /// Sectors of the file, or those of the device that were last asked for.
    length: u64,
    cuts: u64,
}

impl Resizing<'_> {
    /// A life that ends with a close or a power cut.
    fn used(&self, rng: &mut Rng, start: Start, round: usize) -> Result<Start, Violation> {
        let places = Places::draw(rng, start.oracle.blocks());
        let requests = 4 + rng.below(24);
        let mut steps = life(rng, self.scenario, &places, requests).steps;
        steps.extend(afterlife(rng, self.scenario, &places).steps);
        let life = Life { steps, window: 4, ..Life::idle() };
        let watch = Watch::Sample(1, rng.next_u64());
        let schedule = schedule(self.seed, round);
        let outcome = live(self.scenario, start, &life, false, schedule, watch);
        outcome.violation.map_or(Ok(()), Err)?;
        Ok(match outcome.points.first() {
            Some(point) if rng.percent(60) => {
                let ways = survivals(&point.disks, 4, rng);
                cut(point, *rng.pick(&ways))
            }
            _ => closed(&outcome.end),
        })
    }

    /// Gives the member `sectors` sectors.
    fn to(&mut self, rng: &mut Rng, start: Start, sectors: u64) -> Result<Start, Violation> {
        let image = self.room(&start.images[0], sectors);
        let before = start.oracle;
        let run = self.run(image, sectors)?;
        let done = provided(&run.end, before.block_bytes())?;
        let mut after = before.clone();
        after.resize(done);
        for (point, length) in &run.points {
            for survival in survivals(&point.disks, WAYS, rng) {
                let left = cut(point, survival).images.swap_remove(0).resized(*length);
                self.cuts += 1;
                self.judge(&left, &before, &after)?;
                if rng.percent(RESUMED_PERCENT) {
                    let resumed = self.run(self.room(&left, sectors), sectors)?.end;
                    self.judge(&resumed, &after, &after)?;
                }
            }
        }
        self.judge(&run.end, &after, &after)?;
        self.length = sectors;
        Ok(Start { images: vec![run.end], oracle: after })
    }

    /// The member before it is given `sectors` sectors: a device has had room for long.
    fn room(&self, image: &Image, sectors: u64) -> Image {
        if self.kind == LeafKind::File || sectors <= image.sectors() {
            return image.clone();
        }
        let mut larger = image.resized(sectors);
        for sector in image.sectors()..sectors {
            larger.write(sector, &[0xa5; SECTOR_BYTES]);
        }
        larger
    }

    /// One uncut run of the command.
    fn run(&self, image: Image, sectors: u64) -> Result<Run, Violation> {
        let driver = SimDriver::new(self.seed);
        let power = Power::new(&driver);
        let length = Rc::new(Cell::new(image.sectors()));
        let disk = {
            let room = image.resized(image.sectors().max(sectors));
            let mut disks = self.scenario.disks(&power, vec![room]);
            disks.pop().expect("one was asked for")
        };
        let place =
            Simulated { disk: Rc::clone(&disk), length: Rc::clone(&length), kind: self.kind };
        let points = Rc::new(RefCell::new(Vec::new()));
        let (sink, seen, seen_length) = (Rc::clone(&points), Rc::clone(&disk), Rc::clone(&length));
        power.observe(Box::new(move |boundary| {
            let (disks, oracle) = (vec![seen.unsettled()], Oracle::new(0, 0, SECTOR_BYTES));
            sink.borrow_mut().push((Point { boundary, disks, oracle }, seen_length.get()));
        }));
        let resized = Executor::new(driver).run(async move {
            let options = ResizeOptions {
                member: Member::Path("simulated".into()),
                bytes: Sector(sectors).bytes(),
                given: Given {
                    integrity: IntegrityChoice::Algorithm(Algorithm::Crc32c, None),
                    ..Given::default()
                },
                yes: true,
            };
            let resized = resize_at(&place, &options, &mut |_| ControlFlow::Continue(())).await;
            resized.map(drop).map_err(|error| error.to_string())
        });
        power.forget_observer();
        resized.unwrap_or(Err("it never ends".to_owned())).map_err(Violation::NotOpened)?;
        let mut points = points.take();
        let end = disk.image().resized(length.get());
        let (disks, oracle) = (vec![disk.unsettled()], Oracle::new(0, 0, SECTOR_BYTES));
        let boundary = power.boundaries() + 1;
        points.push((Point { boundary, disks, oracle }, length.get()));
        Ok(Run { points, end })
    }

    /// The volume on `image` is the one before or the one after.
    fn judge(&self, image: &Image, before: &Oracle, after: &Oracle) -> Result<(), Violation> {
        let blocks = provided(image, before.block_bytes())?;
        let Some(oracle) = [after, before].into_iter().find(|oracle| oracle.blocks() == blocks)
        else {
            return Err(Violation::NotOpened(format!("it has {blocks} blocks")));
        };
        let steps = (0..blocks).step_by(READ_BLOCKS).map(|block| Step::Read {
            block,
            blocks: (blocks - block).min(units::u64_of(READ_BLOCKS)),
        });
        let look = Life { steps: steps.collect(), ..Life::idle() };
        let start = Start { images: vec![image.clone()], oracle: oracle.clone() };
        let outcome = live(self.scenario, start, &look, false, self.seed, Watch::Nothing);
        outcome.violation.map_or(Ok(()), Err)
    }
}

/// The machine at every boundary of a run, with the member's length there, and what it ends with.
struct Run {
    points: Vec<(Point, u64)>,
    end: Image,
}

/// Blocks of the volume on `image`.
fn provided(image: &Image, block_bytes: usize) -> Result<u64, Violation> {
    let mut area = [0; integrity::superblock::AREA_BYTES];
    image.read(0, &mut area);
    let superblock = integrity::Superblock::decode(&area);
    let superblock = superblock.map_err(|error| Violation::NotOpened(error.to_string()))?;
    Ok(superblock.provided_sectors * SECTOR / units::u64_of(block_bytes))
}

/// A member of a simulated machine.
struct Simulated {
    disk: Rc<SimDisk>,
    length: Rc<Cell<u64>>,
    kind: LeafKind,
}

impl Place for Simulated {
    fn open(&self, _write: bool) -> LocalFuture<'_, Result<Opened, MemberError>> {
        let window = Linear::new(self.disk.device(), Sector::ZERO, self.length.get());
        let device = Device::new(window.expect("whole sectors of the disk"));
        Box::pin(async move { Ok(Opened::alone(device, self.kind)) })
    }

    fn length(&self, _part: Part) -> Result<u64, MemberError> {
        Ok(Sector(self.length.get()).bytes())
    }

    fn set_length(&self, _part: Part, bytes: u64) -> Result<(), MemberError> {
        self.length.set(bytes / SECTOR);
        Ok(())
    }
}

/// Ways each boundary is cut, and how often the command is given again then.
const WAYS: u64 = 3;
const RESUMED_PERCENT: u64 = 10;
const READ_BLOCKS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::resizable;

    #[test]
    fn every_power_cut_leaves_the_old_size_or_the_new_and_nothing_is_lost() {
        for scenario in resizable() {
            for seed in 1..=3 {
                let cuts = resize(&scenario, seed);
                assert!(
                    matches!(cuts, Ok(cuts) if cuts > 30),
                    "{} {seed}: {cuts:?}",
                    scenario.name
                );
            }
        }
    }
}
