//! The partial parity log: after a crash, and with any member missing, every sector is old or new.

use super::crash::{allowed, check, remains, run};
use super::*;
use crate::array::testing::{DEVICE_SECTORS, Entry, PPL_SECTORS};
use md::ppl::Log;

fn logged(count: u8, tagged: bool) -> Bench {
    let shape = geometry(ParityLevel::Raid5, 8, count);
    Bench::open(Rig::with_ppl(count, tagged), &ALL[..count.into()], shape, false)
}

fn log_of(rig: &Rig, disk: usize) -> Option<Log> {
    let bytes = rig.disks[disk].bytes.borrow();
    let start = usize_of(Sector(DEVICE_SECTORS).bytes());
    let end = start + usize_of(Sector(PPL_SECTORS.into()).bytes());
    Log::decode(&bytes[start..end], rig.superblock(disk).set_uuid()).ok()
}

#[test]
fn after_any_crash_whoever_is_missing_every_sector_is_old_or_new() {
    for (count, tagged) in [(3, false), (4, true)] {
        runtime::block_on(async move {
            let bench = logged(count, tagged);
            let content = bench.fill().await;
            let bench = bench.reopen(&ALL[..count.into()]).await;
            bench.rig.log.borrow_mut().clear();
            let start = bench.rig.images();
            let deeds = run(&bench).await;
            let log: Vec<Entry> = bench.rig.log.borrow().clone();
            for cut in 0..=log.len() {
                let allowed = allowed(&content, &deeds, cut);
                for (choice, gone) in
                    (0..4).flat_map(|one| (0..=count).map(move |gone| (one, gone)))
                {
                    let rig = remains(&start, &log, cut, choice, tagged);
                    let here = ALL[..count.into()]
                        .iter()
                        .copied()
                        .filter(|&disk| disk != usize::from(gone));
                    let what =
                        format!("cut {cut} of {}, choice {choice}, without {gone}", log.len());
                    let bench = Bench::open(rig, &here.collect::<Vec<_>>(), bench.geometry, false);
                    bench.raid.replay().await.unwrap();
                    // Of a record that was never finished nothing is missing, but it is compared.
                    assert!(gone == count || bench.raid.resynced().is_none(), "{what}");
                    while bench.raid.resync_step().await.unwrap() {}
                    let found = bench.read(0, bench.sectors()).await;
                    check(&found.unwrap(), &allowed, &what);
                    assert!(gone < count || bench.parity_is_true(), "{what}");
                }
            }
        });
    }
}

#[test]
fn a_crash_of_a_degraded_array_leaves_old_or_new() {
    runtime::block_on(async {
        for gone in 0..4 {
            let bench = logged(4, false);
            let content = bench.fill().await;
            let here: Vec<usize> = (0..4).filter(|&disk| disk != gone).collect();
            let bench = bench.reopen(&here).await;
            bench.rig.log.borrow_mut().clear();
            let start = bench.rig.images();
            let deeds = run(&bench).await;
            let log: Vec<Entry> = bench.rig.log.borrow().clone();
            for (cut, choice) in (0..=log.len()).flat_map(|cut| (0..4).map(move |one| (cut, one))) {
                let rig = remains(&start, &log, cut, choice, false);
                let what = format!("cut {cut} of {}, choice {choice}, without {gone}", log.len());
                let bench = Bench::open(rig, &here, bench.geometry, false);
                bench.raid.replay().await.unwrap();
                let found = bench.read(0, bench.sectors()).await;
                check(&found.unwrap(), &allowed(&content, &deeds, cut), &what);
            }
        }
    });
}

/// Every sector, or that it is an error.
async fn each(bench: &Bench) -> Vec<Option<Vec<u8>>> {
    let mut found = Vec::new();
    for sector in 0..bench.sectors() {
        found.push(bench.read(sector, 1).await.ok());
    }
    found
}

