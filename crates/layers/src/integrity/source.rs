//! Where a volume's tags come from, and what they ought to be: the layer's own hash of each block, or
//! whoever is above, who gives them with the data.
//!
//! Nothing on the disk says which. Tags from above are bytes without a meaning here, or protection
//! information (crate `dif`), a tuple for each block; then they can be judged, though it is not this layer
//! that judges what it reads and writes.

use checksum::{Algorithm, BlockTagger, Key, KeyError, UnknownAlgorithm, ZeroTags};
use dif::{Format, FormatError, Guard, Profile, Protection, ProtectionType, Tuple};
use std::fmt;
use std::str::FromStr;
use units::{BlockSize, SECTOR, u64_of, usize_of};

/// Where the tags of a volume come from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TagSource {
    /// They are made of each block, here (the kernel's `internal_hash`).
    Hash(Algorithm),
    /// Whoever is above gives them: tuples of this kind, or bytes of which nothing is known.
    Above(Option<TupleKind>),
}

impl TagSource {
    /// The hash, if that is what makes them.
    #[must_use]
    pub const fn hash(self) -> Option<Algorithm> {
        match self {
            Self::Hash(algorithm) => Some(algorithm),
            Self::Above(_) => None,
        }
    }

    /// Bytes of a tag, if that follows from where it comes from: the whole digest, or the tuple.
    #[must_use]
    pub fn tag_bytes(self) -> Option<u16> {
        let bytes = match self {
            Self::Hash(algorithm) => algorithm.digest_len(),
            Self::Above(tuples) => tuples?.bytes(),
        };
        Some(u16::try_from(bytes).expect("a few bytes"))
    }
}

impl From<Algorithm> for TagSource {
    fn from(algorithm: Algorithm) -> Self {
        Self::Hash(algorithm)
    }
}

impl fmt::Display for TagSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hash(algorithm) => algorithm.fmt(f),
            Self::Above(Some(tuples)) => tuples.fmt(f),
            Self::Above(None) => f.write_str(OPAQUE),
        }
    }
}

/// Tuples as they are named: `t10-dif-type1-crc16`. Their interval is the volume's block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TupleKind {
    /// The type.
    pub kind: ProtectionType,
    /// The guard.
    pub guard: Guard,
}

impl TupleKind {
    /// Those that can be found by trial: of type 1, which says where a block belongs.
    pub const FOUND: [Self; 4] = [
        Self { kind: ProtectionType::One, guard: Guard::Crc16 },
        Self { kind: ProtectionType::One, guard: Guard::Ip },
        Self { kind: ProtectionType::One, guard: Guard::Crc32c },
        Self { kind: ProtectionType::One, guard: Guard::Crc64 },
    ];

    /// The profile over blocks of this size.
    ///
    /// # Errors
    /// [`FormatError`]: blocks that no interval has.
    pub fn profile(self, block: BlockSize) -> Result<Profile, FormatError> {
        Ok(Profile { format: Format::new(self.guard, block.bytes())?, kind: self.kind })
    }

    /// Bytes of a tuple (pi specification, section 2).
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self.guard {
            Guard::Crc16 | Guard::Ip => 8,
            Guard::Crc32c | Guard::Crc64 => 16,
        }
    }
}

impl fmt::Display for TupleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}-{}", self.kind.number(), self.guard)
    }
}

impl FromStr for TagSource {
    type Err = UnknownSource;

    /// An algorithm's name, `t10-dif-typeN-GUARD`, or `opaque`.
    fn from_str(name: &str) -> Result<Self, UnknownSource> {
        if name == OPAQUE {
            return Ok(Self::Above(None));
        }
        let Some(rest) = name.strip_prefix(PREFIX) else {
            return name.parse().map(Self::Hash).map_err(UnknownSource);
        };
        let tuples = || {
            let (number, guard) = rest.split_once('-')?;
            let kind = ProtectionType::from_number(number.parse().ok()?)?;
            Some(TupleKind { kind, guard: Guard::from_name(guard)? })
        };
        tuples()
            .map(|tuples| Self::Above(Some(tuples)))
            .ok_or_else(|| UnknownSource(UnknownAlgorithm { name: name.to_owned() }))
    }
}

