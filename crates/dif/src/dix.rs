//! What a host adapter does with protection information between the host's memory and the wire: DIX's
//! table of operations. (Section 5.)
//!
//! | direction | host has tuples | wire has tuples | operation | the adapter |
//! |---|---|---|---|---|
//! | both | no | no | normal | copies |
//! | read | no | yes | strip | checks, drops |
//! | read | yes | no | insert | generates for the host |
//! | read | yes | yes | pass | checks, hands over, converts if the guards differ |
//! | write | no | yes | insert | generates |
//! | write | yes | no | strip | checks the host's, drops |
//! | write | yes | yes | pass | checks, forwards, converts if the guards differ |

use crate::convert::{Conversion, ConvertError};
use crate::format::Format;
use crate::profile::{Checks, Mismatch, Protection};

/// Which way data goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// From the wire to the host.
    Read,
    /// From the host to the wire.
    Write,
}

/// What the adapter is told to do, numbered as Linux numbers them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Operation {
    /// No protection information anywhere.
    Normal,
    /// The wire has none; the host gets some.
    ReadInsert,
    /// The host has some; the wire none.
    WriteStrip,
    /// The wire has some; the host gets none.
    ReadStrip,
    /// The host has none; the wire gets some.
    WriteInsert,
    /// Both have.
    ReadPass,
    /// Both have.
    WritePass,
}

/// What may be asked of the adapter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Duties {
    /// Tuples go over the wire.
    pub transfer: bool,
    /// The guard is checked.
    pub guard_check: bool,
    /// The reference tag is checked.
    pub reference_check: bool,
    /// It counts up; of every type but 3.
    pub reference_increment: bool,
    /// The host's guards may be IP checksums.
    pub ip_checksum: bool,
}

impl Operation {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Normal,
        Self::ReadInsert,
        Self::WriteStrip,
        Self::ReadStrip,
        Self::WriteInsert,
        Self::ReadPass,
        Self::WritePass,
    ];

    /// The operation for a host with tuples or without, and a wire with or without.
    #[must_use]
    pub const fn of(direction: Direction, host: bool, wire: bool) -> Self {
        match (direction, host, wire) {
            (_, false, false) => Self::Normal,
            (Direction::Read, false, true) => Self::ReadStrip,
            (Direction::Read, true, false) => Self::ReadInsert,
            (Direction::Read, true, true) => Self::ReadPass,
            (Direction::Write, false, true) => Self::WriteInsert,
            (Direction::Write, true, false) => Self::WriteStrip,
            (Direction::Write, true, true) => Self::WritePass,
        }
    }

    /// What it may ask for.
    #[must_use]
    pub const fn duties(self) -> Duties {
        let (transfer, checks, increment, ip) = match self {
            Self::Normal => (false, false, false, false),
            Self::ReadStrip => (true, true, true, false),
            Self::ReadInsert => (false, false, true, true),
            Self::ReadPass | Self::WritePass => (true, true, true, true),
            Self::WriteInsert => (true, false, true, false),
            Self::WriteStrip => (false, true, true, true),
        };
        Duties {
            transfer,
            guard_check: checks,
            reference_check: checks,
            reference_increment: increment,
            ip_checksum: ip,
        }
    }
}

/// The two sides, and what tuples ought to say on each: none, where a side has no tuples.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// The host's memory: data and metadata in separate buffers.
    pub host: Option<Protection>,
    /// The wire: interleaved, if it has tuples.
    pub wire: Option<Protection>,
    /// Checks are made. If not, tuples are only moved (but a conversion always checks what it converts).
    pub verify: bool,
}

/// Why an exchange did not take place.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ExchangeError {
    /// A tuple disagrees.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// Host and wire speak of different things.
    #[error("host and wire: {0}")]
    Convert(#[from] ConvertError),
}

/// The buffers of an exchange, each whole and contiguous.
#[derive(Debug)]
pub enum Buffers<'a> {
    /// From the wire to the host.
    Read {
        /// What came over the wire.
        wire: &'a [u8],
        /// Where the host wants its data.
        data: &'a mut [u8],
        /// Where it wants its metadata; empty if it wants none.
        metadata: &'a mut [u8],
    },
    /// From the host to the wire.
    Write {
        /// The host's data.
        data: &'a [u8],
        /// Its metadata; empty if it has none.
        metadata: &'a [u8],
        /// What goes over the wire.
        wire: &'a mut [u8],
    },
}

impl Buffers<'_> {
    const fn metadata_is_empty(&self) -> bool {
        match self {
            Self::Read { metadata, .. } => metadata.is_empty(),
            Self::Write { metadata, .. } => metadata.is_empty(),
        }
    }
}

impl Exchange {
    /// Which operation that is.
    #[must_use]
    pub const fn operation(&self, direction: Direction) -> Operation {
        Operation::of(direction, self.host.is_some(), self.wire.is_some())
    }

