//! Healing by evidence, and honesty where there is none.

use super::*;

/// How a sector is hurt.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Data,
    Tag,
    Unreadable,
}

fn hurt(bench: &Bench, disk: usize, place: u64, harm: Harm) {
    match harm {
        Harm::Data => bench.rig.disks[disk].flip(place),
        Harm::Tag => bench.rig.disks[disk].flip_tag(place),
        Harm::Unreadable => {
            bench.rig.disks[disk].unreadable.borrow_mut().insert(place);
        }
    }
}

#[test]
fn every_harm_within_redundancy_is_healed_in_place_and_told_once() {
    for harm in [Harm::Data, Harm::Tag, Harm::Unreadable] {
        runtime::block_on(async move {
            let bench = Bench::raid5(true);
            let content = bench.fill().await;
            let before = bench.rig.images();
            let places = [3, 50, 51, 130].map(|sector| bench.place(sector));
            places.iter().for_each(|&(disk, place)| hurt(&bench, disk, place, harm));
            assert_eq!(bench.read(0, bench.sectors()).await.unwrap(), content, "{harm:?}");
            // A damaged tag vouches for nothing; the other harms leave it whole.
            assert_eq!(bench.healed(), [!matches!(harm, Harm::Tag); 4], "{harm:?}");
            assert!(bench.rig.images() == before);
            assert!(places.iter().all(|&(disk, place)| bench.rig.disks[disk].intact(place)));
            assert_eq!(bench.raid.array().missing_count(), 0);
            let event = bench.events().into_iter().next().unwrap();
            assert!(places.contains(&(bench.disk_of(&event), event.sector.0)));
            assert_eq!(event.sectors, 1);
            assert_eq!(bench.read(0, bench.sectors()).await.unwrap(), content);
            assert_eq!(bench.events().len(), 4);
        });
    }
}

impl Bench {
    fn disk_of(&self, event: &Event) -> usize {
        let name = event.member.as_ref().unwrap();
        name.trim_start_matches("disk").parse().unwrap()
    }
}

/// Any two blocks of any row of RAID 6, hurt in any of the ways.
#[test]
fn two_harms_in_a_row_are_healed_with_both_parities() {
    let harms = [Harm::Data, Harm::Tag, Harm::Unreadable];
    for first in harms {
        for second in harms {
            runtime::block_on(async move {
                let bench = Bench::raid6(true);
                let content = bench.fill().await;
                let before = bench.rig.images();
                let mut row = DATA_OFFSET;
                for a in 0..5 {
                    for b in (0..5).filter(|&b| b != a) {
                        hurt(&bench, a, row, first);
                        hurt(&bench, b, row, second);
                        row += 9;
                    }
                }
                assert_eq!(bench.read(0, bench.sectors()).await.unwrap(), content);
                for step in 0..bench.raid.steps() {
                    bench.raid.scrub(step, bio::ScrubMode::Repair).await;
                }
                assert!(bench.rig.images() == before, "{first:?} {second:?}");
                let lost = bench.count(|kind| *kind == EventKind::Lost);
                assert_eq!((lost, bench.healed().len()), (0, 40));
            });
        }
    }
}

#[test]
fn a_read_only_array_serves_and_writes_nothing() {
    runtime::block_on(async {
        let bench = Bench::raid6(true);
        let content = bench.fill().await;
        bench.raid.close().await.unwrap();
        let bench = Bench::open(bench.rig, &ALL[..5], bench.geometry, true);
        bench.flip(7);
        bench.flip(17);
        let before = bench.rig.images();
        for _ in 0..2 {
            assert_eq!(bench.read(0, bench.sectors()).await.unwrap(), content);
        }
        assert!(bench.rig.images() == before);
        assert_eq!(bench.count(|kind| *kind == EventKind::Healable), 2);
        let error = bench.write(0, &[0; 512]).await.unwrap_err();
        assert_eq!(error.kind, IoErrorKind::ReadOnly);
        bench.raid.close().await.unwrap();
        assert!(bench.rig.images() == before);
    });
}

