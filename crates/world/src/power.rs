//! Power cuts: where they can fall, and what they can leave.
//!
//! Every submission and every completion of a write or flush on any disk is a *boundary*. A cut
//! there leaves on each disk what is durable, plus any subset of what is not:
//!
//! ```text
//!   durable | cached (complete, not flushed), in order | flying (not complete), in any order
//!   --------+------------------------------------------+------------------------------------
//!   survives| each atomic unit of each write, or not   | likewise
//! ```
//!
//! A write with FUA that is complete survives whole. The atomic unit is the logical block, or the
//! 512-byte sector for disks that only emulate larger blocks.

use crate::image::Image;
use crate::rng::Rng;
use crate::schedule::SimDriver;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::str::FromStr;
use units::{SECTOR_BYTES, u64_of, usize_of};

/// The mains of one simulated machine.
pub struct Power {
    driver: Rc<SimDriver>,
    boundaries: Cell<u64>,
    next_write: Cell<u64>,
    observer: RefCell<Option<Observer>>,
}

/// Called at each boundary with its number, the first being 1.
pub type Observer = Box<dyn FnMut(u64)>;

impl Power {
    /// The mains of the machine that `driver` runs.
    #[must_use]
    pub fn new(driver: &Rc<SimDriver>) -> Rc<Self> {
        Rc::new(Self {
            driver: Rc::clone(driver),
            boundaries: Cell::default(),
            next_write: Cell::default(),
            observer: RefCell::default(),
        })
    }

    /// The scheduler.
    #[must_use]
    pub fn driver(&self) -> &SimDriver {
        &self.driver
    }

    /// Whether it is cut: nothing that a disk is asked from now on happens.
    #[must_use]
    pub fn is_off(&self) -> bool {
        runtime::Driver::stopped(&*self.driver)
    }

    /// Boundaries passed so far.
    #[must_use]
    pub fn boundaries(&self) -> u64 {
        self.boundaries.get()
    }

    /// Lets `observer` see every boundary; it may look at the disks, and stop the driver.
    pub fn observe(&self, observer: Observer) {
        *self.observer.borrow_mut() = Some(observer);
    }

    /// Takes the observer away, and with it whatever it holds.
    pub fn forget_observer(&self) {
        self.observer.borrow_mut().take();
    }

    pub(crate) fn boundary(&self) {
        self.boundaries.set(self.boundaries.get() + 1);
        if let Some(observer) = &mut *self.observer.borrow_mut() {
            observer(self.boundaries.get());
        }
    }

    pub(crate) fn write_id(&self) -> u64 {
        self.next_write.set(self.next_write.get() + 1);
        self.next_write.get()
    }
}

/// A write that a power cut may undo.
#[derive(Clone, Debug)]
pub struct Write {
    /// Position in the order of submission over all disks.
    pub id: u64,
    /// Its first sector.
    pub sector: u64,
    /// Its bytes, whole sectors.
    pub data: Rc<[u8]>,
    /// The metadata of its blocks, where the disk keeps any: part of each atomic unit.
    pub tags: Rc<[u8]>,
    /// Complete and with FUA: it survives.
    pub forced: bool,
}

impl Write {
    /// Stores all of it.
    pub(crate) fn store(&self, image: &mut Image) {
        image.write(self.sector, &self.data);
        image.write_tags(self.sector, &self.tags);
    }

    /// Stores the atomic unit number `index` of `unit` sectors.
    fn store_unit(&self, image: &mut Image, index: u64, unit: u64) {
        let part = |bytes: &Rc<[u8]>, size: usize| {
            let start = (usize_of(index) * size).min(bytes.len());
            start..(start + size).min(bytes.len())
        };
        let sector = self.sector + index * unit;
        image.write(sector, &self.data[part(&self.data, usize_of(unit) * SECTOR_BYTES)]);
        image.write_tags(sector, &self.tags[part(&self.tags, image.tag_size())]);
    }

    fn units(&self, unit: u64) -> u64 {
        u64_of(self.data.len() / SECTOR_BYTES).div_ceil(unit)
    }
}

/// A disk at the moment of a cut.
#[derive(Clone, Debug)]
pub struct Unsettled {
    /// What survives in any case.
    pub durable: Image,
    /// The rest: complete writes in order of completion, then those in flight.
    pub writes: Vec<Write>,
    /// How many of the writes are complete.
    pub complete: usize,
    /// Sectors in an atomic unit.
    pub unit: u64,
}

/// Which of the unsettled writes survive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Survival {
    /// Bit n of the mask: the n-th free unit (or write, see [`free_choices`]) survives.
    Mask(u64),
    /// Drawn from this seed: a prefix, all but one, only one, a random subset, whole members.
    Seeded(u64),
}

