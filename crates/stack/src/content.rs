//! What lies on a device before it is overwritten: signatures, and whether anything is not zero.

use crate::signature::{HEAD_BYTES, Signature, TAIL_BYTES, find};
use crate::trial::read_bytes;
use bio::{Device, IoError};
use runtime::join_all;
use units::{SECTOR, Sector, u64_of, usize_of};

/// What was found on a device.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Content {
    /// Known formats.
    pub signatures: Vec<Signature>,
    /// The first sector that is not zero, of those looked at; one that cannot be read counts.
    pub not_zero: Option<Sector>,
    /// Every sector was looked at, and is zero.
    pub blank: bool,
}

/// How much of a device is looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Thoroughness {
    /// All that is stored; holes are skipped.
    Full,
    /// Both ends, and pieces in between.
    Sampled,
}

/// Looks for signatures only.
pub(crate) async fn signatures(device: &Device) -> Result<Vec<Signature>, IoError> {
    let bytes = Sector(device.limits().sectors).bytes();
    let head_bytes = bytes.min(u64_of(HEAD_BYTES));
    let tail_bytes = bytes.min(u64_of(TAIL_BYTES));
    if bytes == 0 {
        return Ok(Vec::new());
    }
    // What cannot be read has no signature; that it cannot be read is found out elsewhere.
    let head = read_bytes(device, 0, usize_of(head_bytes)).await?.unwrap_or_default();
    let tail = read_bytes(device, bytes - tail_bytes, usize_of(tail_bytes)).await?;
    Ok(find(&head, &tail.unwrap_or_default(), bytes))
}

/// Looks at `device`. `on_progress` is told how many bytes of all were looked at.
pub(crate) async fn look(
    device: &Device,
    thoroughness: Thoroughness,
    on_progress: &mut dyn FnMut(u64, u64),
) -> Result<Content, IoError> {
    let signatures = signatures(device).await?;
    let sectors = device.limits().sectors;
    let not_zero = match thoroughness {
        Thoroughness::Full => first_stored(device, sectors, on_progress).await?,
        Thoroughness::Sampled => first_sampled(device, sectors).await?,
    };
    let blank = thoroughness == Thoroughness::Full && not_zero.is_none();
    Ok(Content { signatures, not_zero, blank })
}

/// Reads everything that is stored, in order, up to the first sector that is not zero.
async fn first_stored(
    device: &Device,
    sectors: u64,
    on_progress: &mut dyn FnMut(u64, u64),
) -> Result<Option<Sector>, IoError> {
    let mut at = 0;
    while at < sectors {
        for run in device.allocation(Sector(at), sectors - at).await? {
            if !run.hole
                && let Some(found) = first_in(device, at, run.sectors, on_progress).await?
            {
                return Ok(Some(found));
            }
            at += run.sectors;
            on_progress(at * SECTOR, sectors * SECTOR);
        }
    }
    Ok(None)
}

async fn first_in(
    device: &Device,
    start: u64,
    sectors: u64,
    on_progress: &mut dyn FnMut(u64, u64),
) -> Result<Option<Sector>, IoError> {
    let end = start + sectors;
    let mut at = start;
    while at < end {
        let batch_end = (at + PIECE_SECTORS * IN_FLIGHT).min(end);
        let starts = (at..batch_end).step_by(usize_of(PIECE_SECTORS));
        let looks = starts.map(|piece| is_not_zero(device, piece, PIECE_SECTORS.min(end - piece)));
        for found in join_all(looks).await {
            if let Some(sector) = found? {
                return Ok(Some(sector));
            }
        }
        at = batch_end;
        on_progress(at * SECTOR, device.limits().sectors * SECTOR);
    }
    Ok(None)
}

async fn first_sampled(device: &Device, sectors: u64) -> Result<Option<Sector>, IoError> {
    let block = device.limits().logical_block.sectors();
    let piece = SAMPLE_SECTORS.max(block).min(sectors);
    let last = (sectors - piece) / block * block;
    let spread = (0..SAMPLES).map(|i| {
        let at = u128::from(last) * u128::from(i) / u128::from(SAMPLES - 1);
        u64::try_from(at).expect("at most the last piece") / block * block
    });
    let starts: Vec<u64> = spread.collect();
    for batch in starts.chunks(usize_of(IN_FLIGHT)) {
        let looks = batch.iter().map(|&at| is_not_zero(device, at, piece.min(sectors - at)));
        for found in join_all(looks).await {
            if let Some(sector) = found? {
                return Ok(Some(sector));
            }
        }
    }
    Ok(None)
}

/// The first sector of a piece that is not zero, or cannot be read.
async fn is_not_zero(
    device: &Device,
    sector: u64,
    sectors: u64,
) -> Result<Option<Sector>, IoError> {
    match device.read(Sector(sector), sectors).await {
        Ok(buf) => {
            let at = buf.as_slice().iter().position(|&byte| byte != 0);
            Ok(at.map(|at| Sector(sector + u64_of(at) / SECTOR)))
        }
        Err(error) if error.kind.is_damage() => Ok(Some(error.sector)),
        Err(error) => Err(error),
    }
}

/// Sectors of one read.
const PIECE_SECTORS: u64 = (1 << 20) / SECTOR;
/// Reads in flight.
const IN_FLIGHT: u64 = 8;
/// Pieces looked at on a device that is not read in full.
const SAMPLES: u64 = 1024;
/// Sectors of each.
const SAMPLE_SECTORS: u64 = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_device::TestDevice;
    use units::BlockSize;

    fn look_at(disk: &TestDevice, thoroughness: Thoroughness) -> Content {
        let device = disk.device();
        runtime::block_on(async move { look(&device, thoroughness, &mut |_, _| ()).await.unwrap() })
    }

    #[test]
    fn zeroes_are_blank_only_if_all_were_seen() {
        let disk = TestDevice::new(100_000, BlockSize::B4096);
        let full = look_at(&disk, Thoroughness::Full);
        assert_eq!(full, Content { blank: true, ..Content::default() });
        assert_eq!(look_at(&disk, Thoroughness::Sampled), Content::default());
    }

    #[test]
    fn one_bit_anywhere_is_found_by_a_full_look() {
        for sector in [0, 1, 4095, 50_000, 99_999] {
            let disk = TestDevice::new(100_000, BlockSize::B512);
            disk.flip(usize_of(sector * SECTOR) + 511, 0x80);
            assert_eq!(look_at(&disk, Thoroughness::Full).not_zero, Some(Sector(sector)));
        }
    }

    #[test]
    fn both_ends_are_found_by_samples() {
        for sector in [0, 99_999] {
            let disk = TestDevice::new(100_000, BlockSize::B512);
            disk.flip(usize_of(sector * SECTOR), 1);
            assert_eq!(look_at(&disk, Thoroughness::Sampled).not_zero, Some(Sector(sector)));
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_called_zero() {
        let disk = TestDevice::new(4096, BlockSize::B512);
        disk.make_bad(17);
        assert_eq!(look_at(&disk, Thoroughness::Full).not_zero, Some(Sector(17)));
    }

    #[test]
    fn tiny_devices_are_looked_at_too() {
        let disk = TestDevice::new(1, BlockSize::B512);
        disk.flip(510, 0x55);
        disk.flip(511, 0xaa);
        assert_eq!(look_at(&disk, Thoroughness::Sampled).signatures.len(), 1);
    }
}
