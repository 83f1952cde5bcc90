//! What is made of an array that was not closed, and of one whose parity is wrong for no reason.

use super::*;

/// A filled array that stopped without closing, with a sector whose parity is of other bytes.
async fn interrupted(bench: Bench, sector: u64) -> (Bench, Vec<u8>) {
    let mut content = bench.fill().await;
    bench.write(sector, &pattern(61, sector, 1)).await.unwrap();
    bench.device.flush().await.unwrap();
    // Data arrived, parity did not.
    let (disk, place) = bench.place(sector);
    let new = pattern(67, sector, 1);
    bench.rig.disks[disk].replace(place, &new);
    content[usize_of(sector) * 512..][..512].copy_from_slice(&new);
    let rig = Rig::of_images(bench.rig.images(), true);
    let present: Vec<usize> = (0..rig.disks.len()).collect();
    (Bench::open(rig, &present, bench.geometry, false), content)
}

#[test]
fn a_dirty_array_gets_parity_from_its_data() {
    runtime::block_on(async {
        for bench in [Bench::raid5(true), Bench::raid6(true)] {
            let (bench, content) = interrupted(bench, 21).await;
            assert_eq!(bench.raid.resynced(), Some(Sector::ZERO));
            assert!(!bench.parity_is_true());
            bench.raid.start_resync();
            runtime::sleep(std::time::Duration::from_secs(2)).await;
            assert_eq!(bench.raid.resynced(), None);
            assert!(bench.parity_is_true());
            assert_eq!(bench.read(0, bench.sectors()).await.unwrap(), content);
            assert_eq!(bench.count(|kind| *kind == EventKind::Inconsistent), 0);
            assert!(bench.count(|kind| *kind == EventKind::Resynced) > 0);
            assert_eq!(bench.rig.superblock(0).resync(), ResyncOffset::Clean);
        }
    });
}

#[test]
fn what_a_scrub_has_made_true_is_true_for_the_superblocks_when_it_is_closed() {
    use bio::{Scrub, ScrubMode};
    runtime::block_on(async {
        let (bench, _) = interrupted(Bench::raid5(true), 21).await;
        for step in 0..bench.raid.steps() {
            bench.raid.scrub(step, ScrubMode::Repair).await;
        }
        assert_eq!(bench.raid.resynced(), None);
        bench.raid.close().await.unwrap();
        assert!((0..4).all(|disk| bench.rig.superblock(disk).resync() == ResyncOffset::Clean));
    });
}

#[test]
fn before_the_resync_only_the_members_own_tag_is_believed() {
    runtime::block_on(async {
        let (bench, content) = interrupted(Bench::raid5(true), 21).await;
        // Stripe 1 holds sectors 24..48 untouched by the interrupted write: the tag vouches.
        bench.flip(30);
        assert_eq!(bench.read(30, 1).await.unwrap(), content[30 * 512..31 * 512]);
        // Here parity is of other bytes: what it gives is not what the tag knows.
        bench.flip(5);
        bench.read(5, 1).await.unwrap_err();
        // Here the tag is gone, and nobody knows that parity is right.
        let (disk, place) = bench.place(60);
        bench.rig.disks[disk].flip_tag(place);
        let error = bench.read(60, 1).await.unwrap_err();
        assert_eq!(error, IoErrorKind::Protection.at(Sector(60)));
        while bench.raid.resync_step().await.unwrap() {}
        // The resync cannot know it either: it stays lost, and the array knows.
        bench.read(60, 1).await.unwrap_err();
        let torn = bench.raid.resynced().is_some();
        assert!(torn && bench.stripe_is_true(1));
    });
}

#[test]
fn what_is_written_before_the_resync_comes_is_protected_at_once() {
    runtime::block_on(async {
        let (bench, _) = interrupted(Bench::raid5(true), 21).await;
        let new = pattern(71, 60, 1);
        bench.write(60, &new).await.unwrap();
        bench.device.flush().await.unwrap();
        let (disk, place) = bench.place(60);
        bench.rig.disks[disk].flip_tag(place);
        assert_eq!(bench.read(60, 1).await.unwrap(), new);
    });
}

#[test]
fn wrong_parity_on_a_clean_array_is_listed_and_never_laundered() {
    runtime::block_on(async {
        let bench = Bench::raid6(true);
        let content = bench.fill().await;
        let (disk, place) = bench.place(21);
        bench.rig.disks[disk].replace(place, &[0x33; 512]);
        let before = bench.rig.images();
        let mut found = bio::Findings::default();
        for _ in 0..2 {
            for step in 0..bench.raid.steps() {
                found.merge(bench.raid.scrub(step, bio::ScrubMode::Repair).await);
            }
        }
        assert!(bench.rig.images() == before);
        let listed = found.found.iter().map(|(finding, member, _)| (*finding, member.is_none()));
        let listed = listed.collect::<Vec<_>>();
        assert_eq!(listed, [(bio::Finding::Inconsistent, true); 2]);
        assert_eq!(bench.count(|kind| *kind == EventKind::Inconsistent), 1);
        // A sibling whose tag is damaged is not rebuilt from it; one that its tag vouches for is.
        let (disk, place) = bench.place(5);
        bench.rig.disks[disk].flip_tag(place);
        bench.read(5, 1).await.unwrap_err();
        bench.rig.disks[disk].flip_tag(place);
        assert_eq!(bench.read(5, 1).await.unwrap(), content[5 * 512..6 * 512]);
        // A small write to a sibling keeps the disagreement as it is.
        bench.write(13, &pattern(73, 13, 1)).await.unwrap();
        bench.device.flush().await.unwrap();
        assert!(!bench.stripe_is_true(0));
    });
}

