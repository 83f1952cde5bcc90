//! A damaged journal: described, and dealt with as somebody chose.

use super::disk::Step;
use super::*;
use crate::integrity::{JournalChoice, JournalState, Restriction, SectionState};
use ::integrity::{Layout, PlanError};
use bio::{EventKind, IoErrorKind};

/// A crashed volume with version 1 below sector 2000. Its journal holds, in five sections one after
/// the other: 2 of 100..110, 3 of 104..106, 4 of 200..210 (damaged: no commit id in one sector),
/// 5 of 108..112, 6 of 300..302. None of it is home.
async fn damaged() -> (Rc<Disk>, Layout) {
    let disk = made(16384, &format_options(512, 2000)).await;
    let volume = opened(&disk).await;
    put(&volume.device(), 0, 2000, 1).await.unwrap();
    volume.close().await.unwrap();
    // None of it goes home before the crash.
    let volume = Integrity::open(disk.device(), Options { watermark: 100, ..options() }).await;
    let volume = volume.unwrap();
    let (device, layout) = (volume.device(), *volume.layout());
    for (sector, sectors, version) in
        [(100, 10, 2), (104, 2, 3), (200, 10, 4), (108, 4, 5), (300, 2, 6)]
    {
        put(&device, sector, sectors, version).await.unwrap();
        device.flush().await.unwrap();
    }
    let disk = Disk::holding(disk.content());
    drop(volume);
    let report = report(&disk).await;
    let third = report.sections.iter().find(|one| one.sectors.contains(&Sector(200))).unwrap();
    let start = layout.journal.section_start(third.section).bytes();
    disk.flip(start + 40 * 512 + 511, 0x08);
    (disk, layout)
}

async fn report(disk: &Rc<Disk>) -> crate::integrity::JournalReport {
    let volume = Integrity::open(disk.device(), options().read_only()).await.unwrap();
    volume.journal_report().await.unwrap().unwrap()
}

const MODES: [Mode; 3] = [Mode::Journal, Mode::Direct, Mode::Bitmap];

fn choosing(choice: JournalChoice) -> Options {
    Options { damaged_journal: Some(choice), ..options() }
}

fn choosing_in(mode: Mode, choice: JournalChoice) -> Options {
    Options { mode: Some(mode), ..choosing(choice) }
}

fn sectors(ranges: &[std::ops::Range<u64>]) -> Vec<Sector> {
    ranges.iter().cloned().flatten().map(Sector).collect()
}

/// What nobody may give out after a replay.
const LOST: [std::ops::Range<u64>; 3] = [108..112, 200..210, 300..302];

#[test]
fn the_report_names_the_damage_and_what_each_way_out_loses() {
    runtime::block_on(async {
        let (disk, layout) = damaged().await;
        let before = disk.content();
        let report = report(&disk).await;
        assert!(matches!(report.problem, Some(Restriction::Journal(PlanError::CommitId { .. }))));
        assert_eq!(report.sections.len(), usize_of(layout.journal.sections.into()));
        let damaged: Vec<_> = (report.sections.iter())
            .filter(|one| matches!(one.state, SectionState::Damaged { .. }))
            .collect();
        assert_eq!(damaged[0].state, SectionState::Damaged { sector: 40 });
        assert_eq!(damaged[0].sectors, sectors(std::slice::from_ref(&(200..210))));
        assert_eq!((damaged.len(), damaged[0].proven), (1, false));
        assert_eq!(report.replay_loses, sectors(&LOST));
        assert_eq!(report.discard_loses, sectors(&[100..112, 200..210, 300..302]));
        assert!(disk.content() == before);
        // A sound journal costs nothing to replay.
        let (sound, _) = super::damage::unreplayed().await;
        let report = super::mend::report(&sound).await;
        assert_eq!((report.problem, report.replay_loses), (None, vec![]));
        assert_eq!(report.discard_loses, sectors(std::slice::from_ref(&(100..110))));
    });
}

async fn assert_replayed(device: &Device, what: &str) {
    assert_holds(device, 100, 4, 2).await;
    assert_holds(device, 104, 2, 3).await;
    assert_holds(device, 106, 2, 2).await;
    for sector in LOST.into_iter().flatten() {
        let found = device.read(Sector(sector), 1).await.map(drop);
        assert_eq!(found, Err(IoErrorKind::Protection.at(Sector(sector))), "{what}");
    }
    assert_holds(device, 0, 100, 1).await;
    assert_holds(device, 302, 1000, 1).await;
}

