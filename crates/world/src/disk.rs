//! A disk with a volatile write cache, whose every fault is somebody's decision.
//!
//! ```text
//!   submit --> flying --> complete: cached --> flush: durable
//!                    \--> complete with FUA --^
//! ```
//!
//! Reads see what is complete. A power cut takes what is not durable (see [`crate::power`]). Damage
//! is done to the stored bytes and stays until they are written again. Sectors that refuse to be written
//! keep what they have, until the disk takes writes again. A disk whose image has metadata keeps it as [`bio::Bio`] says: with each block, as
//! one.

use crate::image::Image;
use crate::ordering::Orderings;
use crate::power::{Power, Unsettled, Write};
use crate::rng::{hash_bytes, mix};
use bio::{Bio, BlockDevice, Buf, Device, IoError, IoErrorKind, IoResult, Limits, Op, Segments};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;
use units::{BlockSize, SECTOR_BYTES, Sector, u64_of, usize_of};

/// A disk of one simulated machine.
pub struct SimDisk {
    index: u64,
    limits: Limits,
    unit: u64,
    power: Rc<Power>,
    orderings: Rc<Orderings>,
    state: RefCell<State>,
    gone: Cell<bool>,
    slow: Cell<bool>,
    requests: Cell<u64>,
}

struct State {
    durable: Image,
    visible: Image,
    cached: Vec<Write>,
    flying: Vec<Write>,
    writes: u64,
    flushes: u64,
    reads: u64,
    /// The flushes that do nothing.
    lies: BTreeSet<u64>,
    /// The reads that are answered with what was there at another time.
    stale: BTreeMap<u64, Image>,
    /// Where writes began, so that damage can be done where it matters.
    written: Vec<u64>,
    tricks: BTreeMap<u64, Trick>,
    /// Writes that went astray, as they should have been stored.
    astray: Vec<Write>,
}

/// What a disk may do to a write while saying that all is well. No array can be right about these
/// without a checksum; tests that use them demand honest answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trick {
    /// The write vanishes.
    Lose,
    /// The write lands so many sectors further on (wrapping at the end of the disk).
    Misdirect(u64),
    /// Only so many sectors of it land.
    Tear(u64),
}

impl SimDisk {
    /// Disk number `index`, holding `image`, in a machine on `power`.
    #[must_use]
    pub fn new(power: &Rc<Power>, index: usize, image: Image, block: BlockSize) -> Rc<Self> {
        let mut limits = Limits::new(image.sectors(), block);
        limits.discard = true;
        limits.fast_zeroes = true;
        limits.tag_size = image.tag_size();
        let state = State {
            visible: image.clone(),
            durable: image,
            cached: Vec::new(),
            flying: Vec::new(),
            writes: 0,
            flushes: 0,
            reads: 0,
            lies: BTreeSet::new(),
            stale: BTreeMap::new(),
            written: Vec::new(),
            tricks: BTreeMap::new(),
            astray: Vec::new(),
        };
        Rc::new(Self {
            index: u64_of(index),
            unit: block.sectors(),
            limits,
            power: Rc::clone(power),
            orderings: Rc::default(),
            state: RefCell::new(state),
            gone: Cell::default(),
            slow: Cell::default(),
            requests: Cell::default(),
        })
    }

    /// The same disk, but a power cut may tear its logical blocks at any 512-byte sector (a disk
    /// that emulates 4096-byte blocks over smaller ones).
    #[must_use]
    pub fn tearing_blocks(mut self: Rc<Self>) -> Rc<Self> {
        assert_eq!(self.limits.tag_size, 0, "a block and its metadata are not torn apart");
        Rc::get_mut(&mut self).expect("configured before it is shared").unit = 1;
        self
    }

    /// The same disk, which does not do what `orderings` leaves out.
    #[must_use]
    pub fn heeding(mut self: Rc<Self>, orderings: &Rc<Orderings>) -> Rc<Self> {
        let this = Rc::get_mut(&mut self).expect("configured before it is shared");
        this.orderings = Rc::clone(orderings);
        self
    }

