//! The bits of a bitmap: set, cleared, counted, walked, and where a new one goes.

use super::{
    AREA_BYTES_MAX, BitmapError, BitmapHeader, CHUNK_BYTES, CHUNK_BYTES_MIN, DAEMON_SLEEP_SECONDS,
    HEADER_BYTES, MAGIC, Raw, STATE_STALE, STATE_WRITE_ERROR,
};
use crate::create::bitmap_space;
use crate::superblock::{Level, Minor, Superblock};
use std::ops::Range;
use units::{SECTOR, u64_of, usize_of};
use zerocopy::FromZeros;

/// What a new bitmap covers, and where it goes.
#[derive(Clone, Copy, Debug)]
pub struct NewBitmap<'a> {
    /// The superblock of an array that says where its bitmap lies.
    pub superblock: &'a Superblock,
    /// Bytes from there to whatever comes next; see [`Superblock::bitmap_room`].
    pub room_bytes: u64,
    /// Bytes of a chunk; none: 64 MiB, or as many as make it fit.
    pub chunk_bytes: Option<u32>,
    /// What each bit is at first: set, if nothing is known to be in sync.
    pub dirty: bool,
}

/// A bitmap: header, bits, and whatever follows them in its area.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bitmap {
    header: BitmapHeader,
    /// As it lies on the member; the header in it is written on encoding.
    area: Vec<u8>,
}

impl Bitmap {
    /// The bitmap at the start of `area`, which may be longer than it.
    ///
    /// # Errors
    /// [`BitmapError`]. How much has to be read says the header.
    pub fn decode(area: Vec<u8>) -> Result<Self, BitmapError> {
        let header = BitmapHeader::decode(&area)?;
        let (needed, room) = (header.area_bytes(), u64_of(area.len()));
        if needed > room {
            return Err(BitmapError::Room { needed, room });
        }
        Ok(Self { header, area })
    }