#[test]
fn replay_writes_what_is_proven_and_of_the_rest_the_tags() {
    runtime::block_on(async {
        let (disk, _) = damaged().await;
        let (options, heard) = listening();
        let choice = JournalChoice::Replay;
        let options = Options { damaged_journal: Some(choice), ..options };
        let volume = Integrity::open(disk.device(), options).await.unwrap();
        assert_eq!(*volume.journal_state(), JournalState::Mended(choice));
        let lost: Vec<Sector> = (heard.borrow().iter())
            .filter(|event| event.kind == EventKind::Lost)
            .map(|event| event.sector)
            .collect();
        assert_eq!(lost, sectors(&LOST));
        assert_replayed(&volume.device(), "mended").await;
        // The tag at home is that of the lost copy: a peer that has it can prove it.
        let newest = Buf::copy_of(&pattern(109, 1, 5));
        assert_eq!(volume.device().submit(&mut Bio::vouch(Sector(109), newest)).await, Ok(()));
        put(&volume.device(), 100, 30, 9).await.unwrap();
        volume.close().await.unwrap();
        let volume = opened(&disk).await;
        assert_holds(&volume.device(), 100, 30, 9).await;
    });
}

#[test]
fn a_block_that_is_home_already_as_the_unproven_copy_says_stays_readable() {
    // Of 109 there is an older, proven copy too: it must not replace the good one.
    for (sector, version) in [(300, 6), (109, 5)] {
        runtime::block_on(home_already(sector, version));
    }
}

async fn home_already(sector: u64, version: u64) {
    let (disk, layout) = damaged().await;
    let place = layout.run(Sector(sector), 1);
    let salt = Some(*b"sixteen of salt.");
    let tagger = checksum::BlockTagger::new(Algorithm::Crc32c, None, salt, layout.block).unwrap();
    let mut tag = [0; 4];
    tagger.tags(sector, &pattern(sector, 1, version), &mut tag);
    disk.set(place.data.bytes(), &pattern(sector, 1, version));
    disk.set(place.tag_byte, &tag);
    assert!(!report(&disk).await.replay_loses.contains(&Sector(sector)));
    let volume = Integrity::open(disk.device(), choosing(JournalChoice::Replay)).await.unwrap();
    assert_holds(&volume.device(), sector, 1, version).await;
}

#[test]
fn discard_leaves_home_as_it_is_and_lists_what_it_gave_up() {
    runtime::block_on(async {
        let (disk, _) = damaged().await;
        let (options, heard) = listening();
        let options = Options { damaged_journal: Some(JournalChoice::Discard), ..options };
        let volume = Integrity::open(disk.device(), options).await.unwrap();
        assert_holds(&volume.device(), 0, 2000, 1).await;
        let lost = heard.borrow().iter().filter(|event| event.kind == EventKind::Lost).count();
        assert_eq!(lost, 24);
        drop(volume);
        let crashed = Disk::holding(disk.content());
        assert_holds(&opened(&crashed).await.device(), 0, 2000, 1).await;
    });
}

#[test]
fn without_a_journal_too_a_damaged_one_is_decided_on_first_and_never_found_again() {
    for mode in [Mode::Direct, Mode::Bitmap] {
        runtime::block_on(async move {
            let (disk, _) = damaged().await;
            let error = refused(&disk, in_mode(mode)).await;
            assert!(matches!(error, OpenError::ReadOnlyOnly(_)), "{error}");
            let choice = JournalChoice::Replay;
            let volume = Integrity::open(disk.device(), choosing_in(mode, choice)).await.unwrap();
            assert_eq!(*volume.journal_state(), JournalState::Mended(choice));
            assert_replayed(&volume.device(), "mended").await;
            put(&volume.device(), 100, 30, 9).await.unwrap();
            put(&volume.device(), 300, 2, 9).await.unwrap();
            volume.close().await.unwrap();
            for next in [Mode::Journal, mode] {
                let volume = Integrity::open(disk.device(), in_mode(next)).await.unwrap();
                assert_holds(&volume.device(), 100, 30, 9).await;
                assert_holds(&volume.device(), 300, 2, 9).await;
                volume.close().await.unwrap();
            }
        });
    }
}

