//! RAID 10: what its placement makes of the rules that the other tests are about.

use super::*;

/// Layout, members, and sets of members that can be done without.
const SHAPES: [(u32, u8, &[&[usize]]); 7] = [
    (0x102, 2, &[&[0], &[1]]),
    (0x102, 4, &[&[0], &[1, 2], &[0, 3]]),
    (0x102, 3, &[&[0], &[1], &[2]]),
    (0x201, 4, &[&[3], &[0, 2], &[1, 3]]),
    (0x301, 5, &[&[0, 1], &[2, 4]]),
    (0x1_0201, 4, &[&[0], &[1, 3]]),
    (0x1_0201, 3, &[&[0], &[1], &[2]]),
];

fn rig(layout: u32, count: u8) -> Rc<Rig> {
    Rc::new(Rig::shaped(Level::Raid10, layout, count, true))
}

/// Every sector is told apart from its neighbours.
async fn fill(raid: &Rc<Mirror>) {
    let sectors = raid.device().limits().sectors;
    let bytes: Vec<u8> = (0..sectors).flat_map(|sector| [value(sector); SECTOR_BYTES]).collect();
    raid.device().write(Sector(0), Buf::copy_of(&bytes)).await.unwrap();
}

/// A filled array that was closed.
fn filled(layout: u32, count: u8) -> Rc<Rig> {
    let rig = rig(layout, count);
    let held = Rc::clone(&rig);
    block_on(async move {
        let raid = open(&held);
        fill(&raid).await;
        raid.close().await.unwrap();
    });
    rig
}

fn value(sector: u64) -> u8 {
    u8::try_from(sector % 251).unwrap()
}

async fn must_be_filled(raid: &Rc<Mirror>, what: &str) {
    let sectors = raid.device().limits().sectors;
    let found = read(raid, 0, sectors).await.unwrap();
    assert!((0..).zip(found).all(|(sector, found)| found == value(sector)), "{what}");
}

fn rest(count: u8, lost: &[usize]) -> Vec<usize> {
    (0..usize::from(count)).filter(|disk| !lost.contains(disk)).collect()
}

#[test]
fn every_copy_is_written_where_it_belongs_and_read_without_members_that_can_be_spared() {
    for (layout, count, sets) in SHAPES {
        let rig = filled(layout, count);
        let sectors = rig.superblock(0).mirrors().unwrap().unwrap().array_sectors();
        for sector in 0..sectors {
            for (disk, at) in copies(&rig, sector) {
                assert_eq!(rig.disks[disk].sector(DATA_OFFSET + at), [value(sector); SECTOR_BYTES]);
            }
        }
        for lost in sets {
            let degraded = Rc::new(Rig::of_images(rig.images(), true));
            block_on(async move {
                let raid = open_on(&degraded, &rest(count, lost));
                must_be_filled(&raid, &format!("{layout:#x} over {count} without {lost:?}")).await;
                write(&raid, 3, 20, 77).await.unwrap();
                assert_eq!(read(&raid, 3, 20).await.unwrap(), [77; 20]);
                raid.close().await.unwrap();
                assert_eq!(degraded.assembly(&rest(count, lost)).resync, ResyncOffset::Clean);
            });
        }
    }
}

#[test]
fn a_damaged_copy_is_healed_where_it_lies() {
    for (layout, count, _) in SHAPES {
        let rig = rig(layout, count);
        let held = Rc::clone(&rig);
        block_on(async move {
            let raid = open(&held);
            fill(&raid).await;
            let (disk, at) = copies(&held, 29)[0];
            held.disks[disk].flip(DATA_OFFSET + at);
            let site = &raid.inner.sites(Extent { sector: Sector(29), sectors: 1 })[0];
            let extent = bio::Extent { sector: Sector(29), sectors: 1 };
            let bytes = raid.inner.heal(site, extent, IoErrorKind::Protection).await;
            assert_eq!(bytes.unwrap().as_slice(), [29; SECTOR_BYTES]);
            assert!(held.disks[disk].intact(DATA_OFFSET + at), "healed in place");
            let event = events(&held, |kind| *kind == healed(true)).remove(0);
            assert_eq!(event.member.as_deref(), Some(format!("disk{disk}").as_str()));
            assert_eq!((event.sector, event.sectors), (Sector(DATA_OFFSET + at), 1));
            raid.close().await.unwrap();
        });
    }
}

#[test]
fn a_sector_whose_copies_are_all_damaged_is_an_error_at_the_arrays_address() {
    for (layout, count, _) in SHAPES {
        let rig = rig(layout, count);
        let held = Rc::clone(&rig);
        block_on(async move {
            let raid = open(&held);
            fill(&raid).await;
            for (disk, at) in copies(&held, 29) {
                held.disks[disk].garble(DATA_OFFSET + at);
            }
            let error = read(&raid, 0, 64).await.unwrap_err();
            assert_eq!(error, IoErrorKind::Protection.at(Sector(29)), "{layout:#x}");
            assert_eq!(read(&raid, 28, 1).await.unwrap(), [28]);
            let lost = events(&held, |kind| *kind == EventKind::Lost);
            assert_eq!((lost.len(), lost[0].sector), (1, Sector(29)));
            assert_eq!(raid.array().missing_count(), 0);
        });
    }
}