#[test]
fn a_block_that_a_crash_left_unreadable_says_nothing_of_the_others_of_its_strip() {
    runtime::block_on(async {
        let bench = logged(3, true);
        let content = bench.fill().await;
        let bench = bench.reopen(&ALL[..3]).await;
        bench.rig.log.borrow_mut().clear();
        let start = bench.rig.images();
        let new = pattern(3, 0, 8);
        bench.write(0, &new).await.unwrap();
        bench.device.flush().await.unwrap();
        let log: Vec<Entry> = bench.rig.log.borrow().clone();
        let (disk, place) = bench.place(3);
        let others = (0..=3).filter(|&gone| gone != disk);
        for (cut, choice, gone) in others.flat_map(|gone| {
            (0..=log.len()).flat_map(move |cut| (0..4).map(move |one| (cut, one, gone)))
        }) {
            let rig = remains(&start, &log, cut, choice, true);
            rig.disks[disk].garble(place);
            let here: Vec<usize> = (0..3).filter(|&disk| disk != gone).collect();
            let bench = Bench::open(rig, &here, bench.geometry, false);
            bench.raid.replay().await.unwrap();
            for (sector, found) in each(&bench).await.into_iter().enumerate() {
                let what = format!("{sector}: cut {cut}, choice {choice}, without {gone}");
                let at = sector * 512..(sector + 1) * 512;
                let Some(found) = found else {
                    // Its own row, and no other.
                    assert!([3, 11].contains(&sector), "{what}");
                    continue;
                };
                let written = new.get(at.clone()).is_some_and(|new| found == new);
                assert!(written || found == content[at], "{what}");
            }
        }
    });
}

#[test]
fn reading_alone_gives_what_the_log_gives_back_and_writes_nothing() {
    runtime::block_on(async {
        let mut lost_before = 0;
        let bench = logged(4, true);
        bench.fill().await;
        let bench = bench.reopen(&ALL[..4]).await;
        bench.rig.log.borrow_mut().clear();
        let start = bench.rig.images();
        bench.write(9, &pattern(3, 9, 30)).await.unwrap();
        bench.device.flush().await.unwrap();
        let log: Vec<Entry> = bench.rig.log.borrow().clone();
        for (cut, choice, gone) in (0..=log.len())
            .flat_map(|cut| (0..4).flat_map(move |one| (0..5).map(move |gone| (cut, one, gone))))
        {
            let rig = remains(&start, &log, cut, choice, true);
            let here: Vec<usize> = (0..4).filter(|&disk| disk != gone).collect();
            let before = rig.images();
            let looked = Bench::open(rig, &here, bench.geometry, true);
            // Without it a row that is not in sync gives nothing back.
            lost_before += each(&looked).await.iter().filter(|found| found.is_none()).count();
            looked.raid.replay().await.unwrap();
            let found = each(&looked).await;
            assert!(looked.rig.images() == before);
            let replayed = Bench::open(looked.rig, &here, bench.geometry, false);
            replayed.raid.replay().await.unwrap();
            assert!(each(&replayed).await == found, "cut {cut}, choice {choice}, without {gone}");
            assert!(found.iter().all(Option::is_some));
        }
        assert!(lost_before > 0);
    });
}

#[test]
fn a_record_of_before_never_undoes_what_an_operator_decided() {
    use bio::{Decision, Finding, Scrub, ScrubMode, Trust};
    runtime::block_on(async {
        let bench = logged(4, false);
        let mut content = bench.fill().await;
        bench.write(0, &pattern(5, 0, 1)).await.unwrap();
        bench.device.flush().await.unwrap();
        // A neighbour in its row becomes something else, and somebody says that this is right.
        bench.flip(8);
        content[8 * 512] ^= 1;
        bench.rig.log.borrow_mut().clear();
        let start = bench.rig.images();
        let decision = Decision { inferred: false, trust: Some(Trust::Data) };
        let found = bench.raid.scrub(0, ScrubMode::Decide(decision)).await.found;
        assert_eq!(found.iter().map(|one| one.0).collect::<Vec<_>>(), [Finding::Decided]);
        // The array is being written elsewhere as the power goes.
        bench.write(40, &pattern(6, 40, 1)).await.unwrap();
        bench.device.flush().await.unwrap();
        let log: Vec<Entry> = bench.rig.log.borrow().clone();
        let parity = (bench.geometry.p_slot(0), DATA_OFFSET);
        for (cut, choice) in (0..=log.len()).flat_map(|cut| (0..4).map(move |one| (cut, one))) {
            let rig = remains(&start, &log, cut, choice, false);
            let before = rig.disks[parity.0].sector(parity.1);
            let bench = Bench::open(rig, &ALL[..4], bench.geometry, false);
            assert!(bench.raid.resynced().is_some());
            bench.raid.replay().await.unwrap();
            let what = format!("cut {cut} of {}, choice {choice}", log.len());
            assert!(bench.rig.disks[parity.0].sector(parity.1) == before, "{what}");
            if cut == log.len() {
                assert!(bench.stripe_is_true(0), "{what}");
                let bench = bench.reopen(&[0, 2, 3]).await;
                assert!(bench.read(8, 1).await.unwrap() == content[8 * 512..9 * 512], "{what}");
            }
        }
    });
}