    /// As a device.
    #[must_use]
    pub fn device(self: &Rc<Self>) -> Device {
        Device::shared(Rc::clone(self))
    }

    /// Flips the bits of `mask` in byte `byte` of `sector`, on the medium and in the cache of reads.
    pub fn flip(&self, sector: u64, byte: usize, mask: u8) {
        self.on_medium(|image| image.flip(sector, byte, mask));
    }

    /// Stores other bytes in `sector`, behind everybody's back.
    pub fn overwrite(&self, sector: u64, bytes: &[u8; SECTOR_BYTES]) {
        self.on_medium(|image| image.write(sector, bytes));
    }

    /// Makes `sector` unreadable until it is written.
    pub fn spoil(&self, sector: u64) {
        self.on_medium(|image| image.spoil(sector));
    }

    /// Makes writes to `sector` fail, until it [accepts](Self::accept) them.
    pub fn refuse(&self, sector: u64) {
        self.on_medium(|image| image.refuse(sector));
    }

    /// Makes all writes succeed again.
    pub fn accept(&self) {
        self.on_medium(Image::accept);
    }

    /// Exchanges what lies in one sector and in another.
    pub fn swap(&self, one: u64, other: u64) {
        self.on_medium(|image| {
            let (mut first, mut second) = ([0; SECTOR_BYTES], [0; SECTOR_BYTES]);
            image.read(one, &mut first);
            image.read(other, &mut second);
            image.write(one, &second);
            image.write(other, &first);
        });
    }

    fn on_medium(&self, change: impl Fn(&mut Image)) {
        let mut state = self.state.borrow_mut();
        change(&mut state.durable);
        change(&mut state.visible);
    }

    /// Takes the disk away, or brings it back as it was.
    pub fn set_gone(&self, gone: bool) {
        self.gone.set(gone);
    }

    /// Makes it a thousand times slower than the others.
    pub fn set_slow(&self, slow: bool) {
        self.slow.set(slow);
    }

    /// Plays `trick` on the `nth` write from now (0: the next).
    pub fn play(&self, nth: u64, trick: Trick) {
        let mut state = self.state.borrow_mut();
        let at = state.writes + nth;
        state.tricks.insert(at, trick);
    }

    /// Acknowledges the `nth` flush from now (0: the next) and does nothing.
    pub fn lie(&self, nth: u64) {
        let mut state = self.state.borrow_mut();
        let at = state.flushes + nth;
        state.lies.insert(at);
    }

    /// Answers the `nth` read from now (0: the next) with what it holds now.
    pub fn answer_stale(&self, nth: u64) {
        let mut state = self.state.borrow_mut();
        let (at, now) = (state.reads + nth, state.visible.clone());
        state.stale.insert(at, now);
    }

    /// What it holds, as readers see it.
    #[must_use]
    pub fn image(&self) -> Image {
        self.state.borrow().visible.clone()
    }

    /// What a power cut at this moment would find.
    #[must_use]
    pub fn unsettled(&self) -> Unsettled {
        let state = self.state.borrow();
        let writes = state.cached.iter().chain(&state.flying).cloned().collect();
        Unsettled {
            durable: state.durable.clone(),
            writes,
            complete: state.cached.len(),
            unit: self.unit,
        }
    }

    /// Sectors at which writes began, in order.
    #[must_use]
    pub fn written(&self) -> Vec<u64> {
        self.state.borrow().written.clone()
    }

