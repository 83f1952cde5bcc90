//! Reads and writes: all of it or an error with the place.

use super::{FileDevice, kind_of};
use bio::{Bio, Buf, IoErrorKind, IoResult, Segments};
use runtime::Alignment;
use std::io;
use units::{Sector, u64_of};

impl FileDevice {
    pub(super) async fn read(&self, bio: &mut Bio) -> IoResult {
        if bio.bypass {
            self.file.forget_cached(bio.sector.bytes(), u64_of(bio.data.len_bytes()));
        }
        let given = std::mem::take(&mut bio.data);
        if self.suits(&given) {
            let (result, data) = self.read_all(bio.sector, given).await;
            bio.data = data;
            return result;
        }
        let bounce = Buf::alloc(given.len_bytes()).into();
        let (result, bounce) = self.read_all(bio.sector, bounce).await;
        bio.data = given;
        bio.data.copy_from(0, bounce.into_single().as_slice());
        result
    }

    pub(super) async fn write(&self, bio: &mut Bio, fua: bool) -> IoResult {
        if fua {
            self.sync.refuse_if_failed(bio.sector)?;
        }
        // Past the page cache the device itself can make this write durable. In it, a sync may tell
        // of other writes as well, and must be one that everybody hears.
        let durable = fua && self.is_direct();
        let given = std::mem::take(&mut bio.data);
        let result;
        if self.suits(&given) {
            (result, bio.data) = self.write_all(bio.sector, given, durable).await;
        } else {
            let mut bounce = Buf::alloc(given.len_bytes());
            given.copy_to(0, bounce.as_mut_slice());
            bio.data = given;
            (result, _) = self.write_all(bio.sector, bounce.into(), durable).await;
        }
        match result {
            // Not written for want of space: nothing was lost that was there before.
            Err(error) if durable && error.kind != IoErrorKind::NoSpace => {
                self.sync.fail(error.kind);
                Err(error)
            }
            Ok(()) if fua && !durable => {
                self.sync.flush(&self.file).await.map_err(|error| error.kind.at(bio.sector))
            }
            result => result,
        }
    }

    /// Whether direct I/O can use these buffers as they are.
    fn suits(&self, data: &Segments) -> bool {
        let Some(Alignment { memory, offset }) = self.alignment() else { return true };
        let memory = memory.max(1);
        data.iter().all(|buf| {
            buf.as_ptr().addr().is_multiple_of(memory) && buf.len().is_multiple_of(offset)
        })
    }

    async fn read_all(&self, sector: Sector, data: Segments) -> (IoResult, Segments) {
        let mut progress = Progress::new(self, sector, &data);
        let mut data = data;
        while !progress.is_complete() {
            let result;
            (result, data) = self.file.read_rest_at(data, progress.done, sector.bytes()).await;
            if let Err(error) = progress.advance(result) {
                return (Err(error), data);
            }
        }
        (Ok(()), data)
    }

    async fn write_all(
        &self,
        sector: Sector,
        data: Segments,
        durable: bool,
    ) -> (IoResult, Segments) {
        let mut progress = Progress::new(self, sector, &data);
        let mut data = data;
        while !progress.is_complete() {
            let result;
            (result, data) =
                self.file.write_rest_at(data, progress.done, sector.bytes(), durable).await;
            if let Err(error) = progress.advance(result) {
                return (Err(error), data);
            }
        }
        (Ok(()), data)
    }
}

/// How far a transfer got, in whole blocks: a block in part is a block to be asked for again.
struct Progress {
    sector: Sector,
    block: usize,
    length: usize,
    done: usize,
}

impl Progress {
    fn new(device: &FileDevice, sector: Sector, data: &Segments) -> Self {
        let block = device.limits.logical_block.bytes();
        Self { sector, block, length: data.len_bytes(), done: 0 }
    }

    fn is_complete(&self) -> bool {
        self.done == self.length
    }

    /// The error is that of the first block which was not moved.
    fn advance(&mut self, result: io::Result<usize>) -> IoResult {
        let here = Sector(self.sector.0 + Sector::containing(u64_of(self.done)).0);
        match result {
            Err(error) => Err(kind_of(&error).at(here)),
            Ok(count) => {
                let blocks = count / self.block * self.block;
                self.done += blocks;
                // No error and yet nothing moved: the file ends here.
                if blocks == 0 { Err(IoErrorKind::Medium.at(here)) } else { Ok(()) }
            }
        }
    }
}
