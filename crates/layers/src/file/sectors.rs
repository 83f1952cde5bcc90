//! A file as a disk whose sectors are larger than their data: of 520 bytes, 4104 bytes and the like.
//!
//! ```text
//!   byte  0         512      520        1032     1040
//!         | block 0 | meta 0 | block 1  | meta 1 | ...         512+8, interleaved
//!
//!   byte  0         512       1024           blocks * 512
//!         | block 0 | block 1 | ...          | meta 0 | meta 1 | ... | rest    512+8, at the end
//! ```
//!
//! Interleaved is how such disks store their sectors, and how they are imaged: each block with its
//! metadata behind it. At the end is how QEMU's NVMe device keeps a namespace in a file. Above, both
//! travel side by side ([`Bio::tags`]). The file may be a block device too.
//!
//! Whoever opens it may say what the metadata is ([`SectorFormat::protection`]): that is the device's
//! integrity profile then. With intervals smaller than the block, interleaved, the metadata of each
//! interval lies behind it, as on the wire (the specification of protection information, section 2.6).
//!
//! Such sectors have no alignment that direct I/O knows, so the page cache is used, and a flush is what
//! makes them durable. A disk writes a sector as one; this writes it with one call, which a power cut
//! can tear where the file system does, and with two where the metadata is at the end (first the data).
//! Then the block and its metadata do not fit each other: whoever is above, and verifies, has lost that
//! block until it is written again.
//!
//! Failures are as in the module's head: a file that ends early is a medium error, a failed sync final.

use super::sync::SyncState;
use super::{OpenError, kind_of};
use bio::{Bio, BlockDevice, Buf, IoErrorKind, IoResult, Limits, Op, Segments};
use runtime::{File, OpenOptions};
use std::io;
use std::path::Path;
use units::{Sector, u64_of, usize_of};

pub use format::{SectorFormat, SectorFormatError, SectorLayout};

mod format;

/// A file or block device that holds such sectors. Its size is what it was when opened.
pub struct SectorFile {
    file: File,
    format: SectorFormat,
    /// Where the metadata starts that is at the end.
    metadata_start: u64,
    limits: Limits,
    sync: SyncState,
}

