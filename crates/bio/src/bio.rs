//! One request and the buffers it moves.

use crate::{Buf, Segments};
use units::{Sector, usize_of};

/// What is asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Op {
    /// Fill `data` from `sector` on.
    Read,
    /// Store `data` at `sector`.
    Write {
        /// Durable when complete.
        fua: bool,
    },
    /// Make every write that completed before this was submitted durable.
    Flush,
    /// The owner no longer needs these sectors; they read as zeroes afterwards.
    Discard {
        /// How many, a whole number of logical blocks.
        sectors: u64,
    },
    /// Store zeroes.
    WriteZeroes {
        /// How many sectors, a whole number of logical blocks.
        sectors: u64,
        /// Space may be given back below.
        unmap: bool,
    },
    /// Do the tags stored for these blocks vouch for `data`? Touches nothing. Ok: every block's
    /// stored tag agrees. `Protection`: the first block whose tag does not. `Unsupported`: the
    /// device has no tags (`Limits::verified` is false).
    Vouch,
    /// Fill `data` with what lies there, whether its tag agrees or not: a candidate for who weighs
    /// evidence (redundancy beyond its measure), never an answer. No front end asks for it, and no
    /// layer with redundancy gives it. `Unsupported`: the device has no tags.
    Peek {
        /// In each block whose tag disagrees, turn the one bit that makes it agree. `Protection`:
        /// the first block in which no single bit does, or no algorithm tells which.
        mend: bool,
    },
}

impl Op {
    /// Whether the device's content may change.
    #[must_use]
    pub const fn is_write(self) -> bool {
        matches!(self, Self::Write { .. } | Self::Discard { .. } | Self::WriteZeroes { .. })
    }

    /// Whether `data` carries the request's bytes.
    #[must_use]
    pub const fn has_data(self) -> bool {
        matches!(self, Self::Read | Self::Write { .. } | Self::Vouch | Self::Peek { .. })
    }
}

/// One request. Tags ride beside the data, never inside it.
///
/// A device whose [`tag_size`](crate::Limits::tag_size) is not 0 keeps so many bytes of metadata for
/// each of its logical blocks, which is then a protection interval. What is in them is for whoever is
/// above; the device keeps them together with the block:
///
/// | request | with tags | without |
/// |---|---|---|
/// | read | both are filled, as one block was written | the tags stay where they are |
/// | write | both are stored, a block and its tags at once: a crash leaves both old or both new | the blank is stored for the tags |
/// | discard, write zeroes | refused | the blank is stored for the tags |
/// | peek | both are filled, as they lie | the tags stay where they are |
/// | flush, vouch | refused | |
///
/// Whoever writes without tags has none to give, and old ones would vouch for what is gone. The blank is
/// zeroes; on a device with an integrity profile it is all ones, which is the escape of protection
/// information: nothing may be checked. Never written blocks have it, too. Tags for a
/// device that keeps none, and tags of another length than the data's blocks have, are refused
/// (`Invalid`): nothing is ever dropped, cut or filled up in silence.
///
/// After completion `data` and `tags` hold the same segments again, in the same order; a read that
/// failed leaves their content unspecified.
#[derive(Debug)]
pub struct Bio {
    /// What is asked.
    pub op: Op,
    /// The first sector.
    pub sector: Sector,
    /// The bytes to store or to fill, empty for operations without any.
    pub data: Segments,
    /// Empty, or `Limits::tag_size` bytes for each logical block of the data, in order.
    pub tags: Segments,
    /// Read the medium itself, past every cache and journal copy that the device could answer from
    /// (a scrub asks this way). What has not reached the medium yet is exempt.
    pub bypass: bool,
    /// Of a flush, and of a write with FUA: what it must come before, in words. Of a read or a question
    /// by which a layer checks something: what. The simulator leaves out those of one reason at a time,
    /// and has to find the bug. Empty: whoever is above asked.
    pub reason: &'static str,
}

impl Bio {
    fn new(op: Op, sector: Sector, data: Segments) -> Self {
        Self { op, sector, data, tags: Segments::default(), bypass: false, reason: "" }
    }

    /// A read of `data.len_bytes()` bytes into exclusive segments.
    #[must_use]
    pub fn read_into(sector: Sector, data: impl Into<Segments>) -> Self {
        Self::new(Op::Read, sector, data.into())
    }

    /// A read of `sectors` sectors into a new buffer.
    #[must_use]
    pub fn read(sector: Sector, sectors: u64) -> Self {
        Self::read_into(sector, Buf::alloc(usize_of(Sector(sectors).bytes())))
    }

    /// A write of `data`.
    #[must_use]
    pub fn write(sector: Sector, data: impl Into<Segments>) -> Self {
        Self::new(Op::Write { fua: false }, sector, data.into())
    }

    /// A write that is durable when complete.
    #[must_use]
    pub fn write_fua(sector: Sector, data: impl Into<Segments>) -> Self {
        Self::new(Op::Write { fua: true }, sector, data.into())
    }

    /// A flush.
    #[must_use]
    pub fn flush() -> Self {
        Self::new(Op::Flush, Sector::ZERO, Segments::default())
    }

    /// A flush for the sake of an order: `reason` says what it must come before.
    #[must_use]
    pub fn flush_for(reason: &'static str) -> Self {
        Self::flush().because(reason)
    }

    /// The same request, with the reason why it has to be durable.
    #[must_use]
    pub fn because(mut self, reason: &'static str) -> Self {
        self.reason = reason;
        self
    }

    /// A discard.
    #[must_use]
    pub fn discard(sector: Sector, sectors: u64) -> Self {
        Self::new(Op::Discard { sectors }, sector, Segments::default())
    }

    /// Store zeroes; `unmap` lets the space go.
    #[must_use]
    pub fn write_zeroes(sector: Sector, sectors: u64, unmap: bool) -> Self {
        Self::new(Op::WriteZeroes { sectors, unmap }, sector, Segments::default())
    }

    /// Ask whether the stored tags vouch for `data`.
    #[must_use]
    pub fn vouch(sector: Sector, data: impl Into<Segments>) -> Self {
        Self::new(Op::Vouch, sector, data.into())
    }

    /// A read of `sectors` sectors into a new buffer, whatever their tags say; see [`Op::Peek`].
    #[must_use]
    pub fn peek(sector: Sector, sectors: u64, mend: bool) -> Self {
        Self { op: Op::Peek { mend }, ..Self::read(sector, sectors) }
    }

    /// The same request, with `tags` to be filled (of a read) or stored (of a write): `Limits::tag_size`
    /// bytes for each logical block of the data.
    #[must_use]
    pub fn tagged(mut self, tags: impl Into<Segments>) -> Self {
        self.tags = tags.into();
        self
    }

    /// The same request, past every cache.
    #[must_use]
    pub fn bypassing(mut self) -> Self {
        self.bypass = true;
        self
    }

    /// How many sectors it concerns; 0 for a flush.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        match self.op {
            Op::Read | Op::Write { .. } | Op::Vouch | Op::Peek { .. } => {
                units::u64_of(self.data.len_bytes()) / units::SECTOR
            }
            Op::Discard { sectors } | Op::WriteZeroes { sectors, .. } => sectors,
            Op::Flush => 0,
        }
    }

    /// The first sector after it.
    #[must_use]
    pub fn end(&self) -> Sector {
        self.sector + self.sectors()
    }
}
