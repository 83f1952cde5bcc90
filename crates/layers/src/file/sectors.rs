//! A file as a disk whose sectors are larger than their data: of 520 bytes, 4104 bytes and the like.
//!
//! ```text
//!   byte  0         512      520        1032     1040
//!         | block 0 | meta 0 | block 1  | meta 1 | ...         512+8
//! ```
//!
//! That is how such disks store their sectors, and how they are imaged: each block with its metadata
//! behind it. Above, both travel side by side ([`Bio::tags`]). The file may be a block device too.
//!
//! Such sectors have no alignment that direct I/O knows, so the page cache is used, and a flush is what
//! makes them durable. A disk writes a sector as one; this writes it with one call, which a power cut
//! can tear where the file system does. Then the block and its metadata do not fit each other: whoever
//! is above, and verifies, has lost that block until it is written again.
//!
//! Failures are as in the module's head: a file that ends early is a medium error, a failed sync final.

use super::sync::SyncState;
use super::{OpenError, kind_of};
use bio::{Bio, BlockDevice, Buf, IoErrorKind, IoResult, Limits, Op, Segments};
use runtime::{File, OpenOptions};
use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;
use units::{BlockSize, Sector, u64_of, usize_of};

/// What each sector of such a disk consists of. As text `512+8`: data, metadata.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SectorFormat {
    /// The data.
    pub block: BlockSize,
    /// Bytes of metadata behind it, at least one.
    pub metadata: u16,
}

/// Text that names no format of sectors.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "sectors of '{found}' bytes, expected 512, 1024, 2048 or 4096 with metadata behind it, such as \
     512+8 or 4096+64"
)]
pub struct SectorFormatError {
    /// As given.
    pub found: String,
}

impl SectorFormat {
    /// Bytes of a whole sector in the file.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.block.bytes() + usize::from(self.metadata)
    }

    /// Bytes that a file must have for `data_bytes` bytes of data, in whole blocks.
    #[must_use]
    pub fn file_bytes(self, data_bytes: u64) -> u64 {
        (data_bytes / u64_of(self.block.bytes())).saturating_mul(u64_of(self.bytes()))
    }

    /// Where byte `byte` of the data lies in the file.
    #[must_use]
    pub fn file_byte(self, byte: u64) -> u64 {
        let block = u64_of(self.block.bytes());
        byte / block * u64_of(self.bytes()) + byte % block
    }
}

impl FromStr for SectorFormat {
    type Err = SectorFormatError;

    fn from_str(text: &str) -> Result<Self, SectorFormatError> {
        let parsed = text.split_once('+').and_then(|(block, metadata)| {
            let block = BlockSize::from_bytes(block.parse().ok()?)?;
            let metadata = metadata.parse().ok().filter(|&bytes| bytes > 0)?;
            Some(Self { block, metadata })
        });
        parsed.ok_or_else(|| SectorFormatError { found: text.to_owned() })
    }
}

impl fmt::Display for SectorFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.block.bytes(), self.metadata)
    }
}

