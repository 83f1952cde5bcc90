//! Power cuts while a volume is made larger or smaller.
//!
//! At every boundary the volume has its old size or its new one, with everything that it held; what is
//! new reads as zeroes. The same command, given again, goes on.

use crate::disk::SimDisk;
use crate::explore::{closed, cut, fresh, schedule};
use crate::history::{Life, Step};
use crate::image::Image;
use crate::machine::{Point, Start, Watch, live};
use crate::oracle::Oracle;
use crate::power::{Power, survivals};
use crate::rng::Rng;
use crate::scenario::Scenario;
use crate::schedule::SimDriver;
use crate::violation::Violation;
use crate::workload::{Places, afterlife, life};
use bio::{Device, LocalFuture};
use checksum::Algorithm;
use integrity::Superblock;
use integrity::layout::{DeviceSectors, resize as resized_layout};
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
    let mut resizing = Resizing { scenario, kind, seed, cuts: 0 };
    for round in 0..3 {
        start = resizing.used(&mut rng, start, round)?;
        let mut other = made + 8 * rng.below(90);
        while resizing.is_doubtful(&start.images, other) {
            other += 8;
        }
        start = resizing.to(&mut rng, start, other)?;
    }
    resizing.used(&mut rng, start, 3)?;
    Ok(resizing.cuts)
}

