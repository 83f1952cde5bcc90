//! Power cuts while a volume is made, over disks that hold something else.
//!
//! At every boundary there is no superblock, or a volume that opens: the one that was there before,
//! as it was, or the new one, all zeroes.

use crate::explore::cut;
use crate::history::{Life, Step};
use crate::image::Image;
use crate::machine::{Point, Start, Watch, live};
use crate::oracle::Oracle;
use crate::power::{Power, survivals};
use crate::rng::Rng;
use crate::scenario::Scenario;
use crate::schedule::SimDriver;
use crate::violation::Violation;
use runtime::Executor;
use std::cell::RefCell;
use std::rc::Rc;

/// Makes `scenario` on disks as `start` has them, and judges what every power cut leaves. With
/// `reads` every block of what opens is read; without, it has to open.
///
/// # Errors
/// The first violation.
pub fn make(scenario: &Scenario, start: Start, reads: bool, seed: u64) -> Result<u64, Violation> {
    let mut oracle = start.oracle;
    let blocks = oracle.blocks();
    let wiped = oracle.write_starts(0, blocks, true);
    let (points, mut end) = points(scenario, start.images, &oracle, seed)?;
    end.oracle.write_ends(&wiped, true);
    let steps = (0..blocks).step_by(READ_BLOCKS).map(|block| Step::Read {
        block,
        blocks: (blocks - block).min(units::u64_of(READ_BLOCKS)),
    });
    let look =
        Life { steps: steps.take(if reads { usize::MAX } else { 0 }).collect(), ..Life::idle() };
    let mut rng = Rng::derived(seed, 4);
    let mut cuts = 0;
    for point in points.iter().chain([&end]) {
        let done = point.boundary == end.boundary;
        for survival in survivals(&point.disks, WAYS, &mut rng) {
            let start = cut(point, survival);
            cuts += 1;
            if !has_superblock(&start.images[0]) {
                if done {
                    return Err(Violation::NotOpened("it was made, and is not there".to_owned()));
                }
                continue;
            }
            live(scenario, start, &look, false, seed, Watch::Nothing).sound()?;
        }
    }
    Ok(cuts)
}

/// The machine at every boundary while the volume is made, and afterwards.
fn points(
    scenario: &Scenario,
    images: Vec<Image>,
    oracle: &Oracle,
    seed: u64,
) -> Result<(Vec<Point>, Point), Violation> {
    let driver = SimDriver::new(seed);
    let power = Power::new(&driver);
    let disks = Rc::new(scenario.disks(&power, images));
    let look = {
        let (disks, oracle) = (Rc::clone(&disks), oracle.clone());
        move |boundary| Point {
            boundary,
            disks: disks.iter().map(|disk| disk.unsettled()).collect(),
            oracle: oracle.clone(),
        }
    };
    let points = Rc::new(RefCell::new(Vec::new()));
    let (sink, observed) = (Rc::clone(&points), look.clone());
    power.observe(Box::new(move |boundary| sink.borrow_mut().push(observed(boundary))));
    let devices = disks.iter().map(|disk| disk.device()).collect();
    let made = Executor::new(driver).run((scenario.format)(devices));
    power.forget_observer();
    made.unwrap_or(Err("it never ends".to_owned())).map_err(Violation::NotOpened)?;
    Ok((points.take(), look(power.boundaries() + 1)))
}

/// Disks full of what is not zero and no volume.
#[must_use]
pub fn garbage(scenario: &Scenario) -> Start {
    let made = scenario.made();
    let mut image = Image::new(scenario.member_sectors);
    for sector in 0..scenario.member_sectors {
        image.write(sector, &[0xa5; units::SECTOR_BYTES]);
    }
    let oracle = Oracle::new(0, made.blocks, made.block.bytes());
    Start { images: vec![image; scenario.members], oracle }
}

fn has_superblock(image: &Image) -> bool {
    let mut sector = [0; units::SECTOR_BYTES];
    image.read(0, &mut sector);
    sector.starts_with(MAGIC)
}

/// What a dm-integrity superblock begins with (specification section 3).
const MAGIC: &[u8] = b"integrt\0";
/// Ways each boundary is cut.
const WAYS: u64 = 4;
const READ_BLOCKS: usize = 32;
