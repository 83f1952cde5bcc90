//! A layer that lies: errors, corruption, misdirection, torn and lost writes, by rules.
//!
//! ```text
//!   request --> the first rule that matches it and is not used up --> its effect
//!          \--> none ------------------------------------------------> the device below
//! ```
//!
//! It is an ordinary layer, for tests and drills: put it above a member and whatever is above must
//! notice. The rules are changed at run time through [`Faults`]. Each effect is one of the harms of
//! `docs/faults.md`; nothing here is random: the simulator and the tests decide.

use bio::{Bio, BlockDevice, Device, IoErrorKind, IoResult, Limits, Op};
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;
use units::{SECTOR_BYTES, Sector, usize_of};

/// Which requests a rule is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Reads.
    Read,
    /// Writes with data.
    Write,
    /// Discards and write-zeroes.
    Zero,
    /// Flushes. They have no address: the rule's range is not looked at.
    Flush,
    /// All of them.
    Any,
}

/// What happens instead.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effect {
    /// It fails, at the first sector that is in the rule's range. Writes change nothing.
    Fail(IoErrorKind),
    /// It succeeds, one byte of its data being changed by xor with `mask`: byte `byte` of the first
    /// sector that is in the rule's range. Of a read what is returned, of a write what is stored.
    Corrupt {
        /// Offset in the sector, below 512.
        byte: usize,
        /// The bits that are flipped.
        mask: u8,
    },
    /// It goes so many sectors further on, where that is on the device (else nowhere: a read then
    /// returns zeroes, a write is lost).
    Misdirect {
        /// Distance in sectors; a whole number of logical blocks.
        sectors: u64,
    },
    /// A write that says it is complete, of which only the first sectors were stored.
    Tear {
        /// How many; a whole number of logical blocks.
        sectors: u64,
    },
    /// The first two logical blocks of its data change places, with their tags: of a read what is
    /// returned, of a write what is stored. A request of one block is left alone.
    Swap,
    /// A write or flush that says it is complete, and nothing was done.
    Lose,
    /// It is done, but so much later.
    Delay(Duration),
}

/// When something happens, and what.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The requests it is about.
    pub kind: Kind,
    /// The sectors it is about; it matches what overlaps them.
    pub range: Range<u64>,
    /// How many matching requests pass unharmed first.
    pub skip: u64,
    /// How many are then harmed; `u64::MAX`: all of them.
    pub times: u64,
    /// What happens to them.
    pub effect: Effect,
}

impl Rule {
    /// Harms every matching request.
    #[must_use]
    pub fn always(kind: Kind, range: Range<u64>, effect: Effect) -> Self {
        Self { kind, range, skip: 0, times: u64::MAX, effect }
    }

    /// Harms the `nth` matching request only, counting from 0.
    #[must_use]
    pub fn nth(nth: u64, kind: Kind, range: Range<u64>, effect: Effect) -> Self {
        Self { kind, range, skip: nth, times: 1, effect }
    }

    fn matches(&self, bio: &Bio) -> bool {
        let kind = match bio.op {
            Op::Read => Kind::Read,
            Op::Write { .. } => Kind::Write,
            Op::Discard { .. } | Op::WriteZeroes { .. } => Kind::Zero,
            Op::Flush => return matches!(self.kind, Kind::Flush | Kind::Any),
            Op::Vouch | Op::Peek { .. } => return false,
        };
        let overlaps = bio.sector.0 < self.range.end && self.range.start < bio.end().0;
        overlaps && (self.kind == Kind::Any || self.kind == kind)
    }

    /// The first sector of `bio` that the rule is about.
    fn place(&self, bio: &Bio) -> Sector {
        if bio.op == Op::Flush { bio.sector } else { Sector(bio.sector.0.max(self.range.start)) }
    }
}

/// The rules of one [`Fault`], to be changed while it runs.
#[derive(Clone, Default)]
pub struct Faults {
    inner: Rc<Inner>,
}

#[derive(Default)]
struct Inner {
    rules: RefCell<Vec<Rule>>,
    harmed: Cell<u64>,
}

impl Faults {
    /// Adds a rule, behind those that are there.
    pub fn add(&self, rule: Rule) {
        self.inner.rules.borrow_mut().push(rule);
    }

    /// Drops every rule: the device is honest again.
    pub fn clear(&self) {
        self.inner.rules.borrow_mut().clear();
    }

    /// How many requests were harmed.
    #[must_use]
    pub fn harmed(&self) -> u64 {
        self.inner.harmed.get()
    }

    fn draw(&self, bio: &Bio) -> Option<(Effect, Sector)> {
        let mut rules = self.inner.rules.borrow_mut();
        for rule in rules.iter_mut().filter(|rule| rule.times > 0 && rule.matches(bio)) {
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            if rule.times < u64::MAX {
                rule.times -= 1;
            }
            self.inner.harmed.set(self.inner.harmed.get() + 1);
            return Some((rule.effect, rule.place(bio)));
        }
        None
    }
}

/// The layer.
pub struct Fault {
    lower: Device,
    faults: Faults,
}

