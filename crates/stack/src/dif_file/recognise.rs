//! What a file without any superblock looks like, if its blocks have tuples that fit them.
//!
//! Nothing in such a file says what it is. A handful of places are read, and every format that is in use
//! is tried on them: a guard that fits data which is not all zeroes is no accident when several do. Which
//! type it is, the reference tags say: they count from 0 on (type 1), from another number (type 2), or do
//! not count (type 3).

use super::image::{Image, Layout};
use dif::{Format, Guard, Place, Profile, ProtectionType, Running, Tuple};
use serde::Serialize;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use units::{u64_of, usize_of};

/// What a file looks like.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Likeness {
    /// As [`Layout::name`].
    pub layout: &'static str,
    /// Format and type in words.
    pub profile: String,
    /// Bytes of a block's data.
    pub block_size: usize,
    /// Bytes of a block's metadata.
    pub metadata_size: usize,
    /// Protection type.
    #[serde(rename = "type")]
    pub kind: u8,
    /// The guard's name.
    pub guard: &'static str,
    /// `first` or `last`.
    pub tuple: &'static str,
    /// What the first block's reference tag is, of type 2.
    pub ref_tag: Option<u64>,
    /// Sampled intervals whose guard fits; those that say nothing (zeroes, escapes) are not counted.
    pub verified: usize,
    /// Sampled intervals whose guard does not.
    pub refuted: usize,
}

impl Likeness {
    /// The options that name it, for `steadfast dif`.
    #[must_use]
    pub fn options(&self) -> String {
        let Self { layout, block_size, metadata_size, kind, guard, tuple, .. } = self;
        let reference = self.ref_tag.map(|tag| format!(" --ref-tag 0x{tag:x}")).unwrap_or_default();
        format!(
            "--layout {layout} --block-size {block_size} --metadata-size {metadata_size} \
             --type {kind} --guard {guard} --tuple {tuple}{reference}"
        )
    }
}

/// Blocks with metadata that disks and NVMe devices are formatted with.
const SIZES: [(usize, usize); 9] = [
    (512, 8),
    (512, 16),
    (512, 64),
    (1024, 8),
    (2048, 8),
    (4096, 8),
    (4096, 16),
    (4096, 64),
    (4096, 128),
];
/// Bytes of each place that is read, and of the first one.
const PLACE_BYTES: usize = 32 << 10;
const HEAD_BYTES: usize = 256 << 10;
/// Places besides the first.
const PLACES: u64 = 8;
/// Intervals of a place that are tried: once some of them say something, more add nothing.
const TRIED_MAX: usize = 16;

/// Everything that the file looks like, the best first; more than one: it is ambiguous. A MiB is read.
///
/// # Errors
/// What the system says of the file.
pub fn recognise(path: &Path) -> io::Result<Vec<Likeness>> {
    let file = File::open(path)?;
    // Of a block device, metadata has no length.
    let bytes = io::Seek::seek(&mut &file, io::SeekFrom::End(0))?;
    let places = read_places(&file, bytes)?;
    let mut found = Vec::new();
    for (block, metadata) in SIZES {
        let nvme = qemu_metadata(&file, bytes, (block, metadata), &places)?;
        for format in formats(block, metadata) {
            found.extend(judge(Layout::Interleaved, format, interleaved(&places, &format)));
            found.extend(judge(Layout::NvmeQemu, format, apart(&places, &nvme, &format)));
        }
    }
    found.sort_by_key(|like| std::cmp::Reverse((like.verified, std::cmp::Reverse(like.refuted))));
    let best = found.first().map_or(0, |like| like.verified);
    // Beside what fits everywhere, what fits here and there is an accident.
    found.retain(|like| like.verified * 2 > best);
    Ok(found)
}

/// Bytes of the file from an offset on.
struct Seen {
    offset: u64,
    bytes: Vec<u8>,
}

fn read_at(file: &File, offset: u64, length: usize) -> io::Result<Seen> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(Seen { offset, bytes })
}

/// Its start, and places spread over the rest.
fn read_places(file: &File, bytes: u64) -> io::Result<Vec<Seen>> {
    let head = usize_of(bytes.min(u64_of(HEAD_BYTES)));
    let mut places = vec![read_at(file, 0, head)?];
    let rest = bytes - u64_of(head);
    if rest >= PLACES * u64_of(PLACE_BYTES) {
        for place in 0..PLACES {
            let offset = u64_of(head) + (rest - u64_of(PLACE_BYTES)) / PLACES * place;
            places.push(read_at(file, offset, PLACE_BYTES)?);
        }
    }
    Ok(places)
}

/// The whole blocks of `length` bytes in a place, as numbers.
fn whole(place: &Seen, length: usize) -> impl Iterator<Item = u64> + use<> {
    let end = (place.offset + u64_of(place.bytes.len())) / u64_of(length);
    (place.offset.div_ceil(u64_of(length))..end).take(TRIED_MAX)
}

