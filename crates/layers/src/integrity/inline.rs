//! Inline: a block's tag lies in the metadata that the device keeps for that block, and the device
//! writes both as one.
//!
//! ```text
//!   a write ---> data, tuples ---> the device       one request
//!   a read  <--- data, tuples <--- the device       one request, then compared
//!
//!   tuple    | tag | zeroes |       as many bytes as the device keeps for each block
//! ```
//!
//! There is no journal, no bitmap and no place for tags: the volume's sector n is sector 8 + n of the
//! device, behind the superblock (which is read and written without tags). A tag's padding, and what
//! follows it in the tuple, is written as zeroes and not looked at (specification, sections 5 and 8).
//!
//! # What a crash leaves
//!
//! 1. A write is on its way. Crash: each of its blocks is old or new, data and tag alike.
//! 2. It is complete. Crash: the same, until
//! 3. the device was flushed, or the write was one with FUA. Crash: new.
//!
//! That rests on one assumption about the device: *a block and its metadata are one write to it*, as on
//! disks whose sectors have 520 or 4104 bytes, and as [`bio::Bio`] asks of every device with metadata. A
//! device that tears them apart costs the block, which is then unreadable until it is written again;
//! never more.
//!
//! What this mode gives up: a write that the device acknowledges and loses takes data and tag together.
//! What was there before still has its own tag, and nobody notices. Where the tag has a place of its
//! own, that takes two such losses.
//!
//! Zeroing writes zeroes with their tags: a device that zeroes or discards a block by itself forgets its
//! metadata too, and the block would be unreadable. So discards are refused, as the kernel does.

use super::ordering::INLINE_CLOSE;
use super::{Inner, Journal, Lower, OpenError, Options};
use ::integrity::open::{Mode, Refusal};
use ::integrity::{Flags, Layout, Run, Superblock};
use bio::{Bio, Buf, Device, IoError, IoErrorKind, IoResult, Limits, Segments};
use std::cell::Cell;
use units::{BlockSize, SECTOR, Sector, usize_of};

/// Metadata that is used of each block, at most (specification, section 8).
pub const TUPLE_BYTES_MAX: usize = 2048;

/// Why inline tags cannot lie on a device.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InlineError {
    /// It keeps nothing beside its blocks.
    #[error("inline tags lie in the metadata of each block, and this device keeps none")]
    NoMetadata,
    /// It keeps too little.
    #[error(
        "inline tags have {tag} bytes, and this device keeps {device} bytes of metadata for each \
         block"
    )]
    TooSmall {
        /// Bytes of a tag.
        tag: usize,
        /// Bytes that the device keeps.
        device: usize,
    },
    /// It keeps more than any kernel takes.
    #[error(
        "this device keeps {device} bytes of metadata for each block, inline tags lie in at most \
         {TUPLE_BYTES_MAX}"
    )]
    TooLarge {
        /// Bytes that the device keeps.
        device: usize,
    },
    /// It keeps them for other blocks.
    #[error(
        "inline tags are for blocks of {block} bytes, and this device keeps metadata for each \
         {device}"
    )]
    Interval {
        /// The volume's block.
        block: BlockSize,
        /// The device's.
        device: BlockSize,
    },
}

/// Whether tags of `tag_bytes` for blocks of `block` can lie in the metadata of a device with `limits`
/// (specification, section 8).
///
/// # Errors
/// [`InlineError`].
pub fn inline_fits(limits: &Limits, block: BlockSize, tag_bytes: usize) -> Result<(), InlineError> {
    let device = limits.tag_size;
    if device == 0 {
        return Err(InlineError::NoMetadata);
    }
    if limits.logical_block != block {
        return Err(InlineError::Interval { block, device: limits.logical_block });
    }
    if device < tag_bytes {
        return Err(InlineError::TooSmall { tag: tag_bytes, device });
    }
    if device > TUPLE_BYTES_MAX {
        return Err(InlineError::TooLarge { device });
    }
    Ok(())
}

/// Reads the data and the tags of a piece of a volume with inline tags, which need not be open and of
/// which nothing is verified. `device` must be such that [`inline_fits`].
///
/// # Errors
/// What the device says, at its own sectors.
pub async fn read_inline(device: &Device, layout: &Layout, run: &Run) -> IoResult<(Buf, Vec<u8>)> {
    let data = Buf::alloc(usize_of(Sector(run.sectors).bytes()));
    let (result, data, tags) = fetch(device, layout, run, data.into(), false).await;
    result.map(|()| (data.into_single(), tags))
}

/// Writes `data`, whole blocks, with their `tags` to the volume that `layout` describes on `device`, of
/// which nobody has it open. Not durable yet.
///
/// # Errors
/// As [`read_inline`].
pub async fn write_inline(
    device: &Device,
    layout: &Layout,
    run: &Run,
    data: impl Into<Segments>,
    tags: &[u8],
) -> IoResult {
    let tuples = tuples(tags, layout.tag_bytes, device.limits().tag_size);
    device.submit(&mut Bio::write(run.data, data).tagged(tuples)).await
}

