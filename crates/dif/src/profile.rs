//! What protects a device or a request: a format and a type; what tuples ought to say; what is checked.

use crate::format::Format;
use crate::tuple::{APPLICATION_ESCAPE, ProtectionType, Tuple};
use core::fmt;
use guard::Guard;

/// A format with its type: what a device says of the metadata that it keeps. Devices that are put
/// together have to agree on all of it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Profile {
    /// The bytes.
    pub format: Format,
    /// What the reference tag means.
    pub kind: ProtectionType,
}

impl Profile {
    /// Bytes of each tuple's tags that belong to the application: the application tag, and for type 3 the
    /// reference tag as well (in whole bytes). (Section 7.)
    #[must_use]
    pub const fn application_bytes(&self) -> usize {
        match self.kind {
            ProtectionType::One | ProtectionType::Two => 2,
            ProtectionType::Three => 2 + self.format.reference_bits() as usize / 8,
        }
    }

    /// Linux's name of the profile, as `/sys/block/X/integrity/format` shows it; none where it has none.
    /// It has no type 2: types 1 and 2 are one profile there; and it does not use devices with a storage
    /// tag. (Sections 10 and 12.)
    #[must_use]
    pub const fn linux_name(&self) -> Option<&'static str> {
        if self.format.storage_bits() > 0 {
            return None;
        }
        Some(match (self.kind.counts(), self.format.guard()) {
            (true, Guard::Crc16) => "T10-DIF-TYPE1-CRC",
            (true, Guard::Ip) => "T10-DIF-TYPE1-IP",
            (true, Guard::Crc64) => "EXT-DIF-TYPE1-CRC64",
            (false, Guard::Crc16) => "T10-DIF-TYPE3-CRC",
            (false, Guard::Ip) => "T10-DIF-TYPE3-IP",
            (false, Guard::Crc64) => "EXT-DIF-TYPE3-CRC64",
            (_, Guard::Crc32c) => return None,
        })
    }
}

impl fmt::Display for Profile {
    /// `type 1, crc16, 512 + 8 bytes`, and what else is unusual.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = &self.format;
        let (number, guard) = (self.kind.number(), format.guard());
        write!(f, "type {number}, {guard}, {} + {} bytes", format.interval(), format.metadata())?;
        if format.metadata() > format.tuple_bytes() {
            f.write_str(match format.place() {
                crate::Place::First => ", tuple first",
                crate::Place::Last => ", tuple last",
            })?;
        }
        if format.storage_bits() > 0 {
            write!(f, ", storage tag of {} bits", format.storage_bits())?;
        }
        Ok(())
    }
}

/// What the tuples of a run of intervals ought to say.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Expected {
    /// The application tag.
    pub application: u16,
    /// Bits of it that must match; those of the others are written all the same.
    pub application_mask: u16,
    /// The reference tag of interval 0, of which the low bits count. Types 1 and 2: it counts up from
    /// there, and wraps. Type 3: every tuple is given it, and none is checked.
    pub reference: u64,
    /// The storage tag.
    pub storage: u64,
    /// Bits of it that must match.
    pub storage_mask: u64,
}

impl Expected {
    /// Intervals from address `reference` on; the application tag is written as 0 and not checked.
    #[must_use]
    pub fn at(reference: u64) -> Self {
        Self { reference, ..Self::default() }
    }

    /// The same with an application tag, of which all bits must match.
    #[must_use]
    pub fn with_application(self, application: u16) -> Self {
        Self { application, application_mask: u16::MAX, ..self }
    }
}

/// In which order the tags of a tuple are looked at: the first that disagrees is reported.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Order {
    /// Guard, application, reference, storage: what most controllers do.
    #[default]
    Guard,
    /// Reference, then guard, and nothing else: what Linux's block layer does.
    Linux,
}