/// The metadata of the blocks in each place, if it lies where QEMU has it.
fn qemu_metadata(
    file: &File,
    bytes: u64,
    (block, metadata): (usize, usize),
    places: &[Seen],
) -> io::Result<Vec<Option<Seen>>> {
    let blocks = bytes / u64_of(block + metadata);
    let each = places.iter().map(|place| {
        let numbers: Vec<u64> = whole(place, block).filter(|&number| number < blocks).collect();
        let Some(&first) = numbers.first() else { return Ok(None) };
        let offset = blocks * u64_of(block) + first * u64_of(metadata);
        read_at(file, offset, numbers.len() * metadata).map(Some)
    });
    each.collect()
}

/// The formats that such metadata may have.
fn formats(block: usize, metadata: usize) -> Vec<Format> {
    let mut formats = Vec::new();
    for guard in Guard::ALL {
        for place in [Place::Last, Place::First] {
            let format = Format::new(guard, block);
            let Ok(format) = format.and_then(|format| format.with_metadata(metadata, place)) else {
                continue;
            };
            // Where the tuple is all there is, first is last.
            if place == Place::Last || metadata > format.tuple_bytes() {
                formats.push(format);
            }
        }
    }
    formats
}

/// An interval: its number, its data, its metadata.
type Sample<'a> = (u64, &'a [u8], &'a [u8]);

fn interleaved<'a>(places: &'a [Seen], format: &Format) -> Vec<Sample<'a>> {
    let (interval, stride) = (format.interval(), format.stride());
    let blocks = places.iter().flat_map(|place| {
        whole(place, stride).map(move |number| {
            let start = usize_of(number * u64_of(stride) - place.offset);
            let (data, metadata) = place.bytes[start..start + stride].split_at(interval);
            (number, data, metadata)
        })
    });
    blocks.collect()
}

fn apart<'a>(places: &'a [Seen], metadata: &'a [Option<Seen>], format: &Format) -> Vec<Sample<'a>> {
    let (interval, each) = (format.interval(), format.metadata());
    let mut samples = Vec::new();
    for (place, metadata) in places.iter().zip(metadata) {
        let Some(metadata) = metadata else { continue };
        for (number, metadata) in whole(place, interval).zip(metadata.bytes.chunks_exact(each)) {
            let start = usize_of(number * u64_of(interval) - place.offset);
            samples.push((number, &place.bytes[start..start + interval], metadata));
        }
    }
    samples
}

/// What the samples say of a format, if they speak for it.
fn judge(layout: Layout, format: Format, samples: Vec<Sample<'_>>) -> Option<Likeness> {
    let (mut verified, mut refuted) = (0, 0);
    let mut references: Vec<(u64, u64)> = Vec::new();
    for (number, data, metadata) in samples {
        let tuple = &metadata[format.tuple_offset()..][..format.tuple_bytes()];
        let tuple = Tuple::decode(&format, tuple);
        // Zeroes fit whatever looks at them, and an escape fits nothing.
        let is_zero = data.iter().all(|&byte| byte == 0);
        if is_zero || tuple.is_escaped(&format, ProtectionType::One) {
            continue;
        }
        let mut running = Running::new(format.guard());
        running.update(data);
        running.update(&metadata[..format.covered_metadata()]);
        if running.value() == tuple.guard {
            verified += 1;
            references.push((number, tuple.reference));
        } else {
            refuted += 1;
        }
        // Wrong from the start: not worth the rest of the look.
        if verified == 0 && refuted >= 8 {
            return None;
        }
    }
    let kind = kind_of(&format, &references);
    // One 16-bit guard alone may be an accident.
    let enough = if format.guard().bytes() > 2 { 1 } else { 2 };
    if verified < enough || verified <= refuted {
        return None;
    }
    let profile = Profile { format, kind: kind.0 };
    let image = Image::new(layout, format.interval(), profile).ok()?;
    Some(Likeness {
        layout: layout.name(),
        profile: profile.to_string(),
        block_size: image.block(),
        metadata_size: image.metadata(),
        kind: kind.0.number(),
        guard: format.guard().name(),
        tuple: if format.place() == Place::First { "first" } else { "last" },
        ref_tag: kind.1,
        verified,
        refuted,
    })
}

/// What reference tags of numbered blocks mean, and the first one's if they count from another number.
fn kind_of(format: &Format, references: &[(u64, u64)]) -> (ProtectionType, Option<u64>) {
    let mask = format.reference_mask();
    let from = |&(number, reference): &(u64, u64)| reference.wrapping_sub(number) & mask;
    let counts = |first: u64| {
        let those = references.iter().filter(|pair| from(pair) == first).count();
        those * 2 > references.len()
    };
    if counts(0) {
        return (ProtectionType::One, None);
    }
    match references.iter().map(from).find(|&first| counts(first)) {
        // One block alone counts from anywhere.
        Some(first) if references.len() > 1 => (ProtectionType::Two, Some(first)),
        _ => (ProtectionType::Three, None),
    }
}