/// Whether a volume can be opened so on `lower`, if its tags are inline or were said to be.
///
/// # Errors
/// [`OpenError::Refused`] and [`OpenError::Inline`], each with its own line.
pub(super) fn admit(
    superblock: &Superblock,
    lower: &Lower,
    options: &Options,
) -> Result<(), OpenError> {
    let stored = superblock.flags.has(Flags::INLINE);
    match options.mode {
        // The kernel has no such thing; here it only means that nothing need be verified.
        None | Some(Mode::Recovery) => {}
        Some(mode) if (mode == Mode::Inline) == stored => {}
        Some(mode) => return Err(Refusal::Inline { stored, mode }.into()),
    }
    if !stored {
        return Ok(());
    }
    let keys = &options.journal;
    let excluded = [
        (lower.data.is_some(), "a metadata device"),
        (superblock.flags.has(Flags::JOURNAL_MAC) || keys.mac.is_some(), "a journal MAC"),
        (keys.cipher.is_some(), "an encrypted journal"),
        (options.damaged_journal.is_some(), "mending a journal"),
        (options.allow_discards, "discarding"),
    ];
    if let Some((_, what)) = excluded.into_iter().find(|(asked, _)| *asked) {
        return Err(Refusal::InlineWith { what }.into());
    }
    let (block, tag_bytes) = (superblock.block, usize::from(superblock.tag_size));
    Ok(inline_fits(lower.data().limits(), block, tag_bytes)?)
}

/// What writing with inline tags has to remember.
#[derive(Default)]
pub(super) struct Inline {
    /// The device lost track of what is durable: nothing more can be promised.
    failed: Cell<Option<IoErrorKind>>,
    /// No more writes are taken.
    closing: Cell<bool>,
}

impl Inline {
    fn check(&self, sector: Sector) -> IoResult {
        match self.failed.get() {
            Some(kind) => Err(kind.at(sector)),
            None if self.closing.get() => Err(IoErrorKind::Unavailable.at(sector)),
            None => Ok(()),
        }
    }

    /// From now on nothing is promised.
    pub fn fail(&self, kind: IoErrorKind) {
        self.failed.set(self.failed.get().or(Some(kind)));
    }
}

impl Inner {
    /// Reads data and tags of one run at once.
    pub(super) async fn fetch_inline(
        &self,
        run: &Run,
        data: Segments,
        bypass: bool,
    ) -> (IoResult, Segments, Vec<u8>) {
        let (result, data, mut tags) = fetch(self.data(), &self.layout, run, data, bypass).await;
        // A tag's padding is not looked at: it counts as what it should be.
        let digest = self.hash().algorithm().digest_len();
        if digest < self.layout.tag_bytes {
            tags.chunks_exact_mut(self.layout.tag_bytes).for_each(|tag| tag[digest..].fill(0));
        }
        (result.map_err(|error| self.at_home(run, error)), data, tags)
    }

    /// Stores the data of `bio`, a write; durable when complete if it asks for that.
    pub(super) async fn write_inline(&self, inline: &Inline, bio: &Bio) -> IoResult {
        let (sector, sectors) = (bio.sector, bio.sectors());
        let tags = self.tags_of(sector, &bio.data);
        let tuples = tuples(&tags, self.layout.tag_bytes, self.data().limits().tag_size);
        // Whoever looks twice at a block must not see it change (a device may be read while it writes).
        let _held = self.home.lock(sector.0..(sector + sectors).0).await;
        inline.check(sector)?;
        self.forget_told(sector.0, sectors);
        let run = self.layout.run(sector, sectors);
        let mut below = Bio::write(run.data, bio.data.clone()).tagged(tuples).because(bio.reason);
        below.op = bio.op;
        let written = self.data().submit(&mut below).await;
        written.map_err(|error| self.at_home(&run, error))
    }

    /// Stores zeroes, with their tags.
    pub(super) async fn zero_inline(
        &self,
        inline: &Inline,
        sector: Sector,
        sectors: u64,
    ) -> IoResult {
        let zeroes =
            Segments::from(Buf::zeroed(usize_of(Sector(sectors.min(STEP_SECTORS)).bytes())));
        for from in (0..sectors).step_by(usize_of(STEP_SECTORS)) {
            let length = usize_of(Sector((sectors - from).min(STEP_SECTORS)).bytes());
            let piece = Bio::write(sector + from, zeroes.slice(0..length));
            self.write_inline(inline, &piece).await?;
        }
        Ok(())
    }

    /// Makes everything durable that was written before this call, for the `reason` of whoever is above:
    /// nothing in here counts on an order.
    pub(super) async fn flush_inline(&self, inline: &Inline, reason: &'static str) -> IoResult {
        inline.check(Sector::ZERO)?;
        self.flush_device(inline, reason).await
    }

