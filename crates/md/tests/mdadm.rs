//! What `create` makes, as mdadm sees it: `mdadm --examine` reads plain files and needs no root.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use steadfast_md::create::{LEFT_SYMMETRIC, NewArray, NewMember, create, set_name};
use steadfast_md::geometry::layout_name;
use steadfast_md::superblock::{Level, Minor, ResyncOffset, Role, Superblock, Time, Uuid};
use units::Sector;

/// What mdadm prints of a layout.
fn layout(superblock: &Superblock) -> Option<String> {
    let layout = superblock.layout();
    match superblock.level() {
        Level::Raid0 | Level::Raid4 => None,
        Level::Raid10 if layout >> 16 == 1 => Some(format!("offset={}", layout >> 8 & 255)),
        Level::Raid10 if layout & 255 == 1 => Some(format!("far={}", layout >> 8)),
        Level::Raid10 => Some(format!("near={}", layout & 255)),
        level => layout_name(level, layout),
    }
}

/// What mdadm says of a member file that holds nothing but this superblock.
fn examine(folder: &Path, superblock: &Superblock, device_sectors: u64) -> String {
    let path = folder.join("member");
    let file = File::create(&path).unwrap();
    file.set_len(Sector(device_sectors).bytes()).unwrap();
    file.write_all_at(&superblock.encode(), superblock.super_offset().bytes()).unwrap();
    let output = Command::new("mdadm").env("TZ", "UTC").arg("--examine").arg(&path).output();
    let output = output.expect("mdadm is installed (Debian package mdadm)");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn expected(superblock: &Superblock) -> Vec<String> {
    let clean = superblock.resync() == ResyncOffset::Clean;
    let mut lines = vec![
        "Magic : a92b4efc".to_owned(),
        format!("Version : {}", superblock.minor()),
        format!("Feature Map : {:#x}", superblock.features().0),
        format!("Array UUID : {}", superblock.set_uuid()),
        format!("Name : {}", superblock.name()),
        format!("Raid Level : {}", superblock.level()),
        format!("Raid Devices : {}", superblock.raid_disks()),
        format!("Avail Dev Size : {} sectors", superblock.data_size()),
        format!("Super Offset : {} sectors", superblock.super_offset()),
        format!("State : {}", if clean { "clean" } else { "active" }),
        format!("Device UUID : {}", superblock.device_uuid()),
        "Bad Block Log : 512 entries available at offset".to_owned(),
        format!("Checksum : {:x} - correct", superblock.stored_checksum()),
        format!("Events : {}\n", superblock.events()),
        // 1_600_000_000 seconds after 1970, in UTC.
        "Creation Time : Sun Sep 13".to_owned(),
    ];
    if superblock.size() > 0 {
        // Of copies that lie far apart mdadm takes no whole chunks; the kernel and we do.
        let sectors = match superblock.level() {
            Level::Raid10 => {
                let copies =
                    u64::from((superblock.layout() & 0xFF) * (superblock.layout() >> 8 & 0xFF));
                superblock.size() * u64::from(superblock.raid_disks()) / copies
            }
            _ => superblock.shape(&[]).unwrap().array_sectors().unwrap(),
        };
        lines.push(format!("Array Size : {} KiB", sectors / 2));
    }
    if superblock.minor() != Minor::V0 {
        lines.push(format!("Data Offset : {} sectors", superblock.data_offset()));
    }
    if superblock.size() > 0 && superblock.size() < superblock.data_size() {
        lines.push(format!("Used Dev Size : {} sectors", superblock.size()));
    }
    if superblock.chunk_sectors() > 0 {
        lines.push(format!("Chunk Size : {}K", superblock.chunk_sectors() / 2));
        lines.extend(layout(superblock).map(|layout| format!("Layout : {layout}")));
    }
    let Some(Role::Active(slot)) = superblock.role() else { panic!("made with a slot") };
    lines.push(format!("Device Role : Active device {slot}"));
    let count = units::usize_of(superblock.raid_disks().into());
    lines.push(format!("Array State : {} ('A' == active", "A".repeat(count)));
    lines
}

#[test]
fn mdadm_accepts_what_is_made_and_agrees_field_by_field() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        (Level::Raid1, 0, 0, 2, Minor::V2, 81_920),
        (Level::Raid1, 0, 0, 3, Minor::V1, 100_001),
        (Level::Raid1, 0, 0, 2, Minor::V0, 81_920),
        (Level::Raid4, 0, 128, 4, Minor::V2, 65_536),
        (Level::Raid5, LEFT_SYMMETRIC, 128, 4, Minor::V2, 65_536),
        (Level::Raid5, 1, 1024, 3, Minor::V0, 262_147),
        (Level::Raid5, LEFT_SYMMETRIC, 8, 3, Minor::V2, 2 << 31),
        (Level::Raid6, LEFT_SYMMETRIC, 128, 6, Minor::V2, 1 << 31),
        (Level::Raid6, 5, 2048, 5, Minor::V1, 1 << 20),
        (Level::Raid6, 8, 128, 5, Minor::V2, 65_536),
        (Level::Raid6, 10, 128, 5, Minor::V2, 65_536),
        (Level::Raid6, 20, 128, 5, Minor::V2, 65_536),
        (Level::Raid0, 0, 128, 3, Minor::V2, 65_536),
        (Level::Raid0, 1, 24, 2, Minor::V0, 65_536),
        (Level::Raid10, 0x102, 128, 3, Minor::V2, 65_536),
        (Level::Raid10, 0x301, 128, 5, Minor::V2, 1 << 33),
        (Level::Raid10, 0x1_0201, 1024, 4, Minor::V1, 1 << 20),
    ];
    for (level, layout, chunk_sectors, count, minor, device_sectors) in cases {
        let dirty = level == Level::Raid4;
        let array = NewArray {
            level,
            layout,
            chunk_sectors,
            minor,
            set_uuid: Uuid(*b"sixteen is a set"),
            set_name: set_name(Some("lab"), "steadfast").unwrap(),
            ctime: Time::new(1_600_000_000, 0),
            resync: if dirty { ResyncOffset::Below(Sector(0)) } else { ResyncOffset::Clean },
            data_offset: None,
            ppl: false,
            size: None,
        };
        let members: Vec<NewMember> = (0..count)
            .map(|n| NewMember { device_sectors, device_uuid: Uuid([n + 1; 16]) })
            .collect();
        for superblock in create(&array, &members).unwrap() {
            let text = examine(folder.path(), &superblock, device_sectors);
            for line in expected(&superblock) {
                assert!(text.contains(&line), "{level}: {line}\n{text}");
            }
        }
    }
}

#[test]
fn mdadm_sees_a_member_recorded_as_faulty() {
    let folder = tempfile::tempdir().unwrap();
    let array = NewArray {
        level: Level::Raid1,
        layout: 0,
        chunk_sectors: 0,
        minor: Minor::V2,
        set_uuid: Uuid([1; 16]),
        set_name: set_name(None, "v").unwrap(),
        ctime: Time::new(1_600_000_000, 0),
        resync: ResyncOffset::Clean,
        data_offset: None,
        ppl: false,
        size: None,
    };
    let member = |n| NewMember { device_sectors: 65_536, device_uuid: Uuid([n; 16]) };
    let mut superblock = create(&array, &[member(1), member(2)]).unwrap().remove(0);
    superblock.set_role(1, Role::Faulty);
    superblock.set_events(4);
    superblock.set_resync(ResyncOffset::Below(Sector(0)));
    let text = examine(folder.path(), &superblock, 65_536);
    for line in ["Array State : A. ", "Events : 4\n", "State : active", " - correct"] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}