#[test]
fn a_crash_while_the_log_is_replayed_changes_nothing() {
    runtime::block_on(async {
        let bench = logged(4, false);
        let content = bench.fill().await;
        bench.rig.log.borrow_mut().clear();
        let start = bench.rig.images();
        bench.write(9, &pattern(3, 9, 30)).await.unwrap();
        bench.device.flush().await.unwrap();
        let log: Vec<Entry> = bench.rig.log.borrow().clone();
        for cut in (0..=log.len()).step_by(3) {
            let first = remains(&start, &log, cut, 2, false);
            let again = first.images();
            let replayed = Bench::open(first, &ALL[..4], bench.geometry, false);
            replayed.raid.replay().await.unwrap();
            let second: Vec<Entry> = replayed.rig.log.borrow().clone();
            for cut in 0..=second.len() {
                let rig = remains(&again, &second, cut, 3, false);
                let bench = Bench::open(rig, &ALL[1..4], bench.geometry, false);
                bench.raid.replay().await.unwrap();
                let found = bench.read(0, bench.sectors()).await.unwrap();
                let new = pattern(3, 9, 30);
                for (sector, found) in found.chunks(512).enumerate() {
                    let at = sector * 512;
                    let old = found == &content[at..at + 512];
                    assert!(
                        old || (9..39).contains(&sector) && found == &new[at - 9 * 512..][..512]
                    );
                }
            }
        }
    });
}

#[test]
fn an_array_whose_log_is_damaged_is_compared_whole_and_refused_when_degraded() {
    runtime::block_on(async {
        let bench = logged(4, false);
        bench.fill().await;
        bench.write(0, &pattern(7, 0, 3)).await.unwrap();
        bench.device.flush().await.unwrap();
        let (shape, images) = (bench.geometry, bench.rig.images());
        let damaged = || {
            let mut images = images.clone();
            images[1][usize_of(Sector(DEVICE_SECTORS).bytes()) + 528] ^= 1;
            Rig::of_images(images, false)
        };
        let degraded = Bench::try_open(damaged(), &[0, 1, 2], shape, false, false);
        assert_eq!(degraded.err(), Some(OpenError::DegradedAndDirty));
        let whole = Bench::open(damaged(), &ALL[..4], shape, false);
        whole.raid.replay().await.unwrap();
        assert_eq!(whole.raid.resynced(), Some(Sector::ZERO));
        while whole.raid.resync_step().await.unwrap() {}
        assert!(whole.parity_is_true() && whole.raid.resynced().is_none());
        // Written again, its log is believed again.
        whole.write(0, &pattern(8, 0, 3)).await.unwrap();
        whole.device.flush().await.unwrap();
        assert!((0..4).all(|disk| log_of(&whole.rig, disk).is_some()));
    });
}

#[test]
fn logs_are_void_while_something_is_not_in_sync_that_they_do_not_name() {
    runtime::block_on(async {
        let bench = logged(4, true);
        bench.fill().await;
        // Two lost blocks of one row, one of which is written: its row is torn.
        bench.garble(0);
        bench.garble(8);
        bench.write(16, &pattern(9, 16, 1)).await.unwrap();
        bench.garble(16);
        bench.write(16, &pattern(9, 16, 1)).await.unwrap();
        bench.device.flush().await.unwrap();
        assert!(bench.raid.resynced().is_some());
        assert!((0..4).all(|disk| log_of(&bench.rig, disk).is_none()));
        bench.write(0, &pattern(4, 0, 24)).await.unwrap();
        bench.device.flush().await.unwrap();
        let bench = bench.reopen(&ALL[..4]).await;
        assert_eq!(bench.raid.resynced(), None);
        assert!((0..4).all(|disk| log_of(&bench.rig, disk).is_some()));
    });
}

#[test]
fn zeroes_go_through_the_log_as_all_else() {
    runtime::block_on(async {
        let bench = logged(3, false);
        bench.fill().await;
        let limits = bench.device.limits();
        assert!(!limits.discard && !limits.fast_zeroes);
        let mut zeroes = bio::Bio::write_zeroes(Sector(5), 64, false);
        bench.device.submit(&mut zeroes).await.unwrap();
        bench.device.flush().await.unwrap();
        assert!(bench.read(5, 64).await.unwrap().iter().all(|&byte| byte == 0));
        assert!(bench.parity_is_true());
    });
}