impl fmt::Display for Survival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mask(mask) => write!(f, "mask:{mask:x}"),
            Self::Seeded(seed) => write!(f, "seed:{seed:x}"),
        }
    }
}

impl FromStr for Survival {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, number) = text.split_once(':').ok_or("expected mask:HEX or seed:HEX")?;
        let number = u64::from_str_radix(number, 16).map_err(|error| error.to_string())?;
        match kind {
            "mask" => Ok(Self::Mask(number)),
            "seed" => Ok(Self::Seeded(number)),
            _ => Err(format!("unknown survival {kind}")),
        }
    }
}

/// How many independent yes-or-no choices a cut leaves: one per atomic unit of the writes that are
/// not forced; where those are too many to try all, one per write.
#[must_use]
pub fn free_choices(disks: &[Unsettled]) -> u64 {
    let units = count(disks, |disk, write| write.units(disk.unit));
    if units <= MASK_BITS { units } else { count(disks, |_, _| 1) }
}

fn count(disks: &[Unsettled], weight: impl Fn(&Unsettled, &Write) -> u64) -> u64 {
    let free = |disk: &Unsettled| -> u64 {
        let writes = disk.writes.iter().filter(|write| !write.forced);
        writes.map(|write| weight(disk, write)).sum()
    };
    disks.iter().map(free).sum()
}

/// The survivals to try at a cut: all of them if there are at most `limit`, else nothing, everything
/// and as many seeded ones as fill the limit.
#[must_use]
pub fn survivals(disks: &[Unsettled], limit: u64, rng: &mut Rng) -> Vec<Survival> {
    let choices = free_choices(disks);
    if choices < MASK_BITS + 1 && 1 << choices <= limit {
        return (0..1 << choices).map(Survival::Mask).collect();
    }
    let extremes = [Survival::Mask(0), Survival::Mask(u64::MAX)];
    let drawn = (2..limit).map(|_| Survival::Seeded(rng.next_u64()));
    if limit < 2 {
        return vec![Survival::Seeded(rng.next_u64())];
    }
    extremes.into_iter().chain(drawn).collect()
}

/// What the disks hold after a cut of which `survival` survives.
#[must_use]
pub fn settle(disks: &[Unsettled], survival: Survival) -> Vec<Image> {
    match survival {
        Survival::Mask(mask) => {
            let by_unit = count(disks, |disk, write| write.units(disk.unit)) <= MASK_BITS;
            let mut next = 0;
            let mut draw = move || {
                let kept = mask >> next & 1 == 1;
                next = (next + 1).min(63);
                kept
            };
            apply(disks, &mut Rng::new(0), false, |_, units| {
                if by_unit {
                    (0..units).map(|_| draw()).collect()
                } else {
                    vec![draw(); usize_of(units)]
                }
            })
        }
        Survival::Seeded(seed) => settle_seeded(disks, seed),
    }
}

fn settle_seeded(disks: &[Unsettled], seed: u64) -> Vec<Image> {
    let mut rng = Rng::new(seed);
    let mut ids: Vec<u64> = disks
        .iter()
        .flat_map(|disk| disk.writes.iter())
        .filter(|write| !write.forced)
        .map(|write| write.id)
        .collect();
    ids.sort_unstable();
    let reorder = rng.percent(50);
    let chosen = if ids.is_empty() { 0 } else { *rng.pick(&ids) };
    let members: Vec<bool> = disks.iter().map(|_| rng.percent(50)).collect();
    let cuts: Vec<u64> =
        disks.iter().map(|_| if ids.is_empty() { 0 } else { *rng.pick(&ids) }).collect();
    let percent = rng.below(101);
    let kind = rng.below(7);
    let mut dice = rng.clone();
    apply(disks, &mut rng, reorder, move |(disk, write), units| {
        let whole = match kind {
            0 => write.id < chosen,                                          // a prefix
            1 => write.id != chosen,                                         // all but one
            2 => write.id == chosen,                                         // only one
            3 => dice.percent(percent),                                      // a random subset
            4 => members[disk],          // some members are ahead
            5 => write.id <= cuts[disk], // each member at a place of its own
            _ => return (0..units).map(|_| dice.percent(percent)).collect(), // torn anywhere
        };
        if kind < 3 && write.id == chosen && dice.percent(50) {
            return (0..units).map(|_| dice.percent(50)).collect(); // and the last one torn
        }
        vec![whole; usize_of(units)]
    })
}

