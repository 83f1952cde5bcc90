//! Reading the partial parity log that lies beside a member's superblock. What it is for, and writing it,
//! is the parity layer's.

use super::logs::is_beside;
use bio::{Device, IoError};
use md::ppl::{HEADER_BYTES, Log, PplError};
use md::superblock::{Ppl, Superblock};
use units::{SECTOR, Sector};

/// Why the partial parity log of a member says nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PplProblem {
    /// It does not begin with a record of this array.
    #[error(transparent)]
    Record(#[from] PplError),
    /// It cannot be read.
    #[error("the partial parity log cannot be read: {0}")]
    Unreadable(IoError),
    /// It does not lie on the member in whole blocks, apart from superblock and data, or has no room for a
    /// record.
    #[error(
        "the partial parity log at sectors {sector} to {end} of {sectors} is too short, or not alone there"
    )]
    Place {
        /// Where it begins.
        sector: Sector,
        /// The sector behind its last.
        end: u64,
        /// The member's sectors.
        sectors: u64,
    },
}

/// Where the log of the member `device` lies, with its superblock; none: the array has none.
///
/// # Errors
/// [`PplProblem::Place`] if nothing can be logged there.
pub(crate) fn place(device: &Device, superblock: &Superblock) -> Option<Result<Ppl, PplProblem>> {
    let place = superblock.ppl()?;
    let (limits, sectors) = (device.limits(), u64::from(place.sectors));
    let end = place.sector.0.saturating_add(sectors);
    let block = limits.logical_block;
    let whole = block.divides(place.sector.0) && block.divides(sectors);
    let alone = is_beside(superblock, &(place.sector.0..end));
    let fits = end <= limits.sectors && alone && Sector(sectors).bytes() > HEADER;
    let problem = PplProblem::Place { sector: place.sector, end, sectors: limits.sectors };
    Some(if whole && fits { Ok(place) } else { Err(problem) })
}

/// The log of the member `device`; none: the array has none.
pub(super) async fn read_ppl(
    device: &Device,
    superblock: &Superblock,
) -> Option<Result<Log, PplProblem>> {
    let place = match place(device, superblock)? {
        Ok(place) => place,
        Err(problem) => return Some(Err(problem)),
    };
    // At most 32 MiB, since its length has 16 bits.
    let area = device.read(place.sector, place.sectors.into()).await;
    let log = area.map_err(PplProblem::Unreadable);
    Some(log.and_then(|area| Ok(Log::decode(area.as_slice(), superblock.set_uuid())?)))
}

const HEADER: u64 = 8 * SECTOR;
const _: () = assert!(HEADER_BYTES == 4096 && HEADER == 4096);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::testing::{DEVICE_SECTORS, Rig};

    #[test]
    fn a_log_on_the_superblock_or_the_data_is_none() {
        let rig = Rig::with_ppl(3, false);
        let (device, mut superblock) = (rig.disks[0].device(), rig.superblock(0));
        let behind = i16::try_from(DEVICE_SECTORS - 8).unwrap();
        for (offset, sectors, alone) in [
            (behind, 20, true),
            (behind - 1, 20, false),
            (behind, 21, false),
            (8, 16, false),
            (0, 16, false),
            (-8, 9, false),
        ] {
            superblock.set_ppl(offset, sectors);
            let found = place(&device, &superblock).expect("it has one");
            assert_eq!(found.is_ok(), alone, "{offset} {sectors}: {found:?}");
        }
    }
}