impl Fault {
    /// Puts `faults` above `lower`.
    #[must_use]
    pub fn new(lower: Device, faults: &Faults) -> Self {
        Self { lower, faults: faults.clone() }
    }

    async fn harm(&self, bio: &mut Bio, effect: Effect, place: Sector) -> IoResult {
        match effect {
            Effect::Fail(kind) => Err(kind.at(place)),
            Effect::Corrupt { byte, mask } => self.corrupt(bio, place, byte, mask).await,
            Effect::Misdirect { sectors } => self.misdirect(bio, sectors).await,
            Effect::Tear { sectors } => self.tear(bio, sectors).await,
            Effect::Swap => self.swap(bio).await,
            Effect::Lose if bio.op.is_write() || bio.op == Op::Flush => Ok(()),
            Effect::Lose => self.lower.submit(bio).await,
            Effect::Delay(duration) => {
                runtime::sleep(duration).await;
                self.lower.submit(bio).await
            }
        }
    }

    async fn corrupt(&self, bio: &mut Bio, place: Sector, byte: usize, mask: u8) -> IoResult {
        let at = usize_of((place - bio.sector) * units::SECTOR) + byte % SECTOR_BYTES;
        let mut changed = [0];
        if bio.op == Op::Read {
            self.lower.submit(bio).await?;
            bio.data.copy_to(at, &mut changed);
            bio.data.copy_from(at, &[changed[0] ^ mask]);
            return Ok(());
        }
        if bio.data.is_empty() {
            return self.lower.submit(bio).await;
        }
        // What the submitter holds stays as it is: the copy that goes down is another.
        let mut copy = bio::Buf::alloc(bio.data.len_bytes());
        bio.data.copy_to(0, copy.as_mut_slice());
        copy.as_mut_slice()[at] ^= mask;
        self.elsewhere(bio, bio.sector, copy).await
    }

    async fn misdirect(&self, bio: &mut Bio, distance: u64) -> IoResult {
        let target = bio.sector + distance;
        let on_device = target.0 + bio.sectors() <= self.lower.limits().sectors;
        match bio.op {
            Op::Flush | Op::Vouch | Op::Peek { .. } => return self.lower.submit(bio).await,
            _ if on_device => {}
            Op::Read => {
                bio.data.iter_mut().for_each(|piece| piece.as_mut_slice().fill(0));
                return Ok(());
            }
            _ => return Ok(()),
        }
        let home = std::mem::replace(&mut bio.sector, target);
        let result = self.lower.submit(bio).await;
        bio.sector = home;
        result.map_err(|error| error.kind.at(home))
    }

    async fn swap(&self, bio: &mut Bio) -> IoResult {
        let limits = self.limits();
        let sides = [
            (limits.logical_block.bytes(), bio.data.len_bytes()),
            (limits.tag_size, bio.tags.len_bytes()),
        ];
        if sides[0].1 < 2 * sides[0].0 {
            return self.lower.submit(bio).await;
        }
        let swapped = |segments: &bio::Segments, (block, length): (usize, usize)| {
            let mut copy = bio::Buf::alloc(length);
            segments.copy_to(0, copy.as_mut_slice());
            if length > 0 {
                copy.as_mut_slice()[..2 * block].rotate_left(block);
            }
            copy
        };
        if bio.op == Op::Read {
            self.lower.submit(bio).await?;
            let (data, tags) = (swapped(&bio.data, sides[0]), swapped(&bio.tags, sides[1]));
            bio.data.copy_from(0, data.as_slice());
            bio.tags.copy_from(0, tags.as_slice());
            return Ok(());
        }
        let mut other = Bio::write(bio.sector, swapped(&bio.data, sides[0]));
        other.op = bio.op;
        other.tags = swapped(&bio.tags, sides[1]).into();
        self.lower.submit(&mut other).await
    }

    async fn tear(&self, bio: &mut Bio, sectors: u64) -> IoResult {
        let kept = sectors.min(bio.sectors());
        if !matches!(bio.op, Op::Write { .. }) {
            return self.lower.submit(bio).await;
        }
        if kept == 0 {
            return Ok(());
        }
        let part = bio.data.slice(0..usize_of(Sector(kept).bytes()));
        self.elsewhere(bio, bio.sector, part).await
    }

    async fn elsewhere(
        &self,
        bio: &Bio,
        sector: Sector,
        data: impl Into<bio::Segments>,
    ) -> IoResult {
        let mut other = Bio::write(sector, data);
        other.op = bio.op;
        // Those of the blocks that are left.
        let blocks = other.data.len_bytes() / self.limits().logical_block.bytes();
        let tags = (blocks * self.limits().tag_size).min(bio.tags.len_bytes());
        other.tags = bio.tags.slice(0..tags);
        self.lower.submit(&mut other).await
    }
}

impl BlockDevice for Fault {
    fn limits(&self) -> &Limits {
        self.lower.limits()
    }

    async fn submit(&self, bio: &mut Bio) -> IoResult {
        match self.faults.draw(bio) {
            None => self.lower.submit(bio).await,
            Some((effect, place)) => self.harm(bio, effect, place).await,
        }
    }
}

#[cfg(test)]
mod tests;