    /// Moves the bytes, and does to their tuples what the table says. What goes out was checked as it was
    /// copied. After an error the target's content means nothing.
    ///
    /// # Errors
    /// [`ExchangeError`]: the first tuple that disagrees, in the way its own side counts.
    ///
    /// # Panics
    /// If the buffers' lengths do not go together.
    pub fn run(&self, buffers: Buffers<'_>) -> Result<Operation, ExchangeError> {
        if self.host.is_none() {
            assert!(buffers.metadata_is_empty(), "a host without tuples has no metadata");
        }
        let mut first = None;
        let mut found = |mismatch| {
            first.get_or_insert(mismatch);
        };
        let operation = match buffers {
            Buffers::Write { data, metadata, wire } => {
                let operation = self.operation(Direction::Write);
                match (self.host(), self.wire()) {
                    (None, None) => wire.copy_from_slice(data),
                    (None, Some(to)) => to.insert([data], [wire]),
                    (Some(from), None) => {
                        wire.copy_from_slice(data);
                        from.verify_each([&*wire], [metadata], &mut found);
                    }
                    (Some(from), Some(to)) if from.profile() == to.profile() => {
                        from.join([data], [metadata], [&mut *wire], &mut found);
                        let (host, device) = (from.expected().reference, to.expected().reference);
                        from.profile().remap_interleaved([wire], host, device);
                    }
                    (Some(from), Some(to)) => {
                        let conversion = from.converted_to(*to.profile())?;
                        write_converted(&conversion, &to, (data, metadata), wire, &mut found);
                    }
                }
                operation
            }
            Buffers::Read { wire, data, metadata } => {
                let operation = self.operation(Direction::Read);
                match (self.host(), self.wire()) {
                    (None, None) => data.copy_from_slice(wire),
                    (None, Some(from)) => from.strip([wire], [data], &mut found),
                    (Some(to), None) => {
                        data.copy_from_slice(wire);
                        metadata.fill(0);
                        to.generate([&*data], [metadata]);
                    }
                    (Some(to), Some(from)) if from.profile() == to.profile() => {
                        from.split([wire], [data], [&mut *metadata], &mut found);
                        let (device, host) = (from.expected().reference, to.expected().reference);
                        to.profile().remap([metadata], device, host);
                    }
                    (Some(to), Some(from)) => {
                        let conversion = from.converted_to(*to.profile())?;
                        read_converted(
                            &conversion,
                            (&from, &to),
                            wire,
                            (data, metadata),
                            &mut found,
                        );
                    }
                }
                operation
            }
        };
        first.map_or(Ok(operation), |mismatch| Err(mismatch.into()))
    }

    fn host(&self) -> Option<Protection> {
        self.host.map(|side| self.checked(side))
    }

    fn wire(&self) -> Option<Protection> {
        self.wire.map(|side| self.checked(side))
    }

    fn checked(&self, side: Protection) -> Protection {
        if self.verify { side } else { side.with_checks(Checks::NONE) }
    }
}

/// That the buffers are of the same intervals: `wire` in `format`, the host's with `host` bytes of
/// metadata each.
fn together(format: &Format, host: usize, (data, metadata): (usize, usize), wire: usize) {
    let count = wire / format.stride();
    let expected = (count * format.interval(), count * host, count * format.stride());
    assert_eq!((data, metadata, wire), expected, "the buffers are of the same whole intervals");
}

/// Interval by interval, since the two sides' metadata differ.
fn write_converted(
    conversion: &Conversion,
    to: &Protection,
    (data, metadata): (&[u8], &[u8]),
    wire: &mut [u8],
    found: &mut impl FnMut(Mismatch),
) {
    let format = *to.format();
    let from = conversion.old_format();
    together(&format, from.metadata(), (data.len(), metadata.len()), wire.len());
    let intervals =
        data.chunks_exact(format.interval()).zip(metadata.chunks_exact(from.metadata()));
    for (index, ((data, metadata), block)) in
        (0..).zip(intervals.zip(wire.chunks_exact_mut(format.stride())))
    {
        let (place, converted) = block.split_at_mut(format.interval());
        place.copy_from_slice(data);
        conversion.one(index, place, metadata, converted, found);
        let (host, device) = (conversion.reference(index), to.expected().reference);
        to.profile().remap([converted], host, device.wrapping_add(index));
    }
}

fn read_converted(
    conversion: &Conversion,
    (from, to): (&Protection, &Protection),
    wire: &[u8],
    (data, metadata): (&mut [u8], &mut [u8]),
    found: &mut impl FnMut(Mismatch),
) {
    let format = *from.format();
    together(&format, to.format().metadata(), (data.len(), metadata.len()), wire.len());
    let places = data
        .chunks_exact_mut(format.interval())
        .zip(metadata.chunks_exact_mut(to.format().metadata()));
    for (index, (block, (place, converted))) in
        (0..).zip(wire.chunks_exact(format.stride()).zip(places))
    {
        let (bytes, old) = block.split_at(format.interval());
        place.copy_from_slice(bytes);
        conversion.one(index, place, old, converted, found);
        let (device, host) = (conversion.reference(index), to.expected().reference);
        to.profile().remap([converted], device, host.wrapping_add(index));
    }
}