/// A file or block device that holds such sectors. Its size is what it was when opened.
pub struct SectorFile {
    file: File,
    format: SectorFormat,
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
            ..Limits::new(blocks * format.block.sectors(), format.block)
        };
        Ok(Self { file, format, limits, sync: SyncState::default() })
    }

    /// The open file, for what only a leaf has: its kind, its device number.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// How it is accessed, in words.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("page cache, {} bytes for each sector", self.format)
    }

    async fn read(&self, bio: &mut Bio) -> IoResult {
        let (block, metadata) = (self.format.block.bytes(), self.limits.tag_size);
        let wants_tags = !bio.tags.is_empty();
        for (start, count) in self.pieces(bio) {
            let place = bio.sector + u64_of(start) * self.format.block.sectors();
            if bio.bypass {
                let bytes = u64_of(count * self.format.bytes());
                self.file.forget_cached(self.offset(place), bytes);
            }
            let sectors = self.read_all(place, count).await?;
            for (index, sector) in
                (start..).zip(sectors.as_slice().chunks_exact(self.format.bytes()))
            {
                let (data, tags) = sector.split_at(block);
                bio.data.copy_from(index * block, data);
                if wants_tags {
                    bio.tags.copy_from(index * metadata, tags);
                }
            }
        }
        Ok(())
    }

    async fn write(&self, bio: &Bio, fua: bool) -> IoResult {
        let (block, metadata) = (self.format.block.bytes(), self.limits.tag_size);
        if fua {
            self.sync.refuse_if_failed(bio.sector)?;
        }
        for (start, count) in self.pieces(bio) {
            // Zeroed: what is written without data or tags has zeroes for them.
            let mut sectors = Buf::zeroed(count * self.format.bytes());
            let each = sectors.as_mut_slice().chunks_exact_mut(self.format.bytes());
            for (index, sector) in (start..).zip(each) {
                let (data, tags) = sector.split_at_mut(block);
                if !bio.data.is_empty() {
                    bio.data.copy_to(index * block, data);
                }
                if !bio.tags.is_empty() {
                    bio.tags.copy_to(index * metadata, tags);
                }
            }
            let place = bio.sector + u64_of(start) * self.format.block.sectors();
            self.write_all(place, sectors).await?;
        }
        if fua {
            // In the page cache a sync may tell of other writes as well: everybody hears it.
            let flushed = self.sync.flush(&self.file).await;
            flushed.map_err(|error| error.kind.at(bio.sector))?;
        }
        Ok(())
    }

    /// The first block and the count of what is moved by one call, in order: about a MiB each.
    fn pieces(&self, bio: &Bio) -> impl Iterator<Item = (usize, usize)> + use<> {
        let blocks = usize_of(bio.sectors() / self.format.block.sectors());
        let at_once = PIECE_BYTES / self.format.bytes();
        (0..blocks).step_by(at_once).map(move |start| (start, at_once.min(blocks - start)))
    }

    async fn read_all(&self, sector: Sector, count: usize) -> IoResult<Buf> {
        let mut data = Segments::from(Buf::alloc(count * self.format.bytes()));
        let mut done = 0;
        while done < data.len_bytes() {
            let result;
            (result, data) = self.file.read_rest_at(data, done, self.offset(sector)).await;
            done += self.moved(result, sector, done)?;
        }
        Ok(data.into_single())
    }

    async fn write_all(&self, sector: Sector, sectors: Buf) -> IoResult {
        let mut data = Segments::from(sectors);
        let mut done = 0;
        while done < data.len_bytes() {
            let result;
            (result, data) = self.file.write_rest_at(data, done, self.offset(sector), false).await;
            done += self.moved(result, sector, done)?;
        }
        Ok(())
    }

    /// Bytes that were moved; the error is that of the first block which was not.
    fn moved(&self, result: io::Result<usize>, sector: Sector, done: usize) -> IoResult<usize> {
        let here = sector + u64_of(done / self.format.bytes()) * self.format.block.sectors();
        match result {
            Err(error) => Err(kind_of(&error).at(here)),
            // No error and yet nothing moved: the file ends here.
            Ok(0) => Err(IoErrorKind::Medium.at(here)),
            Ok(count) => Ok(count),
        }
    }

    fn offset(&self, sector: Sector) -> u64 {
        self.format.file_byte(sector.bytes())
    }
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
    fn a_format_is_data_plus_metadata_and_nothing_else() {
        for text in ["512+8", "520+8", "4096+0", "4096", "+8", "512+", "512+65536", "512+-8", "0+8"]
        {
            let parsed = text.parse::<SectorFormat>();
            assert_eq!(parsed.is_ok(), text == "512+8", "{text}");
        }
        let found = format("4096+64");
        assert_eq!((found.to_string(), found.bytes()), ("4096+64".to_owned(), 4160));
        assert_eq!(found.file_bytes(3 * 4096 + 7), 3 * 4160);
        assert_eq!(found.file_byte(4096 + 5), 4160 + 5);
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
        ) {
            block_on(async move {
                // Requests of more than a piece, in blocks of both ends.
                let format = format(if large { "4096+8" } else { "512+2048" });
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
                assert!(std::fs::read(file.path()).unwrap() == model);
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