/// Applies of every write the units that `keep` keeps.
fn apply(
    disks: &[Unsettled],
    rng: &mut Rng,
    reorder: bool,
    mut keep: impl FnMut((usize, &Write), u64) -> Vec<bool>,
) -> Vec<Image> {
    let settle = |(index, disk): (usize, &Unsettled)| {
        let mut image = disk.durable.clone();
        let mut order: Vec<usize> = (0..disk.writes.len()).collect();
        if reorder {
            rng.shuffle(&mut order[disk.complete..]);
        }
        for at in order {
            let write = &disk.writes[at];
            if write.forced {
                write.store(&mut image);
                continue;
            }
            let kept = keep((index, write), write.units(disk.unit));
            for (unit, _) in (0..).zip(kept).filter(|(_, kept)| *kept) {
                write.store_unit(&mut image, unit, disk.unit);
            }
        }
        image
    };
    disks.iter().enumerate().map(settle).collect()
}

/// At most 2^12 states are tried one by one.
const MASK_BITS: u64 = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use units::BlockSize;

    fn write(id: u64, sector: u64, value: u8, sectors: usize, forced: bool) -> Write {
        let data = vec![value; sectors * SECTOR_BYTES].into();
        Write { id, sector, data, tags: Rc::default(), forced }
    }

    fn states(disk: &Unsettled, limit: u64) -> BTreeSet<Vec<u8>> {
        let disks = [disk.clone()];
        let first_bytes = |image: &Image| {
            let mut bytes = vec![0; SECTOR_BYTES * usize_of(image.sectors())];
            image.read(0, &mut bytes);
            bytes.chunks(SECTOR_BYTES).map(|sector| sector[0]).collect()
        };
        survivals(&disks, limit, &mut Rng::new(1))
            .into_iter()
            .map(|survival| first_bytes(&settle(&disks, survival)[0]))
            .collect()
    }

    #[test]
    fn small_cuts_are_tried_exhaustively_and_later_writes_win() {
        let disk = Unsettled {
            durable: Image::new(3),
            writes: vec![write(1, 0, 1, 2, false), write(2, 1, 2, 1, false)],
            complete: 2,
            unit: 1,
        };
        let expected = [[0, 0, 0], [0, 1, 0], [0, 2, 0], [1, 0, 0], [1, 1, 0], [1, 2, 0]];
        assert_eq!(states(&disk, 4096), expected.map(Vec::from).into());
    }

    #[test]
    fn forced_writes_survive_and_cover_what_came_before_them() {
        let disk = Unsettled {
            durable: Image::new(1),
            writes: vec![write(1, 0, 1, 1, false), write(2, 0, 2, 1, true)],
            complete: 2,
            unit: 1,
        };
        assert_eq!(states(&disk, 4096), [vec![2]].into());
    }

    #[test]
    fn seeded_cuts_reach_every_state_of_a_long_list_in_the_end() {
        let writes: Vec<_> = (0..8).map(|n| write(n, n, 1, 1, false)).collect();
        let disk = Unsettled { durable: Image::new(8), writes, complete: 4, unit: 1 };
        assert!(states(&disk, 200).len() > 40);
    }

    #[test]
    fn a_block_and_its_metadata_survive_together_or_not_at_all() {
        let durable = Image::new(4).with_tags(BlockSize::from_bytes(1024).unwrap(), 3);
        let tagged = |value| Write { tags: vec![value; 6].into(), ..write(1, 0, value, 4, false) };
        let disks =
            [Unsettled { durable, writes: vec![tagged(1), tagged(2)], complete: 2, unit: 2 }];
        let mut seen = BTreeSet::new();
        for survival in survivals(&disks, 4096, &mut Rng::new(1)) {
            let image = &settle(&disks, survival)[0];
            for block in [0, 2] {
                let (mut data, mut tags) = ([0; 1024], [0; 3]);
                image.read(block, &mut data);
                image.read_tags(block, &mut tags);
                assert!(data == [tags[0]; 1024] && tags == [tags[0]; 3]);
                seen.insert(tags[0]);
            }
        }
        assert_eq!(seen, [0, 1, 2].into());
    }

    #[test]
    fn writes_in_flight_land_in_any_order() {
        let writes = vec![write(1, 0, 1, 1, false), write(2, 0, 2, 1, false)];
        let disk = [Unsettled { durable: Image::new(1), writes, complete: 0, unit: 1 }];
        let mut seen = BTreeSet::new();
        for seed in 0..200 {
            let mut byte = [0; SECTOR_BYTES];
            settle(&disk, Survival::Seeded(seed))[0].read(0, &mut byte);
            seen.insert(byte[0]);
        }
        assert_eq!(seen, [0, 1, 2].into());
    }
}