    /// Requests served so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.get()
    }

    async fn work(&self, bio: &Bio) {
        let units = if bio.op.has_data() { bio.sectors() } else { 8 };
        let micros = self.power.driver().roll(|rng| 1 + rng.below(40) + rng.below(1 + units));
        let micros = if self.slow.get() { micros * 1000 } else { micros };
        runtime::sleep(Duration::from_micros(micros)).await;
        if self.power.is_off() {
            std::future::pending::<()>().await;
        }
    }

    fn refusal(&self) -> Option<IoErrorKind> {
        self.gone.get().then_some(IoErrorKind::Unavailable)
    }

    /// Where the medium does not take a write.
    fn refused(&self, bio: &Bio) -> Option<IoError> {
        let refused = self.state.borrow().visible.first_refused(bio.sector.0, bio.sectors());
        refused.map(|sector| IoErrorKind::Medium.at(Sector(sector)))
    }

    async fn read(&self, bio: &mut Bio) -> IoResult {
        self.work(bio).await;
        if let Some(kind) = self.refusal() {
            return Err(kind.at(bio.sector));
        }
        let mut state = self.state.borrow_mut();
        let nth = state.reads;
        state.reads += 1;
        let stale = state.stale.remove(&nth);
        let believed = self.believed(bio, &state);
        let image = stale.as_ref().or(believed.as_ref()).unwrap_or(&state.visible);
        if let Some(bad) = image.first_unreadable(bio.sector.0, bio.sectors()) {
            return Err(IoErrorKind::Medium.at(Sector(bad)));
        }
        let mut at = bio.sector.0;
        let whole = bio.data.iter().all(|piece| piece.len().is_multiple_of(SECTOR_BYTES));
        if whole {
            for piece in bio.data.iter_mut() {
                image.read(at, piece.as_mut_slice());
                at += u64_of(piece.len() / SECTOR_BYTES);
            }
        } else {
            let mut all = Buf::alloc(bio.data.len_bytes());
            image.read(at, all.as_mut_slice());
            bio.data.copy_from(0, all.as_slice());
        }
        if !bio.tags.is_empty() {
            let mut tags = vec![0; bio.tags.len_bytes()];
            image.read_tags(bio.sector.0, &mut tags);
            bio.tags.copy_from(0, &tags);
        }
        Ok(())
    }

    async fn write(&self, bio: &Bio, data: Rc<[u8]>, fua: bool) -> IoResult {
        let refusal = self.refusal().map(|kind| kind.at(bio.sector));
        if let Some(error) = refusal.or_else(|| self.refused(bio)) {
            self.work(bio).await;
            return Err(error);
        }
        let id = self.power.write_id();
        let (sector, tags) = (bio.sector.0, self.tags_of(bio));
        let write = self.tricked(Write { id, sector, data, tags, forced: false });
        if let Some(write) = &write {
            self.state.borrow_mut().flying.push(write.clone());
            self.power.boundary();
        }
        self.work(bio).await;
        let Some(mut write) = write else { return Ok(()) };
        let gone = self.gone.get();
        {
            let mut state = self.state.borrow_mut();
            state.flying.retain(|other| other.id != id);
            // A disk that left while the write was under way may have stored it or not.
            write.forced = fua && !gone;
            write.store(&mut state.visible);
            state.cached.push(write);
            state.fold(0);
        }
        self.power.boundary();
        if gone { Err(IoErrorKind::Unavailable.at(bio.sector)) } else { Ok(()) }
    }

    /// What the disk would hold if no write had gone astray: that is what a read sees that is to check
    /// whether one did, if it is left out.
    fn believed(&self, bio: &Bio, state: &State) -> Option<Image> {
        if bio.reason.is_empty() || state.astray.is_empty() || !self.orderings.omits(bio.reason) {
            return None;
        }
        let mut image = state.visible.clone();
        state.astray.iter().for_each(|write| write.store(&mut image));
        Some(image)
    }

    fn tricked(&self, write: Write) -> Option<Write> {
        let mut state = self.state.borrow_mut();
        let nth = state.writes;
        state.written.push(write.sector);
        state.writes += 1;
        let trick = state.tricks.remove(&nth);
        if trick.is_some() || !state.astray.is_empty() {
            state.astray.push(write.clone());
        }
        match trick {
            None => Some(write),
            Some(Trick::Lose) => None,
            Some(Trick::Misdirect(distance)) => {
                let last = self.limits.sectors - u64_of(write.data.len() / SECTOR_BYTES);
                let sector = (write.sector + distance) % (last + 1);
                Some(Write { sector, ..write })
            }
            Some(Trick::Tear(sectors)) => {
                let kept = (usize_of(sectors) * SECTOR_BYTES).min(write.data.len());
                let data: Rc<[u8]> = write.data[..kept].into();
                let blocks = kept / self.limits.logical_block.bytes();
                let tags: Rc<[u8]> = write.tags[..blocks * self.limits.tag_size].into();
                (kept > 0).then_some(Write { data, tags, ..write })
            }
        }
    }

    async fn flush(&self, bio: &Bio) -> IoResult {
        if let Some(kind) = self.refusal() {
            self.work(bio).await;
            return Err(kind.at(bio.sector));
        }
        // Only what is complete now is promised; what completes meanwhile is not.
        let (promised, lie) = {
            let mut state = self.state.borrow_mut();
            let nth = state.flushes;
            state.flushes += 1;
            (state.cached.last().map(|write| write.id), state.lies.remove(&nth))
        };
        self.power.boundary();
        self.work(bio).await;
        if self.gone.get() {
            return Err(IoErrorKind::Unavailable.at(bio.sector));
        }
        if self.orderings.honours(bio.reason) && !lie {
            let mut state = self.state.borrow_mut();
            // The list is in order of completion, so what precedes the last promised is promised
            // too; if that is gone, another flush has done it all.
            let last = state.cached.iter().position(|write| Some(write.id) == promised);
            let done = last.map_or(0, |last| last + 1);
            state.fold(done);
        }
        self.power.boundary();
        Ok(())
    }
}