#[test]
fn degraded_and_dirty_is_refused_without_force() {
    runtime::block_on(async {
        let (bench, _) = interrupted(Bench::raid6(true), 21).await;
        let present = [0, 1, 2, 3];
        let again = || Rig::of_images(bench.rig.images(), true);
        let refused = Bench::try_open(again(), &present, bench.geometry, false, false).err();
        assert_eq!(refused, Some(OpenError::DegradedAndDirty));
        let forced = Bench::try_open(again(), &present, bench.geometry, false, true).ok().unwrap();
        forced.read(0, forced.sectors()).await.unwrap();
        forced.raid.close().await.unwrap();
        // Looking is allowed; what cannot be proven is an error.
        let looked = Bench::try_open(again(), &present, bench.geometry, true, false).ok().unwrap();
        let mut errors = 0;
        for sector in 0..looked.sectors() {
            let missing = looked.place(sector).0 == 4;
            let read = looked.read(sector, 1).await;
            assert_eq!(read.is_err(), missing);
            errors += u64::from(missing);
        }
        assert!(errors > 0);
    });
}

#[test]
fn a_member_that_fails_during_the_resync_leaves_errors_not_guesses() {
    runtime::block_on(async {
        let (bench, content) = interrupted(Bench::raid5(true), 21).await;
        bench.rig.disks[3].gone.set(true);
        bench.raid.start_resync();
        let mut written = content.clone();
        let place = (0..bench.sectors()).find(|&s| bench.place(s).0 == 3).unwrap();
        let new = pattern(79, place, 1);
        bench.write(place, &new).await.unwrap();
        bench.device.flush().await.unwrap();
        written[usize_of(place) * 512..][..512].copy_from_slice(&new);
        for sector in 0..bench.sectors() {
            let wanted = &written[usize_of(sector) * 512..][..512];
            match bench.read(sector, 1).await {
                Ok(found) => assert_eq!(found, wanted),
                Err(_) => assert!(bench.place(sector).0 == 3 && sector != place),
            }
        }
        bench.raid.close().await.unwrap();
        assert_ne!(bench.rig.superblock(0).resync(), ResyncOffset::Clean);
    });
}

#[test]
fn a_member_whose_bad_block_log_a_crash_made_unreadable_is_believed_where_row_and_tag_agree() {
    runtime::block_on(async {
        for bench in [Bench::raid5(true), Bench::raid6(true)] {
            let (bench, content) = interrupted(bench, 21).await;
            let ((disk, refused), (_, torn)) = (bench.place(45), bench.place(21));
            let rig = bench.rig.with_logs(true);
            let mut superblock = rig.superblock(disk);
            superblock.set_has_bad_blocks(true);
            rig.disks[disk].replace(8, &superblock.encode());
            // Entries of no sectors. A write that the member refused is what they should have named.
            rig.disks[disk].replace(0, &[0; 4096]);
            rig.disks[disk].replace(refused, &pattern(71, 45, 1));
            let present: Vec<usize> = (0..rig.disks.len()).collect();
            let bench = Bench::open(rig, &present, bench.geometry, false);
            let here = |at: &u64| bench.place(*at).0 == disk;
            let lost: Vec<u64> = (0..bench.sectors())
                .filter(|at| here(at) && [refused, torn].contains(&bench.place(*at).1))
                .collect();
            assert_eq!(lost.len(), 2);
            while bench.raid.resync_step().await.unwrap() {}
            for at in 0..bench.sectors() {
                match bench.read(at, 1).await {
                    Ok(read) => assert_eq!(read, content[usize_of(at) * 512..][..512], "{at}"),
                    Err(_) => assert!(lost.contains(&at), "{at}"),
                }
                assert!(!lost.contains(&at) || bench.read(at, 1).await.is_err(), "{at}");
            }
            bench.raid.close().await.unwrap();
            let mut bad: Vec<_> = bench.rig.logs(disk).bad_blocks.unwrap().ranges().collect();
            bad.sort_by_key(|range| range.start);
            let mut expected: Vec<_> = lost.iter().map(|at| bench.place(*at).1).collect();
            expected.sort_unstable();
            let starts: Vec<u64> = bad.iter().map(|range| range.start).collect();
            assert_eq!((starts, bad.iter().all(|one| one.end - one.start == 1)), (expected, true));
        }
    });
}