struct Resizing<'a> {
    scenario: &'a Scenario,
    kind: LeafKind,
    seed: u64,
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
        let outcome = live(self.scenario, start, &life, false, schedule, watch).sound()?;
        Ok(match outcome.points.first() {
            Some(point) if rng.percent(60) => {
                let ways = survivals(&point.disks, 4, rng);
                cut(point, *rng.pick(&ways))
            }
            _ => closed(&outcome.end),
        })
    }

    /// Whether a device of that many sectors, which held more, would be taken for one with a flipped bit
    /// in its size: what a smaller volume leaves behind its end still verifies.
    fn is_doubtful(&self, images: &[Image], sectors: u64) -> bool {
        let [image] = images else { return false };
        let Ok(stored) = superblock(image) else { return false };
        let provided = |sectors| {
            let resized = resized_layout(&stored, DeviceSectors::Interleaved(sectors));
            resized.map_or(0, |(resized, _)| resized.provided_sectors)
        };
        let most = provided(image.sectors().max(sectors));
        let mut sizes = [stored.provided_sectors, provided(sectors)].into_iter();
        self.kind == LeafKind::BlockDevice && sizes.any(|size| (size ^ most).is_power_of_two())
    }

    /// Gives the device with the data `sectors` sectors.
    fn to(&mut self, rng: &mut Rng, start: Start, sectors: u64) -> Result<Start, Violation> {
        let images = self.room(&start.images, sectors);
        let before = start.oracle;
        let run = self.run(images, sectors)?;
        let done = provided(&run.end[0], before.block_bytes())?;
        let mut after = before.clone();
        after.resize(done);
        for (point, lengths) in &run.points {
            for survival in survivals(&point.disks, WAYS, rng) {
                let left = cut_off(cut(point, survival).images, lengths);
                self.cuts += 1;
                self.judge(&left, &before, &after)?;
                if rng.percent(RESUMED_PERCENT) {
                    let resumed = self.run(self.room(&left, sectors), sectors)?.end;
                    self.judge(&resumed, &after, &after)?;
                }
            }
        }
        self.judge(&run.end, &after, &after)?;
        Ok(Start { images: run.end, oracle: after })
    }

    /// The devices before the one with the data is given `sectors` sectors: those that are not files
    /// have had room for long.
    fn room(&self, images: &[Image], sectors: u64) -> Vec<Image> {
        let last = images.len() - 1;
        let roomy = images.iter().enumerate().map(|(index, image)| {
            let wanted = if index == last { sectors } else { METADATA_SECTORS };
            if self.kind == LeafKind::File || wanted <= image.sectors() {
                return image.clone();
            }
            let mut larger = image.resized(wanted);
            for sector in image.sectors()..wanted {
                larger.write(sector, &[0xa5; SECTOR_BYTES]);
            }
            larger
        });
        roomy.collect()
    }

    /// One uncut run of the command.
    fn run(&self, images: Vec<Image>, sectors: u64) -> Result<Run, Violation> {
        let driver = SimDriver::new(self.seed);
        let power = Power::new(&driver);
        let lengths: Lengths = images.iter().map(|image| Cell::new(image.sectors())).collect();
        let most = sectors.max(METADATA_SECTORS);
        let rooms = images.iter().map(|image| image.resized(image.sectors().max(most)));
        let disks: Rc<[Rc<SimDisk>]> = self.scenario.disks(&power, rooms.collect()).into();
        let place =
            Simulated { disks: Rc::clone(&disks), lengths: Rc::clone(&lengths), kind: self.kind };
        let points = Rc::new(RefCell::new(Vec::new()));
        let (sink, seen, seen_lengths) =
            (Rc::clone(&points), Rc::clone(&disks), Rc::clone(&lengths));
        power.observe(Box::new(move |boundary| {
            let oracle = Oracle::new(0, 0, SECTOR_BYTES);
            let disks = seen.iter().map(|disk| disk.unsettled()).collect();
            sink.borrow_mut().push((Point { boundary, disks, oracle }, now(&seen_lengths)));
        }));
        let resized = Executor::new(driver).run(async move {
            let options = ResizeOptions {
                member: Member::Path("simulated".into()),
                bytes: Sector(sectors).bytes(),
                given: Given {
                    integrity: IntegrityChoice::Named(Algorithm::Crc32c.into(), None),
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
        let lengths = now(&lengths);
        let end = cut_off(disks.iter().map(|disk| disk.image()).collect(), &lengths);
        let oracle = Oracle::new(0, 0, SECTOR_BYTES);
        let disks = disks.iter().map(|disk| disk.unsettled()).collect();
        let boundary = power.boundaries() + 1;
        points.push((Point { boundary, disks, oracle }, lengths));
        Ok(Run { points, end })
    }

    /// The volume on `images` is the one before or the one after.
    fn judge(&self, images: &[Image], before: &Oracle, after: &Oracle) -> Result<(), Violation> {
        let blocks = provided(&images[0], before.block_bytes())?;
        let Some(oracle) = [after, before].into_iter().find(|oracle| oracle.blocks() == blocks)
        else {
            return Err(Violation::NotOpened(format!("it has {blocks} blocks")));
        };
        let steps = (0..blocks).step_by(READ_BLOCKS).map(|block| Step::Read {
            block,
            blocks: (blocks - block).min(units::u64_of(READ_BLOCKS)),
        });
        let look = Life { steps: steps.collect(), ..Life::idle() };
        let start = Start { images: images.to_vec(), oracle: oracle.clone() };
        live(self.scenario, start, &look, false, self.seed, Watch::Nothing).sound().map(drop)
    }
}

/// The machine at every boundary of a run, with the devices' lengths there, and what it ends with.
struct Run {
    points: Vec<(Point, Vec<u64>)>,
    end: Vec<Image>,
}

/// Sectors of each device: the only one, or that of the metadata and that of the data.
type Lengths = Rc<[Cell<u64>]>;

fn now(lengths: &Lengths) -> Vec<u64> {
    lengths.iter().map(Cell::get).collect()
}

fn cut_off(images: Vec<Image>, lengths: &[u64]) -> Vec<Image> {
    images.iter().zip(lengths).map(|(image, &length)| image.resized(length)).collect()
}

fn superblock(image: &Image) -> Result<Superblock, Violation> {
    let mut area = [0; integrity::superblock::AREA_BYTES];
    image.read(0, &mut area);
    Superblock::decode(&area).map_err(|error| Violation::NotOpened(error.to_string()))
}

/// Blocks of the volume on `image`.
fn provided(image: &Image, block_bytes: usize) -> Result<u64, Violation> {
    let superblock = superblock(image)?;
    Ok(superblock.provided_sectors * SECTOR / units::u64_of(block_bytes))
}

/// The devices of a simulated machine.
struct Simulated {
    disks: Rc<[Rc<SimDisk>]>,
    lengths: Lengths,
    kind: LeafKind,
}

impl Simulated {
    fn length_of(&self, part: Part) -> &Cell<u64> {
        match part {
            Part::Data => &self.lengths[self.lengths.len() - 1],
            Part::Metadata => &self.lengths[0],
        }
    }
}

impl Place for Simulated {
    fn open(&self, _write: bool) -> LocalFuture<'_, Result<Opened, MemberError>> {
        let mut windows = self.disks.iter().zip(self.lengths.iter()).map(|(disk, length)| {
            let window = Linear::new(disk.device(), Sector::ZERO, length.get());
            Device::new(window.expect("whole sectors of the disk"))
        });
        let first = windows.next().expect("there is a device");
        let opened = match windows.next() {
            Some(data) => Opened::apart(Member::Path("data".into()), first, data, self.kind),
            None => Opened::alone(first, self.kind),
        };
        Box::pin(async move { Ok(opened) })
    }

    fn length(&self, part: Part) -> Result<u64, MemberError> {
        Ok(Sector(self.length_of(part).get()).bytes())
    }

    fn set_length(&self, part: Part, bytes: u64) -> Result<(), MemberError> {
        self.length_of(part).set(bytes / SECTOR);
        Ok(())
    }
}

/// Ways each boundary is cut, and how often the command is given again then.
const WAYS: u64 = 3;
const RESUMED_PERCENT: u64 = 10;
const READ_BLOCKS: usize = 32;
/// Sectors that a device for metadata alone has in the end.
const METADATA_SECTORS: u64 = 1200;

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