#[test]
fn a_journal_that_is_sound_is_replayed_whatever_was_chosen() {
    runtime::block_on(async {
        for choice in [JournalChoice::Replay, JournalChoice::Discard] {
            let (disk, _) = super::damage::unreplayed().await;
            let volume = Integrity::open(disk.device(), choosing(choice)).await.unwrap();
            assert_eq!(*volume.journal_state(), JournalState::Replayed { entries: 10 });
            assert_holds(&volume.device(), 100, 10, 2).await;
        }
    });
}

/// The power fails at every step of mending, all that was not flushed kept or lost in turn: done
/// again, with the same choice if it is still asked for, the result is the same.
#[test]
fn every_crash_while_mending_ends_where_no_crash_ends() {
    let choices = [JournalChoice::Replay, JournalChoice::Discard];
    for (mode, choice) in MODES.into_iter().flat_map(|mode| choices.map(|choice| (mode, choice))) {
        runtime::block_on(async move {
            let (disk, _) = damaged().await;
            after_every_cut(&disk, &choosing_in(mode, choice), async |volume, cut| match choice {
                JournalChoice::Replay => {
                    assert_replayed(&volume, &format!("{mode:?} {choice:?} cut {cut}")).await;
                }
                JournalChoice::Discard => assert_holds(&volume, 0, 2000, 1).await,
            })
            .await;
        });
    }
}

/// Opens `disk`, which mends it, and calls `check` with what is opened, the same way, after a power cut at each
/// of the steps.
async fn after_every_cut(disk: &Rc<Disk>, options: &Options, check: impl AsyncFn(Device, usize)) {
    let base = disk.content();
    disk.record(11);
    let volume = Integrity::open(disk.device(), options.clone()).await.unwrap();
    let steps = disk.steps();
    drop(volume);
    assert!(steps.iter().any(|step| matches!(step, Step::Flush)));
    for cut in 0..=steps.len() {
        for image in super::crash::leftovers(&base, &steps, cut, 2) {
            let again = Disk::holding(image);
            let volume = Integrity::open(again.device(), options.clone()).await.unwrap();
            check(volume.device(), cut).await;
        }
    }
}

/// A volume of which a power cut left, of the writes of its close, only that of section 0, which had
/// held the newest of 100..110: all is home, and the other sections hold older versions. One of them is
/// damaged. Gives the newest version, too.
async fn damaged_after_half_a_close() -> (Rc<Disk>, u64) {
    let disk = made(16384, &format_options(512, 2000)).await;
    let volume = Integrity::open(disk.device(), Options { watermark: 100, ..options() }).await;
    let volume = volume.unwrap();
    let journal = volume.layout().journal;
    let newest = u64::from(journal.sections) + 1;
    for version in 1..=newest {
        put(&volume.device(), 100, 10, version).await.unwrap();
        volume.device().flush().await.unwrap();
    }
    let before = disk.content();
    volume.close().await.unwrap();
    for section in 1..journal.sections {
        let start = usize_of(journal.section_start(section).bytes());
        let bytes = start..start + journal.section_bytes();
        disk.set(units::u64_of(start), &before[bytes]);
    }
    disk.flip(journal.section_start(1).bytes() + 40 * 512 + 511, 0x08);
    let laps: Vec<_> = report(&disk).await.sections.iter().map(|one| one.state).collect();
    assert_eq!(laps[0], SectionState::Sound { lap: 3 });
    assert_eq!(laps[1], SectionState::Damaged { sector: 40 });
    assert!(laps[2..].iter().all(|state| *state == SectionState::Sound { lap: 1 }));
    (disk, newest)
}

/// Also when the journal that is damaged was being given up: it holds only what is older than home.
#[test]
fn no_crash_while_mending_brings_back_what_was_older_than_home_before() {
    let choices = [JournalChoice::Replay, JournalChoice::Discard];
    for (mode, choice) in MODES.into_iter().flat_map(|mode| choices.map(|choice| (mode, choice))) {
        runtime::block_on(async move {
            let (disk, newest) = damaged_after_half_a_close().await;
            let found = report(&disk).await;
            assert_eq!((found.replay_loses, found.discard_loses), (vec![], vec![]));
            after_every_cut(&disk, &choosing_in(mode, choice), async |volume, _| {
                assert_holds(&volume, 100, 10, newest).await;
            })
            .await;
        });
    }
}