impl SectorFile {
    /// Opens `path`, locked; for reading only unless `write` is set. What is left over after the last
    /// whole sector is not used.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path, format: SectorFormat, write: bool) -> Result<Self, OpenError> {
        let file = File::open(path, &OpenOptions { write, direct_offset_max: 0, lock: true })?;
        let blocks = file.size_bytes()? / u64_of(format.bytes());
        let limits = Limits {
            read_only: !write,
            tag_size: format.metadata.into(),
            protection: format.protection,
            ..Limits::new(blocks * format.block.sectors(), format.block)
        };
        let metadata_start = blocks * u64_of(format.block.bytes());
        Ok(Self { file, format, metadata_start, limits, sync: SyncState::default() })
    }

    /// The open file, for what only a leaf has: its kind, its device number.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// How it is accessed, in words.
    #[must_use]
    pub fn describe(&self) -> String {
        let end = match self.format.layout {
            SectorLayout::Interleaved => "",
            SectorLayout::AtEnd => ", metadata at the end",
        };
        format!("page cache, {} bytes for each sector{end}", self.format)
    }

    async fn read(&self, bio: &mut Bio) -> IoResult {
        let (block, metadata) = (self.format.block.bytes(), self.limits.tag_size);
        let wants_tags = !bio.tags.is_empty();
        for (start, count) in self.pieces(bio) {
            let place = bio.sector + u64_of(start) * self.format.block.sectors();
            if self.format.layout == SectorLayout::Interleaved {
                let read = self.read_all(bio.bypass, self.interleaved(place), count).await?;
                let (data, tags) = self.format.unit();
                let sectors = read.as_slice().chunks_exact(data + tags);
                for (index, sector) in (start * block / data..).zip(sectors) {
                    bio.data.copy_from(index * data, &sector[..data]);
                    if wants_tags {
                        bio.tags.copy_from(index * tags, &sector[data..]);
                    }
                }
                continue;
            }
            let data = self.read_all(bio.bypass, self.data_at_start(place), count).await?;
            bio.data.copy_from(start * block, data.as_slice());
            if wants_tags {
                let place = self.metadata_at_end(place);
                let mut tags = self.read_all(bio.bypass, place, count).await?;
                self.see_blanks(data.as_slice(), tags.as_mut_slice());
                bio.tags.copy_from(start * metadata, tags.as_slice());
            }
        }
        Ok(())
    }

    async fn write(&self, bio: &Bio, fua: bool) -> IoResult {
        let (block, metadata) = (self.format.block.bytes(), self.limits.tag_size);
        if fua {
            self.sync.refuse_if_failed(bio.sector)?;
        }
        // What is written without data has zeroes, what without tags the blank.
        let data_of = |offset: usize, target: &mut [u8]| {
            if !bio.data.is_empty() {
                bio.data.copy_to(offset, target);
            }
        };
        let tags_of = |offset: usize, target: &mut [u8]| {
            if bio.tags.is_empty() {
                target.fill(self.limits.blank_tag());
            } else {
                bio.tags.copy_to(offset, target);
            }
        };
        for (start, count) in self.pieces(bio) {
            let place = bio.sector + u64_of(start) * self.format.block.sectors();
            if self.format.layout == SectorLayout::Interleaved {
                let mut sectors = Buf::zeroed(count * self.format.bytes());
                let (data, tags) = self.format.unit();
                let each = sectors.as_mut_slice().chunks_exact_mut(data + tags);
                for (index, sector) in (start * block / data..).zip(each) {
                    let (to_data, to_tags) = sector.split_at_mut(data);
                    data_of(index * data, to_data);
                    tags_of(index * tags, to_tags);
                }
                self.write_all(self.interleaved(place), sectors).await?;
                continue;
            }
            // 1. The data; a crash leaves it with the old metadata, which does not fit it.
            // 2. The metadata.
            let mut data = Buf::zeroed(count * block);
            data_of(start * block, data.as_mut_slice());
            self.write_all(self.data_at_start(place), data).await?;
            let mut tags = Buf::zeroed(count * metadata);
            tags_of(start * metadata, tags.as_mut_slice());
            self.write_all(self.metadata_at_end(place), tags).await?;
        }
        if fua {
            // In the page cache a sync may tell of other writes as well: everybody hears it.
            let flushed = self.sync.flush(&self.file).await;
            flushed.map_err(|error| error.kind.at(bio.sector))?;
        }
        Ok(())
    }

    /// In QEMU's layout blocks that were never written are zeroes, metadata too; its device reads their
    /// metadata as the blank of protection information, and so do we.
    fn see_blanks(&self, data: &[u8], tags: &mut [u8]) {
        if self.format.protection.is_none() {
            return;
        }
        let is_zero = |bytes: &[u8]| {
            bytes.chunks(64).all(|piece| piece.iter().fold(0, |all, byte| all | byte) == 0)
        };
        let each = tags.chunks_exact_mut(self.limits.tag_size);
        for (data, tags) in data.chunks_exact(self.format.block.bytes()).zip(each) {
            if is_zero(tags) && is_zero(data) {
                tags.fill(self.limits.blank_tag());
            }
        }
    }

    /// The first block and the count of what is moved by one call, in order: about a MiB each.
    fn pieces(&self, bio: &Bio) -> impl Iterator<Item = (usize, usize)> + use<> {
        let blocks = usize_of(bio.sectors() / self.format.block.sectors());
        let at_once = PIECE_BYTES / self.format.bytes();
        (0..blocks).step_by(at_once).map(move |start| (start, at_once.min(blocks - start)))
    }

    fn interleaved(&self, sector: Sector) -> Place {
        let offset = self.format.file_byte(sector.bytes());
        Place { sector, offset, each: self.format.bytes() }
    }

    fn data_at_start(&self, sector: Sector) -> Place {
        Place { sector, offset: sector.bytes(), each: self.format.block.bytes() }
    }

    fn metadata_at_end(&self, sector: Sector) -> Place {
        let each = self.limits.tag_size;
        let block = sector.0 / self.format.block.sectors();
        Place { sector, offset: self.metadata_start + block * u64_of(each), each }
    }

    async fn read_all(&self, bypass: bool, place: Place, count: usize) -> IoResult<Buf> {
        let bytes = count * place.each;
        if bypass {
            self.file.forget_cached(place.offset, u64_of(bytes));
        }
        let mut data = Segments::from(Buf::alloc(bytes));
        let mut done = 0;
        while done < data.len_bytes() {
            let result;
            (result, data) = self.file.read_rest_at(data, done, place.offset).await;
            done += self.moved(result, place, done)?;
        }
        Ok(data.into_single())
    }

    async fn write_all(&self, place: Place, bytes: Buf) -> IoResult {
        let mut data = Segments::from(bytes);
        let mut done = 0;
        while done < data.len_bytes() {
            let result;
            (result, data) = self.file.write_rest_at(data, done, place.offset, false).await;
            done += self.moved(result, place, done)?;
        }
        Ok(())
    }

    /// Bytes that were moved; the error is that of the first block which was not.
    fn moved(&self, result: io::Result<usize>, place: Place, done: usize) -> IoResult<usize> {
        let here = place.sector + u64_of(done / place.each) * self.format.block.sectors();
        match result {
            Err(error) => Err(kind_of(&error).at(here)),
            // No error and yet nothing moved: the file ends here.
            Ok(0) => Err(IoErrorKind::Medium.at(here)),
            Ok(count) => Ok(count),
        }
    }
}

