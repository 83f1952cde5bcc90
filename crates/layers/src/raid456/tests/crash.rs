//! Every place where the power can go, and what is there afterwards.
//!
//! The disks keep a log of all that reached them. For every prefix of it, and for several choices
//! of which writes that were not yet durable survived, the array is opened again: what was flushed
//! must be there, everything else is old or new by the sector, and parity becomes true.

use super::*;
use crate::array::testing::{Entry, crashed};

/// A write or flush, and the log's length before and after it.
pub(super) struct Deed {
    write: Option<(u64, Vec<u8>)>,
    before: usize,
    after: usize,
}

pub(super) async fn run(bench: &Bench) -> Vec<Deed> {
    let all = [(0, 24), (3, 2), (30, 40), (33, 1), (5, 1), (24, 24), (70, 3), (4, 9)];
    run_all(bench, &all).await
}

/// These writes (sector, sectors) with flushes between some, and then it is closed.
pub(super) async fn run_all(bench: &Bench, writes: &[(u64, u64)]) -> Vec<Deed> {
    let mut deeds = Vec::new();
    let length = || bench.rig.log.borrow().len();
    for (n, &(at, sectors)) in writes.iter().enumerate() {
        let before = length();
        let data = pattern(200 + u64_of(n), at, sectors);
        bench.write(at, &data).await.unwrap();
        deeds.push(Deed { write: Some((at, data)), before, after: length() });
        if n % 3 == 2 {
            let before = length();
            bench.device.flush().await.unwrap();
            deeds.push(Deed { write: None, before, after: length() });
        }
        if n == 4 {
            runtime::sleep(std::time::Duration::from_secs(1)).await; // stored, flushed, clean
        }
    }
    let before = length();
    bench.raid.close().await.unwrap();
    deeds.push(Deed { write: None, before, after: length() });
    deeds
}

/// What each sector may hold after a crash at log length `cut`.
pub(super) fn allowed(content: &[u8], deeds: &[Deed], cut: usize) -> Vec<Vec<Vec<u8>>> {
    let mut allowed: Vec<Vec<Vec<u8>>> = content.chunks(512).map(|s| vec![s.to_vec()]).collect();
    for deed in deeds.iter().filter(|deed| deed.before <= cut) {
        match &deed.write {
            Some((at, data)) => {
                for (values, new) in allowed[usize_of(*at)..].iter_mut().zip(data.chunks(512)) {
                    values.push(new.to_vec());
                }
            }
            None if deed.after <= cut => {
                for values in &mut allowed {
                    values.drain(..values.len() - 1);
                }
            }
            None => {}
        }
    }
    allowed
}

/// What is left on the disks at log length `cut`; `choice` of what was not durable: nothing, all, or a mixture.
pub(super) fn remains(
    start: &[Vec<u8>],
    log: &[Entry],
    cut: usize,
    choice: usize,
    tagged: bool,
) -> Rig {
    let keep = |at: usize| match choice {
        0 => false,
        1 => true,
        _ => (at * 7 + cut + choice) % choice.pow(2) < choice,
    };
    let images = start.iter().enumerate();
    let images = images.map(|(disk, image)| crashed(image, log, cut, disk, keep));
    Rig::of_images(images.collect(), tagged)
}

pub(super) fn check(found: &[u8], allowed: &[Vec<Vec<u8>>], what: &str) {
    for (sector, (found, allowed)) in found.chunks(512).zip(allowed).enumerate() {
        assert!(allowed.iter().any(|value| value == found), "sector {sector}: {what}");
    }
}

#[test]
fn after_any_crash_what_was_flushed_is_there_and_parity_becomes_true() {
    for (level, count) in [(ParityLevel::Raid5, 3), (ParityLevel::Raid6, 4)] {
        runtime::block_on(async move {
            let bench = Bench::new(level, count, true, 8);
            let content = bench.fill().await;
            let bench = bench.reopen(&ALL[..count.into()]).await;
            bench.rig.log.borrow_mut().clear();
            let start = bench.rig.images();
            let deeds = run(&bench).await;
            let log: Vec<Entry> = bench.rig.log.borrow().clone();
            for cut in 0..=log.len() {
                for choice in 0..4usize {
                    let rig = remains(&start, &log, cut, choice, true);
                    let what = format!("{level}, cut {cut} of {}, choice {choice}", log.len());
                    reopened(rig, &bench, &allowed(&content, &deeds, cut), &what).await;
                }
            }
        });
    }
}

async fn reopened(rig: Rig, like: &Bench, allowed: &[Vec<Vec<u8>>], what: &str) {
    let present: Vec<usize> = (0..rig.disks.len()).collect();
    let bench = Bench::open(rig, &present, like.geometry, false);
    // Damage right after the crash: right or an error, never something else.
    let dirty = bench.raid.resynced().is_some();
    let (disk, place) = bench.flip(4);
    match bench.read(0, 48).await {
        Ok(found) => check(&found, &allowed[..48], what),
        Err(error) => {
            assert!(dirty && error.sector == Sector(4), "{what}");
            bench.rig.disks[disk].flip(place);
        }
    }
    while bench.raid.resync_step().await.unwrap() {}
    let found = bench.read(0, bench.sectors()).await.unwrap();
    check(&found, allowed, what);
    assert!(bench.parity_is_true(), "{what}");
    assert_eq!(bench.count(|kind| *kind == EventKind::Inconsistent), 0, "{what}");
    let bench = bench.reopen(&present[1..]).await;
    assert!(bench.read(0, bench.sectors()).await.unwrap() == found, "{what}");
}