/// What is checked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Checks {
    /// The guard.
    pub guard: bool,
    /// The application tag, under its mask.
    pub application: bool,
    /// The reference tag; never of type 3.
    pub reference: bool,
    /// The storage tag, under its mask.
    pub storage: bool,
    /// An escape turns all checks off, as the standards have it. If not, it is an error of the
    /// application tag: for whoever knows that every interval was written protected.
    pub escape: bool,
    /// Which is looked at first.
    pub order: Order,
}

impl Checks {
    /// Every tag, and escapes are honoured.
    pub const ALL: Self = Self {
        guard: true,
        application: true,
        reference: true,
        storage: true,
        escape: true,
        order: Order::Guard,
    };

    /// No tag.
    pub const NONE: Self =
        Self { guard: false, application: false, reference: false, storage: false, ..Self::ALL };
}

impl Default for Checks {
    fn default() -> Self {
        Self::ALL
    }
}

/// A tag of a tuple.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Tag {
    /// The checksum.
    Guard,
    /// The owner's.
    Application,
    /// The place.
    Reference,
    /// The storage's.
    Storage,
}

impl Tag {
    /// `guard tag` and so on.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Guard => "guard tag",
            Self::Application => "application tag",
            Self::Reference => "reference tag",
            Self::Storage => "storage tag",
        }
    }
}

/// The first tag of an interval that disagrees.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mismatch {
    /// Which tag.
    pub tag: Tag,
    /// Which interval of the request, from 0.
    pub interval: u64,
    /// Its address: that of interval 0 (see [`Protection::with_address`]) and as many more.
    pub address: u64,
    /// What the tuple says.
    pub stored: u64,
    /// What it ought to say: of the guard, what the data says.
    pub expected: u64,
    /// Digits to show of both.
    digits: usize,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (digits, ought) = match self.tag {
            Tag::Guard => (self.digits, "the data says"),
            _ => (self.digits, "expected"),
        };
        write!(
            f,
            "{} of interval {} is 0x{:0digits$x}, {ought} 0x{:0digits$x}",
            self.tag.name(),
            self.address,
            self.stored,
            self.expected,
        )
    }
}

impl core::error::Error for Mismatch {}

/// Why no protection can be made of these.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProtectionError {
    /// The tags to be written are the escape.
    #[error(
        "application tag 0xffff{} is the escape: nothing written with it would ever be checked",
        if *.with_reference { " with a reference tag of all ones" } else { "" }
    )]
    Escape {
        /// Type 3: together with the reference tag.
        with_reference: bool,
    },
    /// The storage tag does not fit.
    #[error("storage tag 0x{storage:x} has more than {bits} bits")]
    Storage {
        /// The tag.
        storage: u64,
        /// The bits that there are.
        bits: u8,
    },
}

/// A profile with what a request's tuples ought to say and what is checked: what all operations are
/// methods of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Protection {
    profile: Profile,
    expected: Expected,
    checks: Checks,
    /// Of interval 0, for messages: of type 3 the reference tag does not tell it.
    address: u64,
}

impl Protection {
    /// Checks that the parts go together.
    ///
    /// # Errors
    /// [`ProtectionError`].
    pub fn new(
        profile: Profile,
        expected: Expected,
        checks: Checks,
    ) -> Result<Self, ProtectionError> {
        let format = &profile.format;
        if expected.storage & !format.storage_mask() != 0 {
            let (storage, bits) = (expected.storage, format.storage_bits());
            return Err(ProtectionError::Storage { storage, bits });
        }
        let all_ones = expected.reference & format.reference_mask() == format.reference_mask();
        if expected.application == APPLICATION_ESCAPE && (profile.kind.counts() || all_ones) {
            return Err(ProtectionError::Escape { with_reference: !profile.kind.counts() });
        }
        Ok(Self { profile, expected, checks, address: expected.reference })
    }

    /// Of a run of intervals from address `reference` on, with every check that needs no more than that.
    #[must_use]
    pub fn at(profile: Profile, reference: u64) -> Self {
        let (expected, checks) = (Expected::at(reference), Checks::ALL);
        Self { profile, expected, checks, address: reference }
    }