    /// A new one (section 6), in an area that ends with the last byte of bits. What is left of that
    /// byte is filled with ones, as mdadm fills it.
    ///
    /// # Errors
    /// `Chunk`: not a power of two of at least [`CHUNK_BYTES_MIN`]. `Room`: it does not fit.
    pub fn new(new: &NewBitmap<'_>) -> Result<Self, BitmapError> {
        let (superblock, room) = (new.superblock, new.room_bytes);
        let sectors = superblock.bitmap_sectors();
        let needed = |chunk: u32| {
            let bits = sectors.div_ceil(u64::from(chunk) / SECTOR);
            u64_of(HEADER_BYTES) + bits.div_ceil(8)
        };
        let mut chunk = new.chunk_bytes.unwrap_or(CHUNK_BYTES);
        if !chunk.is_power_of_two() || chunk < CHUNK_BYTES_MIN {
            return Err(BitmapError::Chunk { found: chunk });
        }
        while new.chunk_bytes.is_none() && needed(chunk) > room && chunk < 1 << 31 {
            chunk *= 2;
        }
        if needed(chunk) > room.min(AREA_BYTES_MAX) {
            return Err(BitmapError::Room { needed: needed(chunk), room });
        }
        let mut raw = Raw::new_zeroed();
        raw.magic = MAGIC.into();
        raw.version = 4.into();
        raw.uuid = superblock.set_uuid().0;
        raw.events = superblock.events().into();
        raw.events_cleared = superblock.events().into();
        raw.sync_size = sectors.into();
        raw.chunksize = chunk.into();
        raw.daemon_sleep = DAEMON_SLEEP_SECONDS.into();
        let area = vec![0xFF; usize_of(needed(chunk))];
        let mut made = Self { header: BitmapHeader { raw }, area };
        made.fill(new.dirty);
        Ok(made)
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &BitmapHeader {
        &self.header
    }

    /// Bytes of the area.
    #[must_use]
    pub fn area_bytes(&self) -> usize {
        self.area.len()
    }

    /// The bytes `range` of the area, as they belong on the member.
    ///
    /// # Panics
    /// If the range leaves the area.
    #[must_use]
    pub fn encode(&self, range: Range<usize>) -> Vec<u8> {
        let mut bytes = self.area[range.clone()].to_vec();
        let own = self.header.encode();
        if range.start < HEADER_BYTES {
            let end = range.end.min(HEADER_BYTES);
            bytes[..end - range.start].copy_from_slice(&own[range.start..end]);
        }
        bytes
    }

    /// Makes the area longer, with ones as mdadm has them, up to a multiple of `unit` bytes.
    ///
    /// # Panics
    /// If `unit` is zero.
    pub fn pad_to(&mut self, unit: usize) {
        self.area.resize(self.area.len().next_multiple_of(unit), 0xFF);
    }

    /// Sets the event count of the array.
    pub fn set_events(&mut self, events: u64) {
        self.header.raw.events = events.into();
    }

    /// Sets since which event no bit was cleared while a member was missing.
    pub fn set_events_cleared(&mut self, events: u64) {
        self.header.raw.events_cleared = events.into();
    }

    /// Says that its bits may be believed.
    pub fn set_sound(&mut self) {
        let state = self.header.state() & !(STATE_STALE | STATE_WRITE_ERROR);
        self.header.raw.state = state.into();
    }

    /// Says how long, in seconds, half of the time is that a chunk is left alone before its bit goes.
    pub fn set_daemon_sleep(&mut self, seconds: u32) {
        self.header.raw.daemon_sleep = seconds.into();
    }

    /// Sets or clears every bit.
    pub fn fill(&mut self, dirty: bool) {
        self.change(0..self.header.bit_count(), dirty);
    }

    /// Whether each bit is about the same chunk as in `other`.
    #[must_use]
    pub fn covers_as(&self, other: &Self) -> bool {
        let (own, other) = (&self.header, &other.header);
        own.sync_sectors() == other.sync_sectors() && own.chunk_bytes() == other.chunk_bytes()
    }

    /// Takes over the bits that are set in `other`, which covers the same chunks.
    ///
    /// # Panics
    /// If it covers others.
    pub fn join(&mut self, other: &Self) {
        assert!(self.covers_as(other), "bitmaps of one array");
        let (whole, tail) = self.split();
        let end = HEADER_BYTES + whole;
        let bits = self.area[HEADER_BYTES..end].iter_mut().zip(&other.area[HEADER_BYTES..end]);
        bits.for_each(|(own, other)| *own |= other);
        if tail > 0 {
            self.area[end] |= other.area[end] & ((1 << tail) - 1);
        }
    }

    /// The chunks that `sectors` touch, of those that there are.
    #[must_use]
    pub fn chunks(&self, sectors: &Range<u64>) -> Range<u64> {
        let each = self.header.chunk_sectors();
        let end = sectors.end.div_ceil(each).min(self.header.bit_count());
        if sectors.is_empty() { end..end } else { (sectors.start / each).min(end)..end }
    }

    /// The sectors of these chunks, of those that the bitmap covers.
    #[must_use]
    pub fn sectors(&self, chunks: &Range<u64>) -> Range<u64> {
        let (each, end) = (self.header.chunk_sectors(), self.header.sync_sectors());
        chunks.start.saturating_mul(each).min(end)..chunks.end.saturating_mul(each).min(end)
    }

    /// Sets the bits of these chunks. Gives the bytes of the area that changed, if any did.
    ///
    /// # Panics
    /// If there are no such chunks.
    pub fn set(&mut self, chunks: Range<u64>) -> Option<Range<usize>> {
        self.change(chunks, true)
    }

    /// Clears the bits of these chunks. Gives the bytes of the area that changed, if any did.
    ///
    /// # Panics
    /// If there are no such chunks.
    pub fn clear(&mut self, chunks: Range<u64>) -> Option<Range<usize>> {
        self.change(chunks, false)
    }

    /// Whether every one of these chunks is dirty.
    #[must_use]
    pub fn is_set(&self, chunks: &Range<u64>) -> bool {
        self.run_end(chunks.start, chunks.end, true) == chunks.end
    }

    /// How many chunks are dirty.
    #[must_use]
    pub fn dirty_count(&self) -> u64 {
        let (whole, tail) = self.split();
        let end = HEADER_BYTES + whole;
        let bits = self.area[HEADER_BYTES..end].iter();
        let set: u64 = bits.map(|byte| u64::from(byte.count_ones())).sum();
        let rest = if tail == 0 { 0 } else { self.area[end] & ((1 << tail) - 1) };
        set + u64::from(rest.count_ones())
    }

    /// The dirty chunks, in runs.
    pub fn dirty(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let (count, mut at) = (self.header.bit_count(), 0);
        std::iter::from_fn(move || {
            let start = self.run_end(at, count, false);
            at = self.run_end(start, count, true);
            (start < at).then_some(start..at)
        })
    }

    /// The dirty sectors, in runs.
    pub fn dirty_sectors(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.dirty().map(|chunks| self.sectors(&chunks))
    }

    /// Whole bytes of bits, and bits of the last one that mean something.
    fn split(&self) -> (usize, u32) {
        let count = self.header.bit_count();
        let tail = u32::try_from(count % 8).expect("less than eight");
        (usize_of(count / 8), tail)
    }

    fn bit(&self, chunk: u64) -> bool {
        self.area[HEADER_BYTES + usize_of(chunk / 8)] >> (chunk % 8) & 1 == 1
    }

    /// Where from `chunk` on the first bit before `end` is not `set`; `end` if there is none.
    fn run_end(&self, mut chunk: u64, end: u64, set: bool) -> u64 {
        let same = if set { 0xFF } else { 0 };
        while chunk < end {
            let byte = self.area[HEADER_BYTES + usize_of(chunk / 8)];
            if chunk.is_multiple_of(8) && byte == same {
                chunk = (chunk + 8).min(end);
            } else if self.bit(chunk) == set {
                chunk += 1;
            } else {
                return chunk;
            }
        }
        end
    }

    fn change(&mut self, chunks: Range<u64>, set: bool) -> Option<Range<usize>> {
        assert!(chunks.end <= self.header.bit_count(), "chunks {chunks:?} are covered");
        let mut changed: Option<Range<usize>> = None;
        let mut at = chunks.start;
        while at < chunks.end {
            let next = (at / 8 * 8 + 8).min(chunks.end);
            let mask = (at..next).fold(0u8, |mask, bit| mask | 1 << (bit % 8));
            let place = HEADER_BYTES + usize_of(at / 8);
            let before = self.area[place];
            let after = if set { before | mask } else { before & !mask };
            if before != after {
                self.area[place] = after;
                changed = Some(changed.map_or(place, |run| run.start)..place + 1);
            }
            at = next;
        }
        changed
    }
}

impl Superblock {
    /// Sectors that a write-intent bitmap of the array covers: of each member, or of the array for
    /// RAID 10.
    #[must_use]
    pub fn bitmap_sectors(&self) -> u64 {
        match self.level() {
            Level::Raid10 => {
                self.mirrors().and_then(Result::ok).map_or(0, |mirrors| mirrors.array_sectors())
            }
            _ => self.size(),
        }
    }