/// A name that stands for no source of tags.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{0}; of the layer above: t10-dif-type1-crc16 (types 1 to 3, guards crc16, ip, crc32c, crc64), opaque"
)]
pub struct UnknownSource(pub UnknownAlgorithm);

/// Why tags of a source cannot be those of a volume.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SourceError {
    /// The algorithm and the key do not go together.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A key for tags that nobody makes here.
    #[error("tags that the layer above gives have no key")]
    KeyAbove,
    /// No such tuples for such blocks.
    #[error("{tuples}: {error}")]
    Format {
        /// The tuples.
        tuples: TupleKind,
        /// Why.
        error: FormatError,
    },
    /// The volume's tags have another size.
    #[error("{tuples} has tuples of {expected} bytes, the volume's tags have {found}")]
    TagBytes {
        /// The tuples.
        tuples: TupleKind,
        /// Bytes of a tuple.
        expected: usize,
        /// Bytes of a tag.
        found: usize,
    },
}

/// What a block and the tag that is stored for it say together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Evidence {
    /// The tag vouches for the block.
    Fits,
    /// It does not.
    Differs,
    /// It says nothing: an escape, all zeroes (as the kernel stores without), or of unknown meaning.
    None,
}

/// The tags of one volume.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "one for a volume, and asked for every block")]
pub enum Tagger {
    /// Made here.
    Hash(BlockTagger),
    /// Given by whoever is above.
    Above(Above),
}

/// Tags from above.
#[derive(Clone, Copy, Debug)]
pub struct Above {
    block: BlockSize,
    tag_bytes: usize,
    tuples: Option<(TupleKind, Profile)>,
}