impl State {
    /// Makes the first `promised` cached writes durable, and the forced ones that then lead.
    fn fold(&mut self, promised: usize) {
        let rest = &self.cached[promised..];
        let forced = rest.iter().take_while(|write| write.forced).count();
        for write in self.cached.drain(..promised + forced) {
            write.store(&mut self.durable);
        }
    }
}

impl BlockDevice for SimDisk {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    async fn submit(&self, bio: &mut Bio) -> IoResult {
        if self.power.is_off() {
            std::future::pending::<()>().await;
        }
        self.requests.set(self.requests.get() + 1);
        let result = match bio.op {
            Op::Read => self.read(bio).await,
            Op::Write { fua } => {
                let data = bytes_of(&bio.data);
                let named = fua && !bio.reason.is_empty();
                let fua = fua && (!named || self.orderings.honours(bio.reason));
                self.write(bio, data, fua).await
            }
            Op::Flush => self.flush(bio).await,
            Op::Discard { sectors } | Op::WriteZeroes { sectors, .. } => {
                let zeroes = vec![0; usize_of(Sector(sectors).bytes())];
                self.write(bio, zeroes.into(), false).await
            }
            Op::Vouch | Op::Peek { .. } => Err(IoErrorKind::Unsupported.at(bio.sector)),
        };
        self.note(bio, &result);
        result
    }
}

impl SimDisk {
    /// The metadata that a write leaves: its own, or zeroes.
    fn tags_of(&self, bio: &Bio) -> Rc<[u8]> {
        if !bio.tags.is_empty() {
            return bytes_of(&bio.tags);
        }
        let blocks = bio.sectors() / self.limits.logical_block.sectors();
        vec![0; usize_of(blocks) * self.limits.tag_size].into()
    }

    fn note(&self, bio: &Bio, result: &IoResult) {
        let op = match bio.op {
            Op::Read => 1,
            Op::Write { fua } => 2 + u64::from(fua),
            Op::Flush => 4,
            Op::Discard { .. } => 5,
            Op::WriteZeroes { .. } => 6,
            Op::Vouch | Op::Peek { .. } => 7,
        };
        let data = if result.is_ok() {
            let pieces = bio.data.iter().chain(bio.tags.iter());
            pieces.fold(0, |hash, piece| hash_bytes(hash, piece.as_slice()))
        } else {
            1
        };
        let status = result.map_or_else(|error| error.kind.errno().unsigned_abs(), |()| 0);
        let place = mix(self.index << 8 | op, mix(bio.sector.0, bio.sectors()));
        self.power.driver().note(mix(place, mix(data, u64::from(status))));
    }
}

fn bytes_of(data: &Segments) -> Rc<[u8]> {
    match data.contiguous() {
        Some(bytes) => bytes.into(),
        None => data.to_single().as_slice().into(),
    }
}
