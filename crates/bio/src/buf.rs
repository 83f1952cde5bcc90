//! Memory that requests move: aligned, refcounted, splittable.
//!
//! A [`Buf`] is a range of an allocation. It is *exclusive* (no other handle overlaps it: it may be
//! filled) or *shared* (it may only be read). Cloning makes both handles shared; splitting keeps
//! exclusiveness, since the halves do not overlap. So a read's segments can be handed out piecewise
//! to members and rejoined, and a write's are frozen by the first clone: parity and mirrors copy
//! nothing.
//!
//! Allocations are aligned to 4096 bytes, so that they suit direct I/O, and are kept for reuse per
//! thread: fresh memory costs a page fault per page.
#![allow(unsafe_code, reason = "the home of raw buffer memory")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::ptr::NonNull;
use std::rc::Rc;

/// Alignment of every allocation, in bytes.
pub(crate) const ALIGNMENT: usize = 4096;
const CLASSES: usize = 14; // 4 KiB .. 32 MiB
/// Kept for reuse: what a busy connection has under way, but little beside a server's budget.
const POOL_BYTES_MAX: usize = 32 << 20;

struct Memory {
    start: NonNull<u8>,
    capacity: usize,
}

#[derive(Default)]
struct Pool {
    free: [Vec<NonNull<u8>>; CLASSES],
    bytes: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::new(Pool::default());
}

fn class_of(capacity: usize) -> Option<usize> {
    let class = usize::try_from((capacity / ALIGNMENT).trailing_zeros()).ok()?;
    (capacity.is_power_of_two() && class < CLASSES).then_some(class)
}

fn layout_of(capacity: usize) -> Layout {
    Layout::from_size_align(capacity, ALIGNMENT).expect("a buffer is far smaller than isize::MAX")
}

impl Memory {
    fn new(length: usize, zeroed: bool) -> Self {
        let largest = ALIGNMENT << (CLASSES - 1);
        let capacity = if length <= largest {
            length.max(ALIGNMENT).next_power_of_two()
        } else {
            length.next_multiple_of(ALIGNMENT)
        };
        if let Some(class) = class_of(capacity) {
            let reused = POOL.with_borrow_mut(|pool| {
                let start = pool.free[class].pop()?;
                pool.bytes -= capacity;
                Some(start)
            });
            if let Some(start) = reused {
                if zeroed {
                    // SAFETY: the pool owns `capacity >= length` writable bytes at `start`.
                    unsafe { start.write_bytes(0, length) };
                }
                return Self { start, capacity };
            }
        }
        let layout = layout_of(capacity);
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { start, capacity }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(class) = class_of(self.capacity) {
            let kept = POOL.try_with(|pool| {
                let mut pool = pool.borrow_mut();
                let fits = pool.bytes + self.capacity <= POOL_BYTES_MAX;
                if fits {
                    pool.bytes += self.capacity;
                    pool.free[class].push(self.start);
                }
                fits
            });
            if kept == Ok(true) {
                return;
            }
        }
        // SAFETY: allocated in `new` with this very layout; nobody else holds it any more.
        unsafe { dealloc(self.start.as_ptr(), layout_of(self.capacity)) };
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for (class, free) in self.free.iter_mut().enumerate() {
            for start in free.drain(..) {
                // SAFETY: allocated in `Memory::new` with the layout of its class.
                unsafe { dealloc(start.as_ptr(), layout_of(ALIGNMENT << class)) };
            }
        }
    }
}

/// A range of an allocation; see the module's head.
pub struct Buf {
    memory: Rc<Memory>,
    start: usize,
    length: usize,
    exclusive: Cell<bool>,
}

impl Buf {
    /// `length` bytes of unspecified content, exclusive. Use it for what will be overwritten whole.
    #[must_use]
    pub fn alloc(length: usize) -> Self {
        Self::of(Memory::new(length, false), length)
    }