impl Tagger {
    /// For a volume with this key (if the source takes one), this salt (if its superblock has the salt
    /// flag), block size and tag size.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn new(
        source: TagSource,
        key: Option<&Key>,
        salt: Option<[u8; checksum::SALT_BYTES]>,
        block: BlockSize,
        tag_bytes: usize,
    ) -> Result<Self, SourceError> {
        let tuples = match source {
            TagSource::Hash(algorithm) => {
                let tagger = BlockTagger::new(algorithm, key, salt, block)?;
                return Ok(Self::Hash(tagger.with_tag_bytes(tag_bytes)));
            }
            TagSource::Above(_) if key.is_some() => return Err(SourceError::KeyAbove),
            TagSource::Above(tuples) => tuples,
        };
        let tuples = match tuples {
            None => None,
            Some(tuples) if tuples.bytes() != tag_bytes => {
                let (expected, found) = (tuples.bytes(), tag_bytes);
                return Err(SourceError::TagBytes { tuples, expected, found });
            }
            Some(tuples) => {
                let profile = tuples.profile(block);
                let profile = profile.map_err(|error| SourceError::Format { tuples, error })?;
                Some((tuples, profile))
            }
        };
        Ok(Self::Above(Above { block, tag_bytes, tuples }))
    }

    /// Where the tags come from.
    #[must_use]
    pub const fn source(&self) -> TagSource {
        match self {
            Self::Hash(tagger) => TagSource::Hash(tagger.algorithm()),
            Self::Above(Above { tuples: Some((tuples, _)), .. }) => TagSource::Above(Some(*tuples)),
            Self::Above(Above { tuples: None, .. }) => TagSource::Above(None),
        }
    }

    /// Bytes of a tag.
    #[must_use]
    pub const fn tag_bytes(&self) -> usize {
        match self {
            Self::Hash(tagger) => tagger.tag_bytes(),
            Self::Above(above) => above.tag_bytes,
        }
    }

    /// The block that each tag is for.
    const fn block(&self) -> BlockSize {
        match self {
            Self::Hash(tagger) => tagger.block(),
            Self::Above(above) => above.block,
        }
    }

    /// What makes the tags, if they are made here.
    #[must_use]
    pub const fn hash(&self) -> Option<&BlockTagger> {
        match self {
            Self::Hash(tagger) => Some(tagger),
            Self::Above(_) => None,
        }
    }

    /// What the tags are, if they are tuples.
    #[must_use]
    pub const fn profile(&self) -> Option<Profile> {
        match self {
            Self::Above(Above { tuples: Some((_, profile)), .. }) => Some(*profile),
            Self::Above(_) | Self::Hash(_) => None,
        }
    }

    /// What every byte of a tag from above is when none was given: zeroes, or the escape of tuples
    /// ([`bio::Bio`]).
    #[must_use]
    pub const fn blank(&self) -> u8 {
        if self.profile().is_some() { 0xff } else { 0 }
    }

    /// Writes the tags with which `data`, whole blocks from `sector` on, is stored when it comes without
    /// any: made of it, or blank.
    ///
    /// # Panics
    /// If `tags` has not one tag for each block.
    pub fn tags(&self, sector: u64, data: &[u8], tags: &mut [u8]) {
        match self {
            Self::Hash(tagger) => tagger.tags(sector, data, tags),
            Self::Above(_) => tags.fill(self.blank()),
        }
    }

    /// Writes tags that vouch for `data`, as far as there are any: of the hash, or tuples with application
    /// tag 0. (Bytes without a meaning become zeroes.)
    ///
    /// # Panics
    /// As [`Self::tags`].
    pub fn sign(&self, sector: u64, data: &[u8], tags: &mut [u8]) {
        match self.protection(sector) {
            Some(protection) => protection.generate([data], [tags]),
            None => self.tags(sector, data, tags),
        }
    }

    /// The first block whose tag does not vouch for it; none if all do, or if nobody asks here: tags from
    /// above are for whoever gave them.
    ///
    /// # Panics
    /// As [`Self::tags`].
    #[must_use]
    pub fn verify(&self, sector: u64, data: &[u8], tags: &[u8]) -> Option<usize> {
        match self {
            Self::Hash(tagger) => tagger.verify(sector, data, tags),
            Self::Above(_) => None,
        }
    }

    /// What one block and its tag say together, whoever gave it.
    ///
    /// # Panics
    /// If `data` is not a block, or `tag` not a tag.
    #[must_use]
    pub fn evidence(&self, sector: u64, data: &[u8], tag: &[u8]) -> Evidence {
        let agrees = match self {
            Self::Hash(tagger) => tagger.verify(sector, data, tag).is_none(),
            Self::Above(Above { tuples: None, .. }) => return Evidence::None,
            Self::Above(Above { tuples: Some((_, profile)), .. }) => {
                let tuple = Tuple::decode(&profile.format, tag);
                let is_escaped = tuple.is_escaped(&profile.format, profile.kind);
                if is_escaped || tag.iter().all(|&byte| byte == 0) {
                    return Evidence::None;
                }
                let protection = self.protection(sector).expect("there are tuples");
                protection.verify([data], [tag]).is_ok()
            }
        };
        if agrees { Evidence::Fits } else { Evidence::Differs }
    }

    /// Whether every block is vouched for by its tag, whoever gave it.
    ///
    /// # Panics
    /// If the data is not whole blocks, or `tags` has not one tag for each.
    #[must_use]
    pub fn vouches(&self, sector: u64, data: &[u8], tags: &[u8]) -> bool {
        let block = self.block();
        let blocks = data.chunks(block.bytes()).zip(tags.chunks(self.tag_bytes()));
        let firsts = (sector..).step_by(usize_of(block.sectors()));
        firsts.zip(blocks).all(|(at, (data, tag))| self.evidence(at, data, tag) == Evidence::Fits)
    }

    /// Bits of a tag that fit by accident as often as two to the power of minus so many.
    #[must_use]
    pub fn evidence_bits(&self) -> u32 {
        let bits = match self.profile() {
            None => 8 * self.tag_bytes(),
            Some(profile) if profile.kind.counts() => 32,
            Some(profile) => 8 * profile.format.guard().bytes(),
        };
        u32::try_from(bits.min(32)).expect("at most 32")
    }

    /// A tag that cannot vouch for `data` (none: it is lost, too), for a block that must stay unreadable:
    /// the complement of what would. Bytes without a meaning become zeroes: it is for whoever is above to
    /// find that they are not theirs.
    #[must_use]
    pub fn disowning(&self, sector: u64, data: Option<&[u8]>) -> Vec<u8> {
        let mut tag = vec![0; self.tag_bytes()];
        match (self, data) {
            (Self::Hash(_), None) => tag.fill(0xff),
            (Self::Hash(tagger), Some(data)) => {
                tagger.tags(sector, data, &mut tag);
                tag.iter_mut().for_each(|byte| *byte = !*byte);
            }
            (Self::Above(_), None) => {}
            (Self::Above(_), Some(data)) => {
                if let Some(profile) = self.profile() {
                    // Not of the whole: an application tag of all ones is an escape.
                    self.sign(sector, data, &mut tag);
                    let guard = profile.format.guard().bytes();
                    tag[..guard].iter_mut().for_each(|byte| *byte = !*byte);
                }
            }
        }
        tag
    }

    /// Tags of the blocks of zeroes that a new volume holds.
    #[must_use]
    pub fn of_zeroes(&self) -> OfZeroes {
        match self {
            Self::Hash(tagger) => OfZeroes::Hash(ZeroTags::new(tagger)),
            Self::Above(above) => OfZeroes::Above(above.tuples.map(|(_, profile)| {
                let zeroes = vec![0; profile.format.interval()];
                (profile, profile.format.guard().of(&zeroes))
            })),
        }
    }

    /// What tuples from the block at `sector` on ought to say: their blocks' numbers in the volume.
    fn protection(&self, sector: u64) -> Option<Protection> {
        let profile = self.profile()?;
        let number = match profile.kind.counts() {
            true => sector / (u64_of(self.block().bytes()) / SECTOR),
            false => 0,
        };
        Some(Protection::at(profile, number))
    }
}