#[test]
fn more_damage_than_redundancy_is_an_error_for_exactly_those_sectors() {
    runtime::block_on(async {
        let bench = Bench::raid5(true);
        let content = bench.fill().await;
        // Sectors 2 and 10 are in one row of stripe 0, 40 alone in its row.
        for sector in [2, 10, 40] {
            bench.garble(sector);
        }
        let error = bench.read(0, bench.sectors()).await.unwrap_err();
        assert_eq!(error, IoErrorKind::Protection.at(Sector(2)));
        for sector in 0..bench.sectors() {
            let wanted = content[usize_of(sector) * 512..][..512].to_vec();
            match bench.read(sector, 1).await {
                Ok(found) => assert!(found == wanted && sector != 2 && sector != 10),
                Err(error) => {
                    assert!(sector == 2 || sector == 10);
                    assert_eq!(error.sector, Sector(sector));
                }
            }
        }
        assert_eq!(bench.count(|kind| *kind == EventKind::Lost), 2);
        assert_eq!(bench.healed(), [true]);
    });
}

#[test]
fn a_lost_block_is_readable_again_when_it_is_written_whole_and_no_sooner() {
    runtime::block_on(async {
        let bench = Bench::raid5(true);
        let content = bench.fill().await;
        let (a, b) = (2, 10);
        bench.garble(a);
        // The tag of b is damaged too: a believer in parity would hand out garbage.
        let (disk, place) = bench.garble(b);
        bench.rig.disks[disk].flip_tag(place);
        bench.read(a, 1).await.unwrap_err();
        // Writing a leaves parity that does not belong to b.
        bench.write(a, &pattern(41, a, 1)).await.unwrap();
        bench.device.flush().await.unwrap();
        assert_eq!(bench.read(a, 1).await.unwrap(), pattern(41, a, 1));
        bench.read(b, 1).await.unwrap_err();
        // Nor does the array call itself clean when it is idle.
        runtime::sleep(std::time::Duration::from_secs(2)).await;
        assert_ne!(bench.rig.superblock(0).resync(), ResyncOffset::Clean);
        // Neither closing nor a resync makes it come back, and the array knows that it is not clean.
        let bench = bench.reopen(&ALL[..4]).await;
        assert!(bench.raid.resynced().is_some());
        bench.read(b, 1).await.unwrap_err();
        while bench.raid.resync_step().await.unwrap() {}
        bench.read(b, 1).await.unwrap_err();
        assert_eq!(bench.read(18, 1).await.unwrap(), content[18 * 512..19 * 512]);
        // A sibling can still be written, and b written whole makes the row whole.
        bench.write(18, &pattern(43, 18, 1)).await.unwrap();
        bench.device.flush().await.unwrap();
        bench.read(b, 1).await.unwrap_err();
        bench.write(b, &pattern(47, b, 1)).await.unwrap();
        bench.device.flush().await.unwrap();
        assert!(bench.parity_is_true());
        let bench = bench.reopen(&ALL[..4]).await;
        assert_eq!(bench.raid.resynced(), None);
        for (sector, seed) in [(a, 41), (b, 47), (18, 43)] {
            assert_eq!(bench.read(sector, 1).await.unwrap(), pattern(seed, sector, 1));
        }
        assert_eq!(bench.count(|kind| *kind == EventKind::Lost), 3);
    });
}

#[test]
fn a_write_beside_lost_blocks_keeps_what_parity_knew() {
    runtime::block_on(async {
        let bench = Bench::raid5(true);
        let content = bench.fill().await;
        bench.garble(2);
        let (disk, place) = bench.garble(10);
        bench.write(18, &pattern(53, 18, 1)).await.unwrap();
        bench.device.flush().await.unwrap();
        bench.read(2, 1).await.unwrap_err();
        // One of the two comes back by itself: parity still knows the other.
        bench.rig.disks[disk].garble(place);
        assert_eq!(bench.read(2, 1).await.unwrap(), content[2 * 512..3 * 512]);
        assert!(bench.parity_is_true());
    });
}

/// A cable that was at fault, a sector that reads again: what was lost at the time of a write and
/// comes back afterwards is older than the write.
#[test]
fn lost_parity_that_comes_back_after_a_write_is_not_believed() {
    runtime::block_on(async {
        let bench = Bench::raid6(true);
        let content = bench.fill().await;
        let Equations { p, q, .. } = Equations::of(&bench.geometry, 0);
        // Neither parity can be read, nor can one data block, whose tag says nothing.
        let (disk, place) = bench.place(2);
        let lost = [p, q.unwrap(), disk];
        lost.iter().for_each(|&disk| bench.rig.disks[disk].flip_tag(place));
        bench.write(18, &pattern(61, 18, 1)).await.unwrap();
        bench.device.flush().await.unwrap();
        bench.rig.disks[p].flip_tag(place);
        bench.read(2, 1).await.unwrap_err();
        assert_eq!(bench.read(18, 1).await.unwrap(), pattern(61, 18, 1));
        let bench = bench.reopen(&ALL[..5]).await;
        bench.read(2, 1).await.unwrap_err();
        while bench.raid.resync_step().await.unwrap() {}
        bench.read(2, 1).await.unwrap_err();
        // The block itself may come back: nobody wrote it meanwhile.
        bench.rig.disks[disk].flip_tag(place);
        assert_eq!(bench.read(2, 1).await.unwrap(), content[2 * 512..3 * 512]);
    });
}

