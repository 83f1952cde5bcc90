//! Superblocks with flipped bits: rebuilt where something other than hope vouches for the result.
//!
//! Nothing here writes. What is rebuilt is used in memory; the array's next superblock write (a
//! writable opening makes one before its first data write) puts it on the member.
//!
//! | superblock | how it is rebuilt | who vouches |
//! |---|---|---|
//! | md, inside dm-integrity | one bit flipped back | the member's stored tag of that block, and the checksum |
//! | md | the array's fields taken from the peers, the member's own kept | the checksum, over fields of which every one is either its own or agreed by the others |
//! | dm-integrity | one bit flipped back, or a peer's shape with its own salt | written blocks whose tags then fit, and that no other candidate does as well |
//!
//! One flipped bit in a bare md superblock is not searched for: its checksum is a sum, and flipping
//! the same bit of another word gives the same sum.

use integrity::layout::DeviceSectors;
use integrity::superblock::{SUPERBLOCK_BYTES, version_for};
use integrity::{Flags, Layout};
use md::superblock::{Minor, Superblock};

/// The md superblock whose damaged bytes are `raw`, if `fits` (does the stored tag of these bytes
/// agree?) vouches for it with one bit flipped back, or with none (the tag was read while the
/// damage was elsewhere).
pub(crate) fn md_by_tag(
    raw: &[u8],
    minor: Minor,
    device_sectors: u64,
    fits: impl Fn(&[u8]) -> bool,
) -> Option<Superblock> {
    let mut bytes = raw.to_vec();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            bytes[at] ^= 1 << bit;
            if fits(&bytes) {
                return Superblock::decode(&bytes, minor, device_sectors).ok();
            }
            bytes[at] ^= 1 << bit;
        }
    }
    None
}

/// The md superblock whose damaged bytes are `raw`, with what the whole array shares taken from
/// `peer`; none if the checksum stored in `raw` does not vouch for that.
///
/// The md specification, section 2: what is the array's, and what the member's own.
pub(crate) fn md_by_peer(
    raw: &[u8],
    peer: &Superblock,
    minor: Minor,
    device_sectors: u64,
) -> Option<Superblock> {
    let of_peer = peer.encode();
    let mut bytes = of_peer.to_vec();
    for own in OWN_FIELDS {
        bytes[own.clone()].copy_from_slice(raw.get(own)?);
    }
    // The feature map is the member's own too, so peers do not vouch for it.
    bytes[FEATURE_MAP].copy_from_slice(&raw[FEATURE_MAP]);
    Superblock::decode(&bytes, minor, device_sectors).ok()
}