#[test]
fn members_may_go_while_a_copy_of_everything_is_left() {
    let rig = rig(0x102, 4);
    let held = Rc::clone(&rig);
    block_on(async move {
        let raid = open(&held);
        fill(&raid).await;
        assert_eq!(raid.array().spare_redundancy(), 1);
        held.disks[0].gone.set(true);
        must_be_filled(&raid, "without the first").await;
        assert_eq!(raid.array().spare_redundancy(), 0);
        held.disks[3].gone.set(true);
        must_be_filled(&raid, "and of the other pair, the second").await;
        assert_eq!(raid.array().missing_count(), 2);
        write(&raid, 0, 64, 5).await.unwrap();
        // The last that has some chunks stays a member, and its chunks are errors.
        held.disks[1].gone.set(true);
        assert_eq!(read(&raid, 0, 1).await.unwrap_err().kind, IoErrorKind::Unavailable);
        assert_eq!(raid.array().missing_count(), 2);
        assert_eq!(read(&raid, 8, 8).await.unwrap(), [5; 8]);
    });
    let roles: Vec<Role> = rig.superblock(2).roles().take(4).collect();
    assert_eq!(roles, [Role::Faulty, Role::Active(1), Role::Active(2), Role::Faulty]);
}

#[test]
fn after_a_crash_the_first_copy_of_each_chunk_is_read_and_given_to_the_others() {
    for (layout, count, _) in SHAPES {
        let rig = rig(layout, count);
        let held = Rc::clone(&rig);
        block_on(async move { fill(&open(&held)).await });
        let rig = Rc::new(Rig::of_images(rig.images(), true));
        // The first copy of one sector is newer, the last of another.
        let (first, last) = (copies(&rig, 9)[0], *copies(&rig, 40).last().unwrap());
        for (disk, at) in [first, last] {
            rig.disks[disk].replace(DATA_OFFSET + at, &[255; SECTOR_BYTES]);
        }
        let held = Rc::clone(&rig);
        block_on(async move {
            let raid = open(&held);
            assert_eq!(read(&raid, 9, 1).await.unwrap(), [255]);
            assert_eq!(read(&raid, 40, 1).await.unwrap(), [40]);
            raid.resync().await.unwrap();
            assert_eq!(raid.array().synced(), ResyncOffset::Clean);
            assert_eq!(read(&raid, 9, 1).await.unwrap(), [255]);
            raid.close().await.unwrap();
        });
        assert!(agree(&rig, 64), "{layout:#x} over {count}");
    }
}

#[test]
fn a_degraded_array_that_was_not_closed_is_resynced_where_two_copies_are() {
    let rig = rig(0x102, 4);
    let held = Rc::clone(&rig);
    block_on(async move { fill(&open(&held)).await });
    let rig = Rc::new(Rig::of_images(rig.images(), true));
    let (disk, at) = copies(&rig, 10)[1];
    assert_eq!(disk, 3, "a copy on the pair that is whole");
    rig.disks[disk].replace(DATA_OFFSET + at, &[255; SECTOR_BYTES]);
    let held = Rc::clone(&rig);
    block_on(async move {
        let raid = open_on(&held, &[0, 2, 3]);
        raid.resync().await.unwrap();
        must_be_filled(&raid, "the first copies").await;
        assert_eq!(raid.array().synced(), ResyncOffset::Clean);
        raid.close().await.unwrap();
    });
    assert_eq!(rig.disks[3].sector(DATA_OFFSET + at), [10; SECTOR_BYTES]);
}

#[test]
fn a_scrub_reads_every_copy_and_names_members_own_sectors() {
    for (layout, count, _) in SHAPES {
        let rig = filled(layout, count);
        let (disk, at) = copies(&rig, 50)[1];
        rig.disks[disk].flip(DATA_OFFSET + at);
        let (other, differs) = copies(&rig, 17)[1];
        rig.disks[other].replace(DATA_OFFSET + differs, &[255; SECTOR_BYTES]);
        let findings = scrubbed(&rig, ScrubMode::Repair);
        let mirrors = rig.superblock(0).mirrors().unwrap().unwrap();
        let all = mirrors.array_sectors() * u64_of(mirrors.copies());
        assert_eq!(findings.checked_sectors, all, "{layout:#x} over {count}");
        let extent = |sector| bio::Extent { sector: Sector(sector), sectors: 1 };
        let name = Some(format!("disk{disk}").into());
        let expected = [
            (Finding::Inconsistent, None, extent(17)),
            (Finding::Healed, name, extent(DATA_OFFSET + at)),
        ];
        assert_eq!(findings.found, expected, "{layout:#x} over {count}");
    }
}
