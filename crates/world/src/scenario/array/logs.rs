//! What lies beside the superblocks of a scenario's members when they are made.

use ::md::bad_blocks::BadBlocks;
use ::md::bitmap::{Bitmap, NewBitmap};
use ::md::ppl::{Entry, HEADER_BYTES, encode_header};
use ::md::superblock::Superblock;
use bio::{Buf, Device};
use units::{SECTOR_BYTES, u64_of};

/// A bitmap of chunks of 4 KiB, whose bits are cleared as soon as possible.
pub(super) async fn write_bitmap(top: &Device, superblock: &mut Superblock) -> Result<(), String> {
    let sectors = top.limits().sectors;
    superblock.place_bitmap(sectors);
    let room_bytes = superblock.bitmap_room(sectors).ok_or("no bitmap")?;
    let new = NewBitmap { superblock, room_bytes, chunk_bytes: Some(4096), dirty: false };
    let mut bitmap = Bitmap::new(&new).map_err(|error| error.to_string())?;
    bitmap.set_daemon_sleep(0);
    bitmap.pad_to(top.limits().logical_block.bytes());
    let bytes = Buf::copy_of(&bitmap.encode(0..bitmap.area_bytes()));
    let at = superblock.bitmap_sector().ok_or("no bitmap")?;
    top.write(at, bytes).await.map_err(|error| error.to_string())
}

/// A bad block log that has room for [`ROOM`] entries. The others name sectors that no array uses.
pub(super) async fn crowd(top: &Device, superblock: &mut Superblock) -> Result<(), String> {
    let place = superblock.bad_block_log().ok_or("no bad block log")?;
    let mut log = BadBlocks::empty(place.sectors);
    for entry in 0..u64_of(log.used().1).saturating_sub(ROOM) {
        let sector = FAR + 2 * entry;
        if !log.record(&(sector..sector + 1)) {
            return Err("the log is full already".into());
        }
    }
    superblock.set_has_bad_blocks(true);
    let written = top.write(place.sector, Buf::copy_of(&log.encode())).await;
    written.map_err(|error| error.to_string())
}

/// An empty partial parity log; or of the member in slot `aged` one in which records of a life before lie, as
/// Linux puts them one behind the other: all of rows of zeroes.
pub(super) async fn begin_ppl(
    top: &Device,
    superblock: &Superblock,
    aged: Option<usize>,
) -> Result<(), String> {
    let (set, at) = (superblock.set_uuid(), superblock.ppl().ok_or("no log")?.sector);
    let mut area = encode_header(set, 0, &[]);
    if let Some(slot) = aged {
        let geometry = superblock.geometry().ok_or("no shape")?.map_err(|why| why.to_string())?;
        let mut stripes = (0..).filter(|&stripe| geometry.p_slot(stripe) == slot);
        let parity = [0; SECTOR_BYTES];
        area.clear();
        for (generation, stripe) in (5..7).zip(&mut stripes) {
            let entry = Entry::new(&geometry, (stripe, 0), &(0..1), &parity, 1);
            area.extend(encode_header(set, generation, &[entry]));
            area.extend(parity);
        }
        debug_assert_eq!(area.len(), 2 * (HEADER_BYTES + SECTOR_BYTES));
    }
    let written = top.write(at, Buf::copy_of(&area)).await;
    written.map_err(|error| error.to_string())
}

/// Entries for which a crowded log has room.
pub(crate) const ROOM: u64 = 20;
/// Where no array of a scenario has anything.
const FAR: u64 = 1 << 40;