    /// `length` zeroes, exclusive.
    #[must_use]
    pub fn zeroed(length: usize) -> Self {
        Self::of(Memory::new(length, true), length)
    }

    /// A copy of `bytes`, exclusive.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buf = Self::alloc(bytes.len());
        buf.as_mut_slice().copy_from_slice(bytes);
        buf
    }

    fn of(memory: Memory, length: usize) -> Self {
        Self { memory: Rc::new(memory), start: 0, length, exclusive: Cell::new(true) }
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the range lies in the allocation, is initialised, and no exclusive handle other
        // than this one overlaps it.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.length) }
    }

    /// The bytes, to be filled.
    ///
    /// # Panics
    /// If the buffer is shared: whoever cloned it relies on its content.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        assert!(self.make_exclusive(), "only an exclusive buffer can be filled");
        // SAFETY: as above, and no other handle overlaps this range.
        unsafe { std::slice::from_raw_parts_mut(self.as_ptr().cast_mut(), self.length) }
    }

    /// Address of the first byte, for whoever hands it to the kernel. Writing through it is only
    /// right while the buffer is exclusive.
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        // SAFETY: `start` lies within the allocation.
        unsafe { self.memory.start.as_ptr().add(self.start) }
    }

    /// Whether nobody else can read these bytes; a shared buffer whose other handles are all gone
    /// becomes exclusive again.
    #[must_use]
    pub fn make_exclusive(&mut self) -> bool {
        if !self.exclusive.get() && Rc::strong_count(&self.memory) == 1 {
            self.exclusive.set(true);
        }
        self.exclusive.get()
    }

    /// Cuts the buffer at `at` and returns the tail. Exclusiveness stays as it is.
    ///
    /// # Panics
    /// If `at` is beyond the end.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Self {
        assert!(at <= self.length, "the cut lies within the buffer");
        let tail = Self {
            memory: Rc::clone(&self.memory),
            start: self.start + at,
            length: self.length - at,
            exclusive: self.exclusive.clone(),
        };
        self.length = at;
        tail
    }

    /// Undoes [`Self::split_off`]: appends `tail` if it directly follows in the same allocation.
    ///
    /// # Errors
    /// Gives `tail` back if it does not.
    pub fn unsplit(&mut self, tail: Self) -> Result<(), Self> {
        let follows = Rc::ptr_eq(&self.memory, &tail.memory)
            && self.start + self.length == tail.start
            && self.exclusive == tail.exclusive;
        if !follows {
            return Err(tail);
        }
        self.length += tail.length;
        Ok(())
    }

    /// A shared handle on `range` (bytes); this one becomes shared too.
    ///
    /// # Panics
    /// If the range is not within the buffer.
    #[must_use]
    pub fn slice(&self, range: std::ops::Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.length, "the range lies within");
        let mut slice = self.clone();
        slice.start += range.start;
        slice.length = range.end - range.start;
        slice
    }
}

impl Clone for Buf {
    /// A second handle on the same bytes. Both become shared.
    fn clone(&self) -> Self {
        self.exclusive.set(false);
        Self {
            memory: Rc::clone(&self.memory),
            start: self.start,
            length: self.length,
            exclusive: Cell::new(false),
        }
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Buf({} bytes{})",
            self.length,
            if self.exclusive.get() { "" } else { ", shared" }
        )
    }
}

/// A list of buffers that together are the bytes of a request.
#[derive(Clone, Debug, Default)]
pub struct Segments(Vec<Buf>);

