//! What else may lie on a device: a table of signatures, so that nothing is overwritten unawares.
//!
//! Only the bytes that identify a format are known here, each from the format's public
//! documentation (named in its row); what they mean beyond that is not. A device without any of
//! them may still hold data: whoever is about to overwrite also looks whether it is all zero.
//!
//! ```text
//!   |<-- HEAD_BYTES -->|                       |<-- TAIL_BYTES -->|
//!   +------------------+-----------------------+------------------+
//!     most formats                              GPT's copy, md 0.90 and 1.0, DDF, IMSM, ZFS
//! ```

use units::{u64_of, usize_of};

/// Bytes from the start of a device that [`find`] wants to see.
pub const HEAD_BYTES: usize = 512 << 10;
/// Bytes up to the end of a device that [`find`] wants to see.
pub const TAIL_BYTES: usize = 512 << 10;

/// A signature that was found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Signature {
    /// What it is a signature of.
    pub name: &'static str,
    /// Byte offset on the device.
    pub offset: u64,
}

/// Every known signature on a device of `device_bytes` bytes, each format once. `head` and `tail`
/// are its first [`HEAD_BYTES`] and last [`TAIL_BYTES`], or all of a smaller device.
#[must_use]
pub fn find(head: &[u8], tail: &[u8], device_bytes: u64) -> Vec<Signature> {
    let device = Seen { head, tail, bytes: device_bytes };
    let mut found: Vec<Signature> = Vec::new();
    for row in TABLE {
        if found.iter().any(|earlier| earlier.name == row.name) {
            continue;
        }
        if let Some(offset) = row.found_at(&device) {
            found.push(Signature { name: row.name, offset });
        }
    }
    // A FAT or NTFS boot sector ends like an MBR, and says better what it is.
    if found.iter().any(|signature| ENDS_LIKE_AN_MBR.contains(&signature.name)) {
        found.retain(|signature| signature.name != MBR);
    }
    found
}

struct Seen<'a> {
    head: &'a [u8],
    tail: &'a [u8],
    bytes: u64,
}

impl Seen<'_> {
    fn has(&self, offset: u64, magic: &[u8]) -> bool {
        let at = |bytes: &[u8], offset: u64| {
            let start = usize_of(offset);
            let end = start.checked_add(magic.len());
            end.and_then(|end| bytes.get(start..end)).is_some_and(|found| found == magic)
        };
        let tail_start = self.bytes.saturating_sub(u64_of(self.tail.len()));
        at(self.head, offset) || (offset >= tail_start && at(self.tail, offset - tail_start))
    }
}

