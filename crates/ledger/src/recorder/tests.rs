//! Recording from a thread that does not wait.

use super::*;

fn draft(sector: u64) -> Draft {
    let mut draft = Draft::new(Kind::Lost, Time::now());
    (draft.device, draft.sector, draft.sectors) = (Some("a".into()), sector, 8);
    draft
}

fn entries(path: &std::path::Path) -> usize {
    let mut ledger = Ledger::new(path.to_owned());
    ledger.refresh().unwrap().unresolved().len()
}

#[test]
fn a_recorder_that_is_dropped_has_written_everything() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(folder.path().to_owned()).unwrap();
    (0..100).for_each(|number| recorder.record(draft(number * 8)));
    drop(recorder);
    assert_eq!(entries(folder.path()), 100);
}

#[test]
fn events_are_written_within_a_second_by_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(folder.path().to_owned()).unwrap();
    recorder.record(draft(0));
    std::thread::sleep(2 * FLUSH_AFTER);
    let begun = Instant::now();
    // A slow machine may be slow to write it.
    while entries(folder.path()) == 0 && begun.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(entries(folder.path()), 1);
    drop(recorder);
}

#[test]
fn an_answer_knows_all_that_was_recorded_before_the_question() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(folder.path().to_owned()).unwrap();
    recorder.record(draft(0));
    let snapshot = recorder.ask().recv().unwrap();
    assert_eq!(snapshot.book.unresolved().len(), 1);
    assert!(snapshot.error.is_none());
}

#[test]
fn what_cannot_be_written_is_told_with_the_answer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, "").unwrap();
    let recorder = Recorder::start(path).unwrap();
    recorder.record(draft(0));
    let snapshot = recorder.ask().recv().unwrap();
    assert!(snapshot.error.is_some());
    assert_eq!((snapshot.unwritten, snapshot.book.unresolved().len()), (1, 0));
}