impl Segments {
    /// Bytes in all.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.0.iter().map(Buf::len).sum()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len_bytes() == 0
    }

    /// The buffers, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Buf> {
        self.0.iter()
    }

    /// The buffers, to be filled.
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, Buf> {
        self.0.iter_mut()
    }

    /// Appends a buffer, joining it to the last if it directly follows.
    pub fn push(&mut self, buf: Buf) {
        if buf.is_empty() {
            return;
        }
        let left = match self.0.last_mut() {
            Some(last) => last.unsplit(buf),
            None => Err(buf),
        };
        if let Err(buf) = left {
            self.0.push(buf);
        }
    }

    /// Appends all of `other`.
    pub fn append(&mut self, other: Self) {
        for buf in other.0 {
            self.push(buf);
        }
    }

    /// Cuts at byte `at` and returns the tail.
    ///
    /// # Panics
    /// If `at` is beyond the end.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Self {
        let mut at = at;
        for index in 0..self.0.len() {
            let length = self.0[index].len();
            if at < length {
                let mut tail = Vec::with_capacity(self.0.len() - index);
                let cut = self.0[index].split_off(at);
                tail.push(cut);
                tail.extend(self.0.drain(index + 1..));
                if at == 0 {
                    self.0.truncate(index);
                }
                return Self(tail);
            }
            at -= length;
        }
        assert!(at == 0, "the cut lies within the segments");
        Self::default()
    }

    /// Shared handles on `range` (bytes).
    ///
    /// # Panics
    /// If the range is not within.
    #[must_use]
    pub fn slice(&self, range: std::ops::Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len_bytes(), "the range lies within");
        let (mut skip, mut left) = (range.start, range.end - range.start);
        let mut slice = Self::default();
        for buf in &self.0 {
            if left == 0 {
                break;
            }
            if skip >= buf.len() {
                skip -= buf.len();
                continue;
            }
            let take = left.min(buf.len() - skip);
            slice.0.push(buf.slice(skip..skip + take));
            skip = 0;
            left -= take;
        }
        slice
    }

    /// The bytes, if they lie in one piece.
    #[must_use]
    pub fn contiguous(&self) -> Option<&[u8]> {
        match self.0.as_slice() {
            [] => Some(&[]),
            [only] => Some(only.as_slice()),
            _ => None,
        }
    }

    /// The bytes in one buffer: the only one as it is, or a copy.
    #[must_use]
    pub fn into_single(mut self) -> Buf {
        match self.0.len() {
            0 => Buf::alloc(0),
            1 => self.0.remove(0),
            _ => self.to_single(),
        }
    }

    /// The bytes copied into one new buffer, or a shared handle if there is only one.
    #[must_use]
    pub fn to_single(&self) -> Buf {
        if let [only] = self.0.as_slice() {
            return only.clone();
        }
        let mut buf = Buf::alloc(self.len_bytes());
        self.copy_to(0, buf.as_mut_slice());
        buf
    }

    /// Copies the bytes from `offset` on into `target`.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn copy_to(&self, offset: usize, target: &mut [u8]) {
        let (mut skip, mut filled) = (offset, 0);
        for buf in &self.0 {
            if skip >= buf.len() {
                skip -= buf.len();
                continue;
            }
            let take = (target.len() - filled).min(buf.len() - skip);
            target[filled..filled + take].copy_from_slice(&buf.as_slice()[skip..skip + take]);
            filled += take;
            skip = 0;
            if filled == target.len() {
                break;
            }
        }
        assert!(filled == target.len(), "the range lies within the segments");
    }

    /// Copies `source` over the bytes from `offset` on.
    ///
    /// # Panics
    /// If there are not as many, or a buffer concerned is shared.
    pub fn copy_from(&mut self, offset: usize, source: &[u8]) {
        let (mut skip, mut taken) = (offset, 0);
        for buf in &mut self.0 {
            if taken == source.len() {
                break;
            }
            if skip >= buf.len() {
                skip -= buf.len();
                continue;
            }
            let take = (source.len() - taken).min(buf.len() - skip);
            buf.as_mut_slice()[skip..skip + take].copy_from_slice(&source[taken..taken + take]);
            taken += take;
            skip = 0;
        }
        assert!(taken == source.len(), "the range lies within the segments");
    }

    /// Calls `visit` with each block of `block` bytes in turn; blocks that straddle two buffers are
    /// copied into a scratch first. Stops at the first error.
    ///
    /// # Errors
    /// What `visit` says.
    ///
    /// # Panics
    /// If the length is not a whole number of blocks.
    pub fn try_each_block<E>(
        &self,
        block: usize,
        mut visit: impl FnMut(usize, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let length = self.len_bytes();
        assert!(length.is_multiple_of(block), "the data is whole blocks");
        if let Some(bytes) = self.contiguous() {
            return bytes.chunks_exact(block).enumerate().try_for_each(|(i, b)| visit(i, b));
        }
        let mut scratch = vec![0; block];
        for index in 0..length / block {
            self.copy_to(index * block, &mut scratch);
            visit(index, &scratch)?;
        }
        Ok(())
    }
}