    /// Says that a bitmap lies where mdadm puts one on a member of `device_sectors` sectors: right
    /// behind the superblock, or for 1.0 before the bad block log (section 6).
    pub fn place_bitmap(&mut self, device_sectors: u64) {
        let behind = 8;
        let before = || i32::try_from(bitmap_space(device_sectors)).map_or(0, |space| -space - 8);
        self.set_bitmap_offset(if self.minor() == Minor::V0 { before() } else { behind });
    }

    /// Bytes from the start of the bitmap to whatever comes next on a member of `device_sectors`
    /// sectors: superblock, data, bad block log or its end; at most [`AREA_BYTES_MAX`]. `None`
    /// without a bitmap.
    #[must_use]
    pub fn bitmap_room(&self, device_sectors: u64) -> Option<u64> {
        let start = self.bitmap_sector()?;
        let log = self.bad_block_log().map(|log| log.sector);
        let next = [self.super_offset(), self.data_offset()].into_iter().chain(log);
        let next = next.map(|sector| sector.0).filter(|&sector| sector > start.0);
        let end = next.chain([device_sectors]).min().unwrap_or(device_sectors);
        let sectors = end.saturating_sub(start.0).min(AREA_BYTES_MAX / SECTOR);
        Some(sectors * SECTOR)
    }
}