    /// Takes no more writes, and makes everything durable.
    pub(super) async fn close_inline(&self, inline: &Inline) -> IoResult {
        if inline.closing.replace(true) {
            return Ok(());
        }
        // Whoever writes holds home; who comes later finds it closing.
        drop(self.home.lock(0..self.layout.provided_sectors).await);
        inline.failed.get().map_or(Ok(()), |kind| Err(kind.at(Sector::ZERO)))?;
        self.flush_device(inline, INLINE_CLOSE).await
    }

    async fn flush_device(&self, inline: &Inline, reason: &'static str) -> IoResult {
        let flushed = self.data().flush_for(reason).await;
        flushed.map_err(|error| {
            inline.fail(error.kind);
            error.kind.at(Sector::ZERO)
        })
    }

    /// Recalculation: gives the blocks of a piece the tags of their data, as they lie there. Each is
    /// written whole, so a crash leaves it with its old tag or with the new one. Not durable yet.
    pub(super) async fn retag_inline(&self, piece: &Run) -> Result<(), IoErrorKind> {
        let Journal::Inline(inline) = &self.journal else { return Ok(()) };
        let _held = self.home.lock(piece.sector.0..(piece.sector + piece.sectors).0).await;
        inline.check(piece.sector).map_err(|error| error.kind)?;
        if self.retag_blocks(piece).await? {
            return Ok(());
        }
        let spb = self.layout.block.sectors();
        for offset in (0..piece.sectors).step_by(usize_of(spb)) {
            let block = self.layout.run(piece.sector + offset, spb);
            if !self.retag_blocks(&block).await? {
                self.tell_unreadable(block.sector);
            }
        }
        Ok(())
    }

    /// The same for blocks that are held. False: not all of them can be read, and nothing was changed.
    async fn retag_blocks(&self, run: &Run) -> Result<bool, IoErrorKind> {
        let (block_bytes, tag_bytes) = (self.block_bytes(), self.layout.tag_bytes);
        let data = Segments::from(Buf::alloc(usize_of(Sector(run.sectors).bytes())));
        let (read, data, stored) = self.fetch_inline(run, data, false).await;
        match read {
            Err(error) if error.kind.is_damage() => return Ok(false),
            read => read.map_err(|error| error.kind)?,
        }
        let data = data.into_single();
        let differs = |block: usize| {
            let sector = run.sector + self.sectors_of(block);
            let (data, tag) =
                (&data.as_slice()[block * block_bytes..], &stored[block * tag_bytes..]);
            let (data, tag) = (&data[..block_bytes], &tag[..tag_bytes]);
            !self.is_discarded(sector, tag) && self.tagger.verify(sector.0, data, tag).is_some()
        };
        let changed: Vec<bool> = (0..self.blocks_in(run.sectors)).map(differs).collect();
        let mut first = 0;
        for alike in changed.chunk_by(|a, b| a == b) {
            if alike[0] {
                let blocks = first..first + alike.len();
                let from = run.sector + self.sectors_of(first);
                let part = self.layout.run(from, self.sectors_of(alike.len()));
                let data = data.slice(blocks.start * block_bytes..blocks.end * block_bytes);
                let mut tags = vec![0; alike.len() * tag_bytes];
                self.tagger.tags(from.0, data.as_slice(), &mut tags);
                let written = write_inline(self.data(), &self.layout, &part, data, &tags).await;
                written.map_err(|error| error.kind)?;
            }
            first += alike.len();
        }
        Ok(true)
    }
}

/// Reads data and tuples, and takes the tags out of these.
async fn fetch(
    device: &Device,
    layout: &Layout,
    run: &Run,
    data: Segments,
    bypass: bool,
) -> (Result<(), IoError>, Segments, Vec<u8>) {
    let (tag_bytes, tuple_bytes) = (layout.tag_bytes, device.limits().tag_size);
    let blocks = usize_of(run.sectors / layout.block.sectors());
    let mut bio = Bio::read_into(run.data, data).tagged(Buf::alloc(blocks * tuple_bytes));
    bio.bypass = bypass;
    let result = device.submit(&mut bio).await;
    let found = bio.tags.into_single();
    let mut tags = vec![0; blocks * tag_bytes];
    let each = tags.chunks_exact_mut(tag_bytes).zip(found.as_slice().chunks_exact(tuple_bytes));
    each.for_each(|(tag, tuple)| tag.copy_from_slice(&tuple[..tag_bytes]));
    (result, bio.data, tags)
}

/// Tags as the device keeps them: each with zeroes behind it.
fn tuples(tags: &[u8], tag_bytes: usize, tuple_bytes: usize) -> Buf {
    let mut tuples = Buf::zeroed(tags.len() / tag_bytes * tuple_bytes);
    let each = tuples.as_mut_slice().chunks_exact_mut(tuple_bytes);
    each.zip(tags.chunks_exact(tag_bytes))
        .for_each(|(tuple, tag)| tuple[..tag_bytes].copy_from_slice(tag));
    tuples
}

/// Zeroes written at once: 1 MiB.
const STEP_SECTORS: u64 = (1 << 20) / SECTOR;

const _: () = assert!(STEP_SECTORS.is_multiple_of(8), "a whole number of blocks");