impl From<Buf> for Segments {
    fn from(buf: Buf) -> Self {
        Self(vec![buf])
    }
}

impl From<Vec<Buf>> for Segments {
    fn from(bufs: Vec<Buf>) -> Self {
        Self(bufs)
    }
}

impl FromIterator<Buf> for Segments {
    fn from_iter<I: IntoIterator<Item = Buf>>(bufs: I) -> Self {
        Self(bufs.into_iter().collect())
    }
}

impl IntoIterator for Segments {
    type Item = Buf;
    type IntoIter = std::vec::IntoIter<Buf>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(length: u8) -> Buf {
        Buf::copy_of(&(0..length).collect::<Vec<_>>())
    }

    #[test]
    fn halves_of_an_exclusive_buffer_are_filled_apart_and_rejoined() {
        let mut head = Buf::zeroed(8192);
        let mut tail = head.split_off(4096);
        tail.as_mut_slice().fill(2);
        head.as_mut_slice().fill(1);
        head.unsplit(tail).unwrap();
        assert!(head.make_exclusive());
        assert_eq!((head.as_slice()[4095], head.as_slice()[4096]), (1, 2));
    }

    #[test]
    #[should_panic(expected = "only an exclusive buffer")]
    fn a_cloned_buffer_cannot_be_filled() {
        let mut buf = Buf::zeroed(512);
        let _other = buf.clone();
        buf.as_mut_slice().fill(1);
    }

    #[test]
    fn the_last_handle_is_exclusive_again() {
        let mut buf = Buf::zeroed(512);
        drop(buf.clone());
        buf.as_mut_slice().fill(1);
    }

    #[test]
    fn reused_memory_is_zeroed_when_asked() {
        let mut buf = Buf::alloc(4096);
        buf.as_mut_slice().fill(0xa5);
        drop(buf);
        assert!(Buf::zeroed(4096).as_slice().iter().all(|&b| b == 0));
    }

    #[test]
    fn segments_cut_anywhere_keep_their_bytes() {
        let all: Vec<u8> = (0..30).collect();
        for at in 0..=30 {
            let mut head = counted(30);
            let mut tail = head.split_off(10);
            let last = tail.split_off(7);
            let mut segments = Segments::from(vec![head, Buf::copy_of(tail.as_slice()), last]);
            let rest = segments.split_off(at);
            assert_eq!(segments.to_single().as_slice(), &all[..at], "cut at {at}");
            assert_eq!(rest.to_single().as_slice(), &all[at..], "cut at {at}");
            segments.append(rest);
            assert_eq!(segments.slice(5..25).to_single().as_slice(), &all[5..25]);
        }
    }

    #[test]
    fn blocks_that_straddle_buffers_are_seen_whole() {
        let segments = Segments::from(vec![counted(6), counted(6)]);
        let mut seen = Vec::new();
        let result: Result<(), ()> = segments.try_each_block(4, |index, block| {
            seen.push((index, block.to_vec()));
            Ok(())
        });
        assert_eq!(result, Ok(()));
        assert_eq!(seen[1], (1, vec![4, 5, 0, 1]));
    }
}