/// Where blocks, or their data or metadata alone, lie in the file.
#[derive(Clone, Copy)]
struct Place {
    /// The first block's.
    sector: Sector,
    /// In bytes.
    offset: u64,
    /// Bytes of each block there.
    each: usize,
}

impl BlockDevice for SectorFile {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    async fn submit(&self, bio: &mut Bio) -> IoResult {
        match bio.op {
            Op::Read => self.read(bio).await,
            Op::Write { fua } => self.write(bio, fua).await,
            Op::WriteZeroes { .. } => self.write(bio, false).await,
            Op::Flush => self.sync.flush(&self.file).await,
            Op::Discard { .. } | Op::Vouch | Op::Peek { .. } => {
                Err(IoErrorKind::Unsupported.at(bio.sector))
            }
        }
    }
}

/// Bytes of the file that are moved by one call; larger than any sector.
const PIECE_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use bio::Device;
    use proptest::prelude::*;
    use runtime::Runtime;

    fn block_on(future: impl Future<Output = ()> + 'static) {
        Runtime::new().unwrap().block_on(future);
    }

    fn format(text: &str) -> SectorFormat {
        text.parse().unwrap()
    }

    fn at_end(text: &str) -> SectorFormat {
        SectorFormat { layout: SectorLayout::AtEnd, ..format(text) }
    }

    /// A file of `blocks` zeroed sectors.
    fn file(format: SectorFormat, blocks: usize) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(u64_of(blocks * format.bytes())).unwrap();
        file
    }

    fn open(file: &tempfile::NamedTempFile, format: SectorFormat) -> Device {
        Device::new(SectorFile::open(file.path(), format, true).unwrap())
    }

    #[test]
    fn blocks_and_metadata_alternate_in_the_file() {
        block_on(async {
            let format = format("512+8");
            let file = file(format, 10);
            let device = open(&file, format);
            assert_eq!((device.limits().sectors, device.limits().tag_size), (10, 8));
            let data = [[1; 512], [2; 512]].concat();
            let tags = [[11; 8], [12; 8]].concat();
            let mut bio =
                Bio::write_fua(Sector(3), Buf::copy_of(&data)).tagged(Buf::copy_of(&tags));
            device.submit(&mut bio).await.unwrap();
            device.write(Sector(4), Buf::copy_of(&[3; 512])).await.unwrap();
            let mut expected = vec![0; 5200];
            expected[1560..2072].fill(1);
            expected[2072..2080].fill(11);
            expected[2080..2592].fill(3);
            assert!(std::fs::read(file.path()).unwrap() == expected);
            device.submit(&mut Bio::write_zeroes(Sector(3), 1, true)).await.unwrap();
            expected[1560..2080].fill(0);
            assert!(std::fs::read(file.path()).unwrap() == expected);
        });
    }

    #[test]
    fn metadata_at_the_end_starts_behind_the_data_of_whole_blocks() {
        block_on(async {
            let format = at_end("512+8");
            let file = file(format, 10);
            // A rest that is no block.
            file.as_file().set_len(5200 + 519).unwrap();
            let device = open(&file, format);
            assert_eq!((device.limits().sectors, device.limits().tag_size), (10, 8));
            let (data, tags) = ([[1; 512], [2; 512]].concat(), [[11; 8], [12; 8]].concat());
            let mut bio = Bio::write(Sector(3), Buf::copy_of(&data)).tagged(Buf::copy_of(&tags));
            device.submit(&mut bio).await.unwrap();
            let mut expected = vec![0; 5719];
            expected[1536..2048].fill(1);
            expected[2048..2560].fill(2);
            expected[5144..5152].fill(11);
            expected[5152..5160].fill(12);
            assert!(std::fs::read(file.path()).unwrap() == expected);
        });
    }

    #[test]
    fn the_opener_says_what_the_metadata_is_and_intervals_lie_as_on_the_wire() {
        block_on(async {
            let format = format("4096+64/t10-dif-type2-crc16-interval512");
            let file = file(format, 4);
            let device = open(&file, format);
            let profile = device.limits().protection.unwrap();
            assert_eq!((profile.format.interval(), profile.format.metadata()), (512, 8));
            assert_eq!(device.limits().tag_size, 64);
            let protection = dif::Protection::at(profile, 8);
            let (data, mut tags) = ([7; 4096], [0; 64]);
            protection.generate([&data[..]], [&mut tags[..]]);
            let mut bio = Bio::write(Sector(8), Buf::copy_of(&data)).tagged(Buf::copy_of(&tags));
            device.submit(&mut bio).await.unwrap();
            let stored = std::fs::read(file.path()).unwrap();
            assert_eq!(protection.verify_interleaved([&stored[4160..8320]]), Ok(()));
            let mut bio = Bio::read(Sector(8), 8).tagged(Buf::alloc(64));
            device.submit(&mut bio).await.unwrap();
            assert!(bio.data.into_single().as_slice() == data);
            assert!(bio.tags.into_single().as_slice() == tags);
        });
    }

    #[test]
    fn blocks_without_tuples_are_escaped_where_tuples_are_expected() {
        block_on(async {
            let format = at_end("512+8/t10-dif-type1-crc16");
            let file = file(format, 10);
            let device = open(&file, format);
            device.write(Sector(1), Buf::copy_of(&[7; 512])).await.unwrap();
            let mut bio = Bio::read(Sector(0), 3).tagged(Buf::alloc(24));
            device.submit(&mut bio).await.unwrap();
            assert_eq!(bio.tags.into_single().as_slice(), [0xff; 24]);
            // In the file only what was written is; the rest is as QEMU leaves it.
            let mut expected = vec![0; 5200];
            expected[512..1024].fill(7);
            expected[5128..5136].fill(0xff);
            assert!(std::fs::read(file.path()).unwrap() == expected);
        });
    }

    #[test]
    fn a_file_that_ends_within_a_sector_has_lost_that_one() {
        block_on(async {
            let format = format("4096+64");
            let file = file(format, 4);
            let device = open(&file, format);
            file.as_file().set_len(3 * 4160 - 1).unwrap();
            let error = device.read(Sector(0), 32).await.unwrap_err();
            assert_eq!(error, IoErrorKind::Medium.at(Sector(16)));
            assert!(device.read(Sector(0), 16).await.is_ok());
        });
    }

    #[test]
    fn read_only_it_is_not_written() {
        let format = format("512+8");
        let file = file(format, 4);
        let device = Device::new(SectorFile::open(file.path(), format, false).unwrap());
        block_on(async move {
            let error = device.write(Sector(0), Buf::zeroed(512)).await.unwrap_err();
            assert_eq!(error, IoErrorKind::ReadOnly.at(Sector(0)));
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn it_behaves_like_an_array_of_sectors(
            steps in prop::collection::vec((0u8..4, 0u64..600, 1u64..600, any::<u8>()), 1..12),
            large in any::<bool>(),
            is_at_end in any::<bool>(),
        ) {
            block_on(async move {
                // Requests of more than a piece, in blocks of both ends.
                let format = format(if large { "4096+8" } else { "512+2048" });
                let layout =
                    if is_at_end { SectorLayout::AtEnd } else { SectorLayout::Interleaved };
                let format = SectorFormat { layout, ..format };
                let (block, spb) = (format.block.bytes(), format.block.sectors());
                let file = file(format, 600);
                let device = open(&file, format);
                let mut model = vec![0; 600 * format.bytes()];
                for (what, first, count, fill) in steps {
                    let count = count.min(600 - first);
                    let (place, blocks) = (Sector(first * spb), usize_of(count));
                    let data = Buf::copy_of(&vec![fill; blocks * block]);
                    let tags = Buf::copy_of(&vec![!fill; blocks * device.limits().tag_size]);
                    let mut bio = match what {
                        0 | 1 => Bio::write(place, data).tagged(tags),
                        2 => Bio::write(place, data),
                        _ => Bio::write_zeroes(place, count * spb, false),
                    };
                    device.submit(&mut bio).await.unwrap();
                    let range = usize_of(first) * format.bytes()..usize_of(first + count) * format.bytes();
                    for sector in model[range].chunks_exact_mut(format.bytes()) {
                        sector[..block].fill(if what == 3 { 0 } else { fill });
                        sector[block..].fill(if what < 2 { !fill } else { 0 });
                    }
                }
                let stored = std::fs::read(file.path()).unwrap();
                if is_at_end {
                    let (data, tags) = stored.split_at(600 * block);
                    let each = data.chunks_exact(block).zip(tags.chunks_exact(format.metadata.into()));
                    assert!(model == each.flat_map(|(data, tags)| [data, tags].concat()).collect::<Vec<u8>>());
                } else {
                    assert!(stored == model);
                }
                let tags = Buf::alloc(600 * device.limits().tag_size);
                let mut bio = Bio::read(Sector::ZERO, 600 * spb).tagged(tags);
                device.submit(&mut bio).await.unwrap();
                let (data, tags) = (bio.data.into_single(), bio.tags.into_single());
                let read = data.as_slice().chunks_exact(block);
                let read = read.zip(tags.as_slice().chunks_exact(format.metadata.into()));
                for ((data, tags), sector) in read.zip(model.chunks_exact(format.bytes())) {
                    assert!(data == &sector[..block] && tags == &sector[block..]);
                }
            });
        }
    }
}