/// Writes the tags of blocks of zeroes.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "one for a volume, and asked for every block")]
pub enum OfZeroes {
    /// Of the hash.
    Hash(ZeroTags),
    /// Tuples of this profile, and the guard of a block of zeroes; none: zeroes.
    Above(Option<(Profile, u64)>),
}

impl OfZeroes {
    /// Writes the tags of consecutive blocks of zeroes, the first at `sector`: tags that vouch for them.
    ///
    /// # Panics
    /// If `sector` starts no block, or `tags` is not a whole number of tags.
    pub fn fill(&self, sector: u64, tags: &mut [u8]) {
        let (profile, guard) = match self {
            Self::Hash(zeroes) => return zeroes.fill(sector, tags),
            Self::Above(None) => return tags.fill(0),
            Self::Above(Some((profile, guard))) => (profile, *guard),
        };
        let number = sector / (u64_of(profile.format.interval()) / SECTOR);
        let first = if profile.kind.counts() { number } else { 0 };
        let protection = Protection::at(*profile, first);
        for (index, tag) in (0..).zip(tags.chunks_exact_mut(profile.format.metadata())) {
            protection.tuple(index, guard).encode(&profile.format, tag);
        }
    }
}

const PREFIX: &str = "t10-dif-type";
/// What tags of unknown meaning are called.
const OPAQUE: &str = "opaque";

#[cfg(test)]
mod tests {
    use super::*;

