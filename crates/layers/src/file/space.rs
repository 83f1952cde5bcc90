//! Space: zeroes without writing them, and what is stored at all.

use super::{FileDevice, kind_of};
use bio::{Allocation, Buf, IoErrorKind, IoResult};
use runtime::{Allocate, FileKind};
use std::io;
use units::{SECTOR, Sector, u64_of, usize_of};

/// Zeroes written by one call where there is no better way.
const ZEROES_BYTES: u64 = 1 << 20;
/// Runs told at once; whoever wants to know more asks from there on.
const RUNS_MAX: usize = 1024;

impl FileDevice {
    /// Makes `sectors` sectors read as zeroes, giving their space back if `unmap`.
    ///
    /// A crash in between leaves each block as it was or zero, whichever way is taken: no way
    /// writes anything but zeroes.
    pub(super) async fn zero(&self, sector: Sector, sectors: u64, unmap: bool) -> IoResult {
        let fail = |error: &io::Error| kind_of(error).at(sector);
        let (offset, length) = (sector.bytes(), Sector(sectors).bytes());
        let ways: &[&[Allocate]] = if unmap {
            &[&[Allocate::PunchHole]]
        } else {
            &[&[Allocate::ZeroRange], &[Allocate::PunchHole, Allocate::Reserve]]
        };
        for way in ways {
            match self.allocate(way, offset, length).await {
                Ok(true) => return self.keep_size(sector + sectors).await,
                Ok(false) => {}
                Err(error) => return Err(fail(&error)),
            }
        }
        self.write_zeroes(sector, sectors).await
    }

    /// Takes the steps of one way; false if this file cannot.
    async fn allocate(&self, way: &[Allocate], offset: u64, length: u64) -> io::Result<bool> {
        for &step in way {
            match self.file.allocate(step, offset, length).await {
                Ok(()) => {}
                Err(error) if is_unsupported(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    async fn write_zeroes(&self, sector: Sector, sectors: u64) -> IoResult {
        let zeroes = Buf::zeroed(usize_of(ZEROES_BYTES.min(Sector(sectors).bytes())));
        let step = u64_of(zeroes.len()) / SECTOR;
        let mut done = 0;
        while done < sectors {
            let count = step.min(sectors - done);
            let piece = zeroes.slice(0..usize_of(Sector(count).bytes()));
            let mut bio = bio::Bio::write(sector + done, piece);
            self.write(&mut bio, false).await?;
            done += count;
        }
        Ok(())
    }

    /// A hole behind the end of a file that was truncated meanwhile would be lost data, not zeroes:
    /// its last block is written, so that the file reaches as far again. (It is not resized, which
    /// could cut off what a write in flight appends.)
    async fn keep_size(&self, end: Sector) -> IoResult {
        let last = Sector(end.0 - self.limits.logical_block.sectors());
        if self.file.kind() == FileKind::Regular {
            let size = self.file.size_bytes().map_err(|error| kind_of(&error).at(last))?;
            if size < end.bytes() {
                return self.write_zeroes(last, end - last).await;
            }
        }
        Ok(())
    }

    /// See [`bio::BlockDevice::allocation`]. A block that is stored in part is stored.
    pub(super) fn find_allocation(
        &self,
        sector: Sector,
        sectors: u64,
    ) -> IoResult<Vec<Allocation>> {
        let fail = |error: io::Error| kind_of(&error).at(sector);
        let block = u64_of(self.limits.logical_block.bytes());
        let (mut at, end) = (sector.bytes(), (sector + sectors).bytes());
        let mut runs = Runs::default();
        while at < end && runs.0.len() < RUNS_MAX {
            let Some(data) = self.file.next_data(at).map_err(fail)? else {
                // What lies behind the end of a truncated file cannot be read: it is no hole.
                let size = self.file.size_bytes().map_err(fail)?;
                let hole_end = (size - size % block).clamp(at, end);
                runs.push(hole_end - at, true);
                runs.push(end - hole_end, false);
                break;
            };
            let data_block = (data - data % block).clamp(at, end);
            runs.push(data_block - at, true);
            if data_block == end {
                break;
            }
            let hole = self.file.next_hole(data).map_err(fail)?.unwrap_or(end);
            // Beyond `data` in any case, so that this loop ends.
            let stop = hole.min(end).max(data_block + 1).next_multiple_of(block).min(end);
            runs.push(stop - data_block, false);
            at = stop;
        }
        Ok(runs.0)
    }
}

/// Neighbours of one kind are one run.
#[derive(Default)]
struct Runs(Vec<Allocation>);

impl Runs {
    fn push(&mut self, bytes: u64, hole: bool) {
        let sectors = bytes / SECTOR;
        match self.0.last_mut() {
            _ if sectors == 0 => {}
            Some(last) if last.hole == hole => last.sectors += sectors,
            _ => self.0.push(Allocation { sectors, hole }),
        }
    }
}

/// Whether the file system or device cannot do it at all, or not at this alignment.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(kind_of(error), IoErrorKind::Unsupported | IoErrorKind::Invalid)
        || error.kind() == io::ErrorKind::Unsupported
}