/// Candidates for the dm-integrity superblock whose damaged bytes are `raw`, each with its layout
/// on a device of `sectors` sectors. `peers` are superblocks of the other members.
///
/// A candidate is only taken if it is what `integritysetup` would have made on this device, as
/// nothing else would notice a wrong size.
pub(crate) fn integrity_candidates(
    raw: &[u8],
    peers: &[integrity::Superblock],
    sectors: u64,
) -> Vec<(integrity::Superblock, Layout)> {
    let mut found: Vec<(integrity::Superblock, Layout)> = Vec::new();
    let mut consider = |superblock: integrity::Superblock| {
        let layout = Layout::of(&superblock, DeviceSectors::Interleaved(sectors));
        let Ok(layout) = layout else { return };
        if is_as_made(&superblock, sectors) && !found.iter().any(|(other, _)| *other == superblock)
        {
            found.push((superblock, layout));
        }
    };
    let Some(raw) = raw.first_chunk::<SUPERBLOCK_BYTES>() else { return found };
    for peer in peers {
        let mut own = peer.clone();
        own.salt.copy_from_slice(&raw[SALT]);
        consider(own.clone());
        for bit in 0..8 * own.salt.len() {
            let mut flipped = own.clone();
            flipped.salt[bit / 8] ^= 1 << (bit % 8);
            consider(flipped);
        }
    }
    let mut bytes = *raw;
    for bit in 0..8 * bytes.len() {
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(superblock) = integrity::Superblock::decode(&bytes) {
            consider(superblock);
        }
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    found
}

/// Whether a new volume with this shape on this device would have the same numbers.
pub(crate) fn is_as_made(superblock: &integrity::Superblock, sectors: u64) -> bool {
    let known = Flags::FIX_PADDING.with(Flags::FIX_HMAC).with(Flags::INLINE);
    if superblock.flags.0 & !known.0 != 0 {
        return false;
    }
    made(superblock, sectors).is_some_and(|made| made == *superblock)
}

/// The same but for what changes while a volume is in use: that it is in bitmap mode, with regions of
/// what size, and how far a recalculation has come. None of these is a flipped bit, but that of a
/// bitmap may be one where there is a journal with newer data: whoever asks has to look for that.
pub(crate) fn is_as_used(superblock: &integrity::Superblock, sectors: u64) -> bool {
    let Flags(flags) = superblock.flags;
    let mut fresh = superblock.clone();
    fresh.flags = Flags(flags & !Flags::DIRTY_BITMAP.with(Flags::RECALCULATING).0);
    if superblock.flags.has(Flags::RECALCULATING) {
        fresh.recalc_sector = 0;
    }
    fresh.version = version_for(fresh.flags, false, false);
    if superblock.flags.has(Flags::DIRTY_BITMAP)
        && let Some(made) = made(&fresh, sectors)
    {
        fresh.log2_blocks_per_bitmap_bit = made.log2_blocks_per_bitmap_bit;
    }
    let dirty = superblock.flags.has(Flags::DIRTY_BITMAP);
    is_as_made(&fresh, sectors) && superblock.version == version_for(superblock.flags, false, dirty)
}

/// What a new volume with this shape on this device would have.
fn made(superblock: &integrity::Superblock, sectors: u64) -> Option<integrity::Superblock> {
    let log2 = superblock.log2_interleave?;
    let layout = Layout::of(superblock, DeviceSectors::Interleaved(sectors)).ok()?;
    let (block, tag_size, salt) = (superblock.block, superblock.tag_size, superblock.salt);
    let options = integrity::FormatOptions {
        journal_sectors: (!layout.inline).then(|| layout.journal.sectors()),
        interleave_sectors: Some(1 << log2),
        fix_padding: superblock.flags.has(Flags::FIX_PADDING),
        fix_hmac: superblock.flags.has(Flags::FIX_HMAC),
        inline: layout.inline,
        ..integrity::FormatOptions::new(block, tag_size, salt)
    };
    let made = integrity::format(DeviceSectors::Interleaved(sectors), &options);
    made.ok().map(|(made, _)| made)
}

/// Byte range of the salt.
const SALT: std::ops::Range<usize> = 48..64;
/// Byte range of the md feature map.
const FEATURE_MAP: std::ops::Range<usize> = 8..12;
/// Byte ranges of an md superblock that are the member's own: new_offset to super_offset,
/// recovery_offset to the bad block log, utime to the checksum.
const OWN_FIELDS: [std::ops::Range<usize>; 2] = [124..192, 192..220];

#[cfg(test)]
mod tests {
    use super::*;
    use integrity::FormatOptions;
    use md::create::{NewArray, NewMember};
    use md::superblock::{Level, ResyncOffset, Time, Uuid};
    use proptest::prelude::*;
    use units::BlockSize;

    fn array() -> Vec<Superblock> {
        let array = NewArray {
            level: Level::Raid6,
            layout: 2,
            chunk_sectors: 128,
            minor: Minor::V2,
            set_uuid: Uuid([7; 16]),
            set_name: [b'n'; 32],
            ctime: Time::new(1_700_000_000, 5),
            resync: ResyncOffset::Clean,
            data_offset: None,
            ppl: false,
            size: None,
        };
        let member = |n| NewMember { device_sectors: SECTORS, device_uuid: Uuid([n; 16]) };
        md::create::create(&array, &[1, 2, 3, 4].map(member)).unwrap()
    }

    const SECTORS: u64 = 100_000;

    #[test]
    fn damage_to_what_all_share_is_repaired_from_a_peer() {
        let members = array();
        let good = members[2].encode();
        // Several bits of uuid, name, level, size, chunk, device table.
        for damaged in [16, 40, 72, 80, 88, 92, 256 + 5] {
            let mut raw = good;
            raw[damaged] ^= 0xff;
            raw[damaged + 1] ^= 0x18;
            let found = md_by_peer(&raw, &members[0], Minor::V2, SECTORS);
            assert_eq!(found.as_ref(), Some(&members[2]), "byte {damaged}");
        }
    }

    #[test]
    fn damage_to_what_is_the_members_own_is_not_guessed() {
        let members = array();
        let good = members[2].encode();
        for damaged in [128, 160, 168, 200, 216] {
            let mut raw = good;
            raw[damaged] ^= 0x10;
            assert_eq!(md_by_peer(&raw, &members[0], Minor::V2, SECTORS), None, "byte {damaged}");
        }
    }

    #[test]
    fn one_flipped_bit_is_found_by_the_tag() {
        let good = array()[1].encode();
        let tag = checksum::crc32c(&good);
        for bit in [3, 1285, 2 * 8 * 128, 32_767] {
            let mut raw = good;
            raw[bit / 8] ^= 1 << (bit % 8);
            let found = md_by_tag(&raw, Minor::V2, SECTORS, |bytes| checksum::crc32c(bytes) == tag);
            assert_eq!(found.map(|found| found.encode()), Some(good), "bit {bit}");
        }
        let mut raw = good;
        raw[0] ^= 1;
        raw[9] ^= 1;
        assert!(
            md_by_tag(&raw, Minor::V2, SECTORS, |bytes| checksum::crc32c(bytes) == tag).is_none()
        );
    }

    fn volume(salt: u8) -> integrity::Superblock {
        let options = FormatOptions::new(BlockSize::B4096, 4, [salt; 16]);
        integrity::format(DeviceSectors::Interleaved(SECTORS), &options).unwrap().0
    }

    #[test]
    fn what_use_changes_is_no_damage_and_everything_else_is() {
        let made = volume(3);
        let dirty = made.flags.with(Flags::DIRTY_BITMAP);
        let begun = made.flags.with(Flags::RECALCULATING);
        for (flags, recalc_sector, log2) in
            [(dirty, 0, 3), (begun, 0, 12), (begun, 4096, 12), (dirty.with(begun), 8, 5)]
        {
            let mut used = made.clone();
            (used.flags, used.recalc_sector) = (flags, recalc_sector);
            if flags.has(Flags::DIRTY_BITMAP) {
                used.log2_blocks_per_bitmap_bit = log2;
            }
            assert!(is_as_used(&used, SECTORS) && !is_as_made(&used, SECTORS), "{used:?}");
            used.version = 4;
            assert!(!is_as_used(&used, SECTORS), "{used:?}");
        }
        assert!(is_as_used(&made, SECTORS));
        let position = integrity::Superblock { recalc_sector: 8, ..made.clone() };
        let regions = integrity::Superblock { log2_blocks_per_bitmap_bit: 3, ..made.clone() };
        let smaller = integrity::Superblock { provided_sectors: made.provided_sectors - 8, ..made };
        for damaged in [position, regions, smaller] {
            assert!(!is_as_used(&damaged, SECTORS), "{damaged:?}");
        }
    }

    proptest! {
        #[test]
        fn the_true_superblock_is_among_the_candidates(bit in 0usize..512) {
            let good = volume(3);
            let mut raw = good.encode();
            raw[bit / 8] ^= 1 << (bit % 8);
            let candidates = integrity_candidates(&raw, &[], SECTORS);
            prop_assert!(candidates.iter().any(|(candidate, _)| *candidate == good));
        }

        #[test]
        fn with_a_peer_all_but_the_salt_may_be_gone(garbage in any::<[u8; 32]>(), bit in 0usize..128) {
            let good = volume(3);
            let mut raw = good.encode();
            raw[..32].copy_from_slice(&garbage);
            raw[48 + bit / 8] ^= 1 << (bit % 8);
            let candidates = integrity_candidates(&raw, &[volume(9)], SECTORS);
            prop_assert!(candidates.iter().any(|(candidate, _)| *candidate == good));
        }
    }
}