#[test]
fn a_write_over_damage_heals_its_siblings() {
    runtime::block_on(async {
        let bench = Bench::raid6(true);
        let mut content = bench.fill().await;
        bench.flip(1);
        bench.flip(9);
        let new = pattern(59, 0, 6);
        bench.write(0, &new).await.unwrap();
        content[..6 * 512].copy_from_slice(&new);
        bench.device.flush().await.unwrap();
        assert!(bench.parity_is_true());
        assert_eq!(bench.read(0, bench.sectors()).await.unwrap(), content);
    });
}

#[test]
fn without_tags_an_unreadable_sector_is_healed_from_parity() {
    runtime::block_on(async {
        let bench = Bench::raid6(false);
        let content = bench.fill().await;
        let (disk, place) = bench.place(100);
        hurt(&bench, disk, place, Harm::Unreadable);
        assert_eq!(bench.read(0, bench.sectors()).await.unwrap(), content);
        assert_eq!(bench.healed(), [false]);
    });
}

#[test]
fn without_a_tag_the_other_parity_must_agree() {
    runtime::block_on(async {
        let bench = Bench::raid6(true);
        bench.fill().await;
        let (disk, place) = bench.place(0);
        bench.rig.disks[disk].flip_tag(place);
        // P has other bytes with a valid tag: a lost write, perhaps.
        let p = bench.geometry.p_slot(0);
        bench.rig.disks[p].replace(DATA_OFFSET, &[0x77; 512]);
        let error = bench.read(0, 1).await.unwrap_err();
        assert_eq!(error, IoErrorKind::Protection.at(Sector(0)));
        // With the data's own tag whole, Q is found to be right.
        bench.rig.disks[disk].flip_tag(place);
        bench.rig.disks[disk].flip(place);
        assert_eq!(bench.read(0, 1).await.unwrap(), pattern(1, 0, 1));
        assert_eq!(bench.healed(), [true]);
    });
}

#[test]
fn a_scrub_finds_all_of_it_and_a_check_writes_nothing() {
    runtime::block_on(async {
        let bench = Bench::raid6(true);
        let content = bench.fill().await;
        let before = bench.rig.images();
        bench.flip(3);
        bench.rig.disks[bench.geometry.p_slot(4)].flip(DATA_OFFSET + 4 * 8);
        bench.rig.disks[bench.geometry.q_slot(5).unwrap()].flip_tag(DATA_OFFSET + 5 * 8 + 2);
        let harmed = bench.rig.images();
        let mut found = bio::Findings::default();
        for step in 0..bench.raid.steps() {
            found.merge(bench.raid.scrub(step, bio::ScrubMode::Check).await);
        }
        assert!(bench.rig.images() == harmed);
        assert_eq!(found.checked_sectors, 5 * DATA_SECTORS);
        let kinds: Vec<_> = found.found.iter().map(|(finding, ..)| *finding).collect();
        assert_eq!(kinds, [bio::Finding::Healable; 3]);
        let mut found = bio::Findings::default();
        for step in 0..bench.raid.steps() {
            found.merge(bench.raid.scrub(step, bio::ScrubMode::Repair).await);
        }
        let kinds: Vec<_> = found.found.iter().map(|(finding, ..)| *finding).collect();
        assert_eq!(kinds, [bio::Finding::Healed; 3]);
        assert!(bench.rig.images() == before);
        assert_eq!(bench.read(0, bench.sectors()).await.unwrap(), content);
    });
}

#[test]
fn a_vouch_is_the_members_own() {
    runtime::block_on(async {
        let bench = Bench::raid5(true);
        let content = bench.fill().await;
        bench.flip(20); // the tag still knows
        let all = Buf::copy_of(&content);
        bench.device.submit(&mut Bio::vouch(Sector(0), all)).await.unwrap();
        let mut other = content;
        other[30 * 512] ^= 1;
        let mut bio = Bio::vouch(Sector(0), Buf::copy_of(&other));
        let error = bench.device.submit(&mut bio).await.unwrap_err();
        assert_eq!(error, IoErrorKind::Protection.at(Sector(30)));
    });
}