/// Where a signature lies.
#[derive(Clone, Copy)]
enum Place {
    /// At these byte offsets from the start.
    Start(&'static [u64]),
    /// This many bytes before the end.
    End(u64),
    /// md 0.90: in the last 64 KiB-aligned 64 KiB.
    Md090,
    /// md 1.0: 8 to 12 KiB before the end, on a 4 KiB boundary.
    Md10,
    /// In one of ZFS's four labels, whose rings of uberblocks start 128 KiB into each.
    ZfsLabels,
}

struct Row {
    name: &'static str,
    place: Place,
    magic: &'static [u8],
}

impl Row {
    fn found_at(&self, device: &Seen<'_>) -> Option<u64> {
        let mut candidates: Vec<u64> = match self.place {
            Place::Start(offsets) => offsets.to_vec(),
            Place::End(back) => device.bytes.checked_sub(back).into_iter().collect(),
            Place::Md090 => (device.bytes & !0xffff).checked_sub(64 << 10).into_iter().collect(),
            Place::Md10 => {
                let sectors = (device.bytes / 512).checked_sub(16);
                sectors.map(|sectors| (sectors & !7) * 512).into_iter().collect()
            }
            Place::ZfsLabels => zfs_rings(device.bytes),
        };
        candidates.retain(|&offset| device.has(offset, self.magic));
        candidates.first().copied()
    }
}

/// First slots of the uberblock rings of the four labels (two at the start, two at the end).
fn zfs_rings(device_bytes: u64) -> Vec<u64> {
    const LABEL: u64 = 256 << 10;
    let aligned = device_bytes / LABEL * LABEL;
    let labels = [Some(0), Some(LABEL), aligned.checked_sub(2 * LABEL), aligned.checked_sub(LABEL)];
    let slots = |label: u64| (0..128).map(move |slot| label + (128 << 10) + slot * 1024);
    labels.into_iter().flatten().flat_map(slots).collect()
}

const fn row(name: &'static str, place: Place, magic: &'static [u8]) -> Row {
    Row { name, place, magic }
}

const MBR: &str = "MBR partition table or boot sector";
const ENDS_LIKE_AN_MBR: &[&str] =
    &["GPT partition table", "NTFS", "exFAT", "FAT32", "FAT16", "FAT12", "BitLocker"];

/// Ours first, then the rest in no order that matters. Comments name the source of each row.
const TABLE: &[Row] = &[
    // The dm-integrity specification, section 2.
    row("dm-integrity", Place::Start(&[0]), b"integrt\0"),
    // The md specification, section 1: versions 1.1 and 1.2, then 1.0.
    row("Linux md RAID", Place::Start(&[4096, 0]), b"\xfc\x4e\x2b\xa9\x01\0\0\0"),
    row("Linux md RAID", Place::Md10, b"\xfc\x4e\x2b\xa9\x01\0\0\0"),
    // Same section; stored in the byte order of the host.
    row("Linux md RAID 0.90", Place::Md090, b"\xfc\x4e\x2b\xa9"),
    row("Linux md RAID 0.90", Place::Md090, b"\xa9\x2b\x4e\xfc"),
    // LUKS1 On-Disk Format, section 2.1; LUKS2 On-Disk Format, section 2.1 (second header).
    row("LUKS", Place::Start(&[0]), b"LUKS\xba\xbe"),
    row(
        "LUKS",
        Place::Start(&[16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10]),
        b"SKUL\xba\xbe",
    ),
    // LVM2: the label lies in one of the first four sectors (lvmsystemid and pvck manual pages).
    row("LVM2 physical volume", Place::Start(&[512, 0, 1024, 1536]), b"LABELONE"),
    // UEFI specification, section 5.3: header in logical block 1 and in the last one.
    row("GPT partition table", Place::Start(&[512, 4096]), b"EFI PART"),
    row("GPT partition table", Place::End(512), b"EFI PART"),
    row("GPT partition table", Place::End(4096), b"EFI PART"),
    // UEFI specification, section 5.2: the last two bytes of the first sector.
    row(MBR, Place::Start(&[510]), b"\x55\xaa"),
    // Linux Documentation/filesystems/ext4, "Super Block": s_magic, also of ext2 and ext3.
    row("ext2/3/4", Place::Start(&[1080]), b"\x53\xef"),
    // XFS Algorithms & Data Structures, "Superblocks".
    row("XFS", Place::Start(&[0]), b"XFSB"),
    // btrfs wiki, "On-disk Format": the first superblock's magic.
    row("btrfs", Place::Start(&[65_600]), b"_BHRfS_M"),
    // Boot sector OEM names: Microsoft's FAT, exFAT and NTFS documentation.
    row("NTFS", Place::Start(&[3]), b"NTFS    "),
    row("exFAT", Place::Start(&[3]), b"EXFAT   "),
    row("BitLocker", Place::Start(&[3]), b"-FVE-FS-"),
    row("FAT32", Place::Start(&[82]), b"FAT32   "),
    row("FAT16", Place::Start(&[54]), b"FAT16   "),
    row("FAT12", Place::Start(&[54]), b"FAT12   "),
    // ZFS On-Disk Specification, chapter 1.3: ub_magic, either byte order.
    row("ZFS", Place::ZfsLabels, b"\x0c\xb1\xba\x00\0\0\0\0"),
    row("ZFS", Place::ZfsLabels, b"\0\0\0\0\x00\xba\xb1\x0c"),
    // mkswap(8): the signature ends the first page; pages of 4, 8, 16 and 64 KiB.
    row("swap", Place::Start(&[4086, 8182, 16_374, 65_526]), b"SWAPSPACE2"),
    row("swap", Place::Start(&[4086, 8182, 16_374, 65_526]), b"SWAP-SPACE"),
    row("swap (hibernated)", Place::Start(&[4086, 8182, 16_374, 65_526]), b"S1SUSPEND"),
    // Linux Documentation/admin-guide/bcache and bcachefs' principles of operation: the superblock
    // lies in sector 8, its magic 24 bytes in.
    row(
        "bcache",
        Place::Start(&[4120]),
        b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81",
    ),
    row(
        "bcachefs",
        Place::Start(&[4120]),
        b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef",
    ),
    // dm-verity's on-disk format (cryptsetup wiki, "DMVerity").
    row("dm-verity", Place::Start(&[0]), b"verity\0\0"),
    // SNIA Common RAID DDF specification: the anchor header is the last block.
    row("DDF RAID", Place::End(512), b"\xde\x11\xde\x11"),
    row("DDF RAID", Place::End(512), b"\x11\xde\x11\xde"),
    // Intel Matrix storage: the anchor is the last but one sector (mdadm(8), "imsm").
    row("Intel RAID", Place::End(1024), b"Intel Raid ISM Cfg Sig. "),
    // ECMA-119, section 8: the volume descriptors start at sector 16 of 2048 bytes.
    row("ISO 9660", Place::Start(&[32_769]), b"CD001"),
    // Linux Documentation/filesystems/{squashfs,f2fs,erofs}.
    row("squashfs", Place::Start(&[0]), b"hsqs"),
    row("F2FS", Place::Start(&[1024]), b"\x10\x20\xf5\xf2"),
    row("EROFS", Place::Start(&[1024]), b"\xe2\xe1\xf5\xe0"),
    // Apple Technical Note TN1150 and Apple File System Reference.
    row("HFS+", Place::Start(&[1024]), b"H+\0\x04"),
    row("APFS", Place::Start(&[32]), b"NXSB"),
    // QEMU docs/interop/qcow2; Microsoft VHDX format specification; VMware Virtual Disk Format.
    row("qcow2 image", Place::Start(&[0]), b"QFI\xfb"),
    row("VHDX image", Place::Start(&[0]), b"vhdxfile"),
    row("VMDK image", Place::Start(&[0]), b"KDMV"),
    // Ceph's BlueStore label is readable text.
    row("Ceph BlueStore", Place::Start(&[0]), b"bluestore block device\n"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn device(bytes: usize, pieces: &[(usize, &[u8])]) -> Vec<Signature> {
        let mut image = vec![0; bytes];
        for (offset, piece) in pieces {
            image[*offset..offset + piece.len()].copy_from_slice(piece);
        }
        let head = &image[..bytes.min(HEAD_BYTES)];
        let tail = &image[bytes.saturating_sub(TAIL_BYTES)..];
        find(head, tail, u64_of(bytes))
    }

    const SIZE: usize = 3 << 20;

    #[test]
    fn every_row_is_found_where_it_lies() {
        for row in TABLE {
            let bytes = u64_of(SIZE);
            let offset = match row.place {
                Place::Start(offsets) => offsets[0],
                Place::End(back) => bytes - back,
                Place::Md090 => bytes - (64 << 10),
                Place::Md10 => bytes - (8 << 10),
                Place::ZfsLabels => bytes - (128 << 10) + 5 * 1024,
            };
            let found = device(SIZE, &[(usize_of(offset), row.magic)]);
            assert_eq!(found, [Signature { name: row.name, offset }], "{}", row.name);
        }
    }

    #[test]
    fn zeroes_have_no_signature_whatever_their_size() {
        for bytes in [0, 1, 511, 512, 4096, 65_536, SIZE] {
            assert_eq!(device(bytes, &[]), [], "{bytes} bytes");
        }
    }

    #[test]
    fn a_partitioned_disk_is_named_once() {
        let found =
            device(SIZE, &[(510, b"\x55\xaa"), (512, b"EFI PART"), (SIZE - 512, b"EFI PART")]);
        assert_eq!(found, [Signature { name: "GPT partition table", offset: 512 }]);
        let found = device(SIZE, &[(510, b"\x55\xaa")]);
        assert_eq!(found, [Signature { name: MBR, offset: 510 }]);
    }

    #[test]
    fn two_formats_on_one_device_are_both_named() {
        let found = device(SIZE, &[(0, b"integrt\0"), (1080, b"\x53\xef")]);
        assert_eq!(found.len(), 2);
    }
}