    fn tagger(name: &str, block: BlockSize) -> Tagger {
        let source: TagSource = name.parse().unwrap();
        let bytes = usize::from(source.tag_bytes().unwrap_or(8));
        Tagger::new(source, None, None, block, bytes).unwrap()
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for kind in ProtectionType::ALL {
            for guard in Guard::ALL {
                let source = TagSource::Above(Some(TupleKind { kind, guard }));
                assert_eq!(source.to_string().parse(), Ok(source));
            }
        }
        assert_eq!("t10-dif-type1-crc16".parse(), Ok(TagSource::Above(Some(TupleKind::FOUND[0]))));
        assert_eq!("crc32c".parse(), Ok(TagSource::Hash(Algorithm::Crc32c)));
        assert_eq!("opaque".parse(), Ok(TagSource::Above(None)));
        for wrong in ["t10-dif-type0-crc16", "t10-dif-type4-ip", "t10-dif-type1-md5", "t10-dif-"] {
            assert!(wrong.parse::<TagSource>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_tuple_of_a_block_names_its_guard_and_its_number() {
        // pi specification, section 2.7: 512 incrementing bytes have guard 4f10.
        let data: Vec<u8> = (0..=255).chain(0..=255).collect();
        let mut tag = [0; 8];
        tagger("t10-dif-type1-crc16", BlockSize::B512).sign(0x2345_6789, &data, &mut tag);
        assert_eq!(tag, [0x4f, 0x10, 0, 0, 0x23, 0x45, 0x67, 0x89]);
        // Blocks are counted, not sectors; type 3 has no numbers.
        let (data, mut tag) = ([0; 4096], [0; 8]);
        tagger("t10-dif-type2-ip", BlockSize::B4096).sign(80, &data, &mut tag);
        assert_eq!(tag, [0xff, 0xff, 0, 0, 0, 0, 0, 10]);
        tagger("t10-dif-type3-ip", BlockSize::B4096).sign(80, &data, &mut tag);
        assert_eq!(tag, [0xff, 0xff, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn tags_of_zeroes_are_those_that_vouch_for_them() {
        for kind in ProtectionType::ALL {
            for guard in Guard::ALL {
                let tagger = tagger(&TupleKind { kind, guard }.to_string(), BlockSize::B4096);
                let bytes = tagger.tag_bytes();
                let (mut filled, mut signed) = (vec![1; 3 * bytes], vec![2; 3 * bytes]);
                tagger.of_zeroes().fill(8 * 7, &mut filled);
                tagger.sign(8 * 7, &[0; 3 * 4096], &mut signed);
                assert_eq!(filled, signed, "type {kind:?}, {guard}");
            }
        }
    }

    #[test]
    fn what_disowns_a_block_never_vouches_for_it_and_is_no_escape() {
        for guard in Guard::ALL {
            for kind in ProtectionType::ALL {
                let tagger = tagger(&TupleKind { kind, guard }.to_string(), BlockSize::B4096);
                let data = [0x5a; 4096];
                let tag = tagger.disowning(8, Some(&data));
                assert_eq!(tagger.evidence(8, &data, &tag), Evidence::Differs, "{guard}");
                assert_eq!(tagger.verify(8, &data, &tag), None, "the layer does not ask");
            }
        }
    }

    #[test]
    fn escapes_and_zeroes_are_no_evidence() {
        let tagger = tagger("t10-dif-type1-crc16", BlockSize::B512);
        let data = [3; 512];
        let mut tag = [0; 8];
        assert_eq!(tagger.evidence(7, &data, &tag), Evidence::None);
        assert_eq!(tagger.evidence(7, &data, &[0xff; 8]), Evidence::None);
        tagger.sign(7, &data, &mut tag);
        assert_eq!(tagger.evidence(7, &data, &tag), Evidence::Fits);
        assert_eq!(tagger.evidence(8, &data, &tag), Evidence::Differs, "it belongs elsewhere");
    }

    #[test]
    fn what_does_not_go_together_is_refused_with_both_numbers() {
        let source = |name: &str| name.parse::<TagSource>().unwrap();
        let new = |name, block, bytes| Tagger::new(source(name), None, None, block, bytes);
        let error = new("t10-dif-type1-crc16", BlockSize::B512, 16).unwrap_err();
        assert!(error.to_string().contains("tuples of 8 bytes"), "{error}");
        let key = Key::new([1; 32]).unwrap();
        let keyed = Tagger::new(source("t10-dif-type1-ip"), Some(&key), None, BlockSize::B512, 8);
        assert_eq!(keyed.unwrap_err(), SourceError::KeyAbove);
    }
}