    /// The same with mismatches told by addresses from `address` on; else they are told from
    /// [`Expected::reference`] on. Nothing that is written or checked depends on it.
    #[must_use]
    pub const fn with_address(self, address: u64) -> Self {
        Self { address, ..self }
    }

    /// The profile.
    #[must_use]
    pub const fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The format.
    #[must_use]
    pub const fn format(&self) -> &Format {
        &self.profile.format
    }

    /// What tuples ought to say.
    #[must_use]
    pub const fn expected(&self) -> &Expected {
        &self.expected
    }

    /// What is checked.
    #[must_use]
    pub const fn checks(&self) -> &Checks {
        &self.checks
    }

    /// The same for a run that begins `intervals` further on.
    #[must_use]
    pub const fn skip(mut self, intervals: u64) -> Self {
        self.expected.reference = self.reference_of(intervals);
        self.address = self.address.wrapping_add(intervals);
        self
    }

    /// The same with other checks.
    #[must_use]
    pub const fn with_checks(self, checks: Checks) -> Self {
        Self { checks, ..self }
    }

    /// The same profile with another guard, for the other side of a conversion.
    pub(crate) fn with_profile(self, profile: Profile) -> Self {
        Self { profile, ..self }
    }

    /// The reference tag of interval `index`, uncut; that of type 3 does not count.
    const fn reference_of(&self, index: u64) -> u64 {
        if self.profile.kind.counts() {
            self.expected.reference.wrapping_add(index)
        } else {
            self.expected.reference
        }
    }

    /// The tuple of interval `index`, whose guard is `guard`.
    #[must_use]
    pub const fn tuple(&self, index: u64, guard: u64) -> Tuple {
        Tuple {
            guard,
            application: self.expected.application,
            storage: self.expected.storage,
            reference: self.reference_of(index) & self.profile.format.reference_mask(),
        }
    }

    /// Checks the tuple of interval `index`, whose data (and covered metadata) have the guard `computed`.
    ///
    /// # Errors
    /// The first tag that disagrees.
    pub fn check(&self, index: u64, tuple: &Tuple, computed: u64) -> Result<(), Mismatch> {
        let (format, expected, checks) = (&self.profile.format, &self.expected, &self.checks);
        let is_escaped = tuple.is_escaped(format, self.profile.kind);
        let guard = || {
            let wrong = checks.guard && tuple.guard != computed;
            wrong.then_some((Tag::Guard, tuple.guard, computed))
        };
        let application = || {
            let mask = expected.application_mask;
            let (stored, expected) = (tuple.application, expected.application);
            let wrong = is_escaped || checks.application && (stored ^ expected) & mask != 0;
            wrong.then_some((Tag::Application, stored.into(), expected.into()))
        };
        let reference = || {
            let expected = self.reference_of(index) & format.reference_mask();
            let checked = checks.reference && self.profile.kind.counts();
            let wrong = checked && tuple.reference != expected;
            wrong.then_some((Tag::Reference, tuple.reference, expected))
        };
        let storage = || {
            let (stored, expected, mask) = (tuple.storage, expected.storage, expected.storage_mask);
            let wrong = checks.storage && (stored ^ expected) & mask & format.storage_mask() != 0;
            wrong.then_some((Tag::Storage, stored, expected))
        };
        let wrong = match checks.order {
            // What an escape says is either not to be looked at, or the one thing that is wrong.
            _ if is_escaped && checks.escape => None,
            _ if is_escaped => application(),
            Order::Guard => guard().or_else(application).or_else(reference).or_else(storage),
            Order::Linux => reference().or_else(guard),
        };
        wrong.map_or(Ok(()), |(tag, stored, expected)| {
            let bits = match tag {
                Tag::Guard => 8 * format.guard().bytes(),
                Tag::Application => 16,
                Tag::Reference => format.reference_bits().into(),
                Tag::Storage => format.storage_bits().into(),
            };
            let address = self.address.wrapping_add(index);
            let digits = bits.div_ceil(4);
            Err(Mismatch { tag, interval: index, address, stored, expected, digits })
        })
    }
}
