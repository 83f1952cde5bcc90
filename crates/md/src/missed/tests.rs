use super::*;
use crate::bitmap::NewBitmap;
use crate::create::{NewArray, NewMember, create};
use crate::superblock::{Level, Minor, ResyncOffset, Time};

const DEVICE_SECTORS: u64 = 65536;

fn array(level: Level, layout: u32, count: u8) -> Vec<Superblock> {
    let array = NewArray {
        level,
        layout,
        chunk_sectors: if level == Level::Raid1 { 0 } else { 128 },
        minor: Minor::V2,
        set_uuid: Uuid([1; 16]),
        set_name: [0; 32],
        ctime: Time(0),
        resync: ResyncOffset::Clean,
        ppl: false,
        data_offset: None,
        size: None,
    };
    let members: Vec<NewMember> = (0..count)
        .map(|n| NewMember { device_sectors: DEVICE_SECTORS, device_uuid: Uuid([n; 16]) })
        .collect();
    let mut made = create(&array, &members).unwrap();
    for one in &mut made {
        one.place_bitmap(DEVICE_SECTORS);
        one.set_events(10);
    }
    made
}

/// Member 1 left at event 10; the array went on to event 20, and knows what it wrote since event 9.
struct Away {
    own: Superblock,
    rest: Vec<Superblock>,
    bitmap: Bitmap,
}

impl Away {
    fn from(level: Level, layout: u32, count: u8) -> Self {
        let mut rest = array(level, layout, count);
        let own = rest.remove(1);
        for one in &mut rest {
            one.set_events(20);
            one.set_role(1, Role::Faulty);
        }
        let new = NewBitmap {
            superblock: &rest[0],
            room_bytes: 4096,
            chunk_bytes: Some(64 << 10),
            dirty: false,
        };
        let mut bitmap = Bitmap::new(&new).unwrap();
        bitmap.set_events(20);
        bitmap.set_events_cleared(9);
        Self { own, rest, bitmap }
    }

    fn missed(&self) -> Result<Vec<Range<u64>>, NotByBitmap> {
        let members: Vec<(u32, usize)> = (self.rest.iter())
            .map(|one| match one.role() {
                Some(Role::Active(slot)) => (one.dev_number(), usize::from(slot)),
                other => panic!("{other:?}"),
            })
            .collect();
        let running = Running {
            superblock: &self.rest[0],
            bitmap: Some(&self.bitmap),
            members: &members,
            events: 20,
            recorded: true,
        };
        missed(&self.own, &running)
    }
}

#[test]
fn a_member_missed_what_the_bits_name() {
    let mut away = Away::from(Level::Raid5, 2, 3);
    assert_eq!(away.missed(), Ok(vec![]));
    away.bitmap.set(1..3);
    away.bitmap.set(7..8);
    assert_eq!(away.missed(), Ok(vec![128..384, 896..1024]));
}

#[test]
fn bits_of_raid_10_name_sectors_of_the_array() {
    for (layout, copies) in [(0x102, 2), (0x201, 2), (0x1_0201, 2), (0x103, 3)] {
        let mut away = Away::from(Level::Raid10, layout, 4);
        let mirrors = away.rest[0].mirrors().unwrap().unwrap();
        away.bitmap.set(3..6);
        let missed = away.missed().unwrap();
        // The oracle: each sector of the array, where it lies.
        let mut seen = 0;
        for sector in (0..mirrors.array_sectors()).step_by(64) {
            for copy in 0..copies {
                let spot = mirrors.locate(Sector(sector), copy);
                let named = missed.iter().any(|run| run.contains(&spot.member_sector.0));
                let wanted = (3 * 128..6 * 128).contains(&sector);
                if spot.slot == 1 {
                    assert_eq!(named, wanted, "{layout:#x}: {sector}");
                    seen += u32::from(wanted);
                }
            }
        }
        assert!(seen > 0, "{layout:#x}");
    }
}

#[test]
fn a_member_in_doubt_is_refused_with_the_reason() {
    let changed = |change: &dyn Fn(&mut Away)| {
        let mut away = Away::from(Level::Raid6, 2, 4);
        change(&mut away);
        away.missed().unwrap_err()
    };
    let older = changed(&|away| away.bitmap.set_events_cleared(11));
    assert_eq!(older, NotByBitmap::Older { events: 10, cleared: 11 });
    for events in [20, 21] {
        let newer = changed(&|away| away.own.set_events(events));
        assert_eq!(newer, NotByBitmap::Newer { events, newest: 20 });
    }
    // One half of the array ran without the other: mdadm's word for one that is gone, and one removed.
    for role in [Role::Faulty, Role::Spare, Role::Active(3)] {
        let diverged = changed(&|away| away.own.set_role(2, role));
        assert_eq!(diverged, NotByBitmap::Diverged { number: 2 });
    }
    let incomplete: [&dyn Fn(&mut Away); 3] = [
        &|away| away.own.set_recovery(Some(Sector(8))),
        &|away| away.own.set_replacement(true),
        &|away| away.own.set_role(1, Role::Spare),
    ];
    for change in incomplete {
        assert_eq!(changed(change), NotByBitmap::Incomplete);
    }
    let held = changed(&|away| away.rest[0] = away.own.clone());
    assert_eq!(held, NotByBitmap::Held { slot: 1 });
    let other = changed(&|away| away.own = Away::from(Level::Raid5, 2, 4).own);
    assert!(matches!(other, NotByBitmap::Shape(LeftOut::Disagrees { field: "level", .. })));
    let stranger = changed(&|away| {
        let mut bytes = away.own.encode();
        bytes[16] ^= 1;
        away.own = sealed(bytes);
    });
    assert!(matches!(stranger, NotByBitmap::Array { .. }));
    let bare = changed(&|away| {
        let mut bytes = away.own.encode();
        bytes[8] &= !1;
        away.own = sealed(bytes);
    });
    assert_eq!(bare, NotByBitmap::Features { found: 0, expected: 1 });
}

/// With its checksum as it has to be.
fn sealed(mut bytes: [u8; 4096]) -> Superblock {
    let slots = usize::from(u16::from_le_bytes([bytes[220], bytes[221]]));
    bytes[216..220].fill(0);
    let word = |word: &[u8]| word.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
    let sum: u64 = bytes[..256 + 2 * slots].chunks(4).map(word).sum();
    let sum = (sum & 0xFFFF_FFFF) + (sum >> 32);
    bytes[216..220].copy_from_slice(&sum.to_le_bytes()[..4]);
    Superblock::decode(&bytes, Minor::V2, DEVICE_SECTORS).unwrap()
}
