//! Files of ledgers: restarts, torn lines, several processes, hostile content.

use super::*;
use crate::State;
use std::os::unix::fs::{PermissionsExt, symlink};

fn draft(kind: Kind, sector: u64) -> Draft {
    let mut draft = Draft::new(kind, Time::now());
    (draft.device, draft.sector, draft.sectors) = (Some("a".into()), sector, 8);
    draft
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn lost(ledger: &mut Ledger) -> u64 {
    let book = ledger.refresh().unwrap();
    book.account(Some("a")).map_or(0, |account| account.counters.lost_sectors)
}

fn reread(folder: &Path) -> Ledger {
    let mut ledger = Ledger::new(folder.to_owned());
    ledger.refresh().unwrap();
    ledger
}

#[test]
fn what_was_written_is_there_after_a_restart() {
    let folder = folder();
    let path = folder.path().join("below/it");
    let mut ledger = Ledger::new(path.clone());
    assert_eq!(ledger.append(&[draft(Kind::Lost, 0), draft(Kind::Lost, 0)]).unwrap(), 1);
    assert_eq!(ledger.append(&[draft(Kind::Lost, 64)]).unwrap(), 1);
    let again = reread(&path);
    assert_eq!(again.book(), ledger.book());
    assert_eq!(again.book().unresolved().len(), 2);
    assert_eq!(again.book().last_seq(), 2);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn where_there_is_nothing_to_say_nothing_is_made() {
    let folder = folder();
    let path = folder.path().join("none");
    let mut ledger = Ledger::new(path.clone());
    assert_eq!(ledger.append(&[draft(Kind::Resynced, 0)]).unwrap(), 0);
    ledger.clear(None).unwrap();
    assert_eq!(ledger.refresh().unwrap(), &Book::default());
    assert!(!path.exists());
}

#[test]
fn a_torn_last_line_costs_that_line_only() {
    let folder = folder();
    let mut ledger = Ledger::new(folder.path().to_owned());
    ledger.append(&[draft(Kind::Lost, 0), draft(Kind::Lost, 64)]).unwrap();
    let path = folder.path().join(LINES);
    let whole = fs::read(&path).unwrap();
    let first = whole.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    for length in first..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let mut ledger = Ledger::new(folder.path().to_owned());
        assert_eq!(lost(&mut ledger), 8, "{length}: a reader leaves the torn line out");
        ledger.append(&[draft(Kind::Lost, 128)]).unwrap();
        // With its end, the last of these is a line again.
        let (expected, unreadable) = match length - first {
            0 => (16, 0),
            _ if length == whole.len() - 1 => (24, 0),
            _ => (16, 1),
        };
        assert_eq!(lost(&mut ledger), expected, "{length}");
        let again = reread(folder.path());
        assert_eq!(again.book(), ledger.book());
        assert_eq!(again.book().unreadable_lines(), unreadable, "{length}");
    }
}

#[test]
fn a_cleared_ledger_counts_anew() {
    let folder = folder();
    let mut ledger = Ledger::new(folder.path().to_owned());
    ledger.append(&[draft(Kind::Lost, 0)]).unwrap();
    ledger.clear(None).unwrap();
    assert_eq!(lost(&mut ledger), 0);
    assert_eq!(reread(folder.path()).book().unresolved(), []);
    ledger.append(&[draft(Kind::Lost, 0)]).unwrap();
    assert_eq!(lost(&mut ledger), 8);
}

#[test]
fn a_file_that_grew_too_large_is_replaced_and_nothing_is_forgotten() {
    let folder = folder();
    let mut ledger = Ledger::with_bytes_max(folder.path().to_owned(), 20_000);
    let mut other = Ledger::new(folder.path().to_owned());
    let mut longest = 0;
    for number in 0..1000 {
        let kind = if number % 2 == 0 { Kind::Mismatch } else { Kind::Healed };
        ledger.append(&[draft(kind, number / 2 * 8)]).unwrap();
        longest = longest.max(fs::metadata(folder.path().join(LINES)).unwrap().len());
        other.refresh().unwrap();
    }
    ledger.append(&[draft(Kind::Lost, 7)]).unwrap();
    assert!(longest < 21_000, "{longest}");
    for book in [ledger.refresh().unwrap(), other.refresh().unwrap(), reread(folder.path()).book()]
    {
        let account = book.account(Some("a")).unwrap();
        assert_eq!(account.counters.mismatches, 500);
        assert_eq!(account.counters.healed_sectors, 4000);
        assert_eq!(account.sectors(State::Lost), 8);
        assert_eq!((book.last_seq(), book.unreadable_lines()), (1001, 0));
    }
    assert!(!folder.path().join(NEW).exists());
}

#[test]
fn a_replacement_that_was_interrupted_is_made_anew() {
    let folder = folder();
    fs::write(folder.path().join(NEW), "left by a crash").unwrap();
    let mut ledger = Ledger::with_bytes_max(folder.path().to_owned(), 50);
    ledger.append(&[draft(Kind::Lost, 0)]).unwrap();
    assert_eq!(lost(&mut reread(folder.path())), 8);
    assert!(!folder.path().join(NEW).exists());
}

#[test]
fn several_writers_lose_nothing_of_each_other() {
    let folder = folder();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let path = folder.path().to_owned();
            scope.spawn(move || {
                let mut ledger = Ledger::with_bytes_max(path, 4000);
                for number in 0..50 {
                    ledger.append(&[draft(Kind::Lost, (writer * 50 + number) * 8)]).unwrap();
                }
            });
        }
    });
    let ledger = reread(folder.path());
    let account = ledger.book().account(Some("a")).unwrap();
    assert_eq!((account.counters.lost_sectors, ledger.book().last_seq()), (1600, 200));
}

#[test]
fn what_cannot_be_written_is_an_error_and_nothing_is_taken_as_written() {
    let folder = folder();
    let mut ledger = Ledger::new(folder.path().to_owned());
    ledger.append(&[draft(Kind::Lost, 0)]).unwrap();
    fs::remove_file(folder.path().join(LOCK)).unwrap();
    fs::create_dir(folder.path().join(LOCK)).unwrap();
    assert!(matches!(ledger.append(&[draft(Kind::Lost, 8)]), Err(LedgerError::Io { .. })));
    assert_eq!(lost(&mut ledger), 8);
    // What is known already needs no place to be written to.
    assert_eq!(ledger.append(&[draft(Kind::Lost, 0)]).unwrap(), 0);
}

#[test]
fn a_folder_that_is_no_folder_holds_no_ledger() {
    let folder = folder();
    let path = folder.path().join("file");
    fs::write(&path, "").unwrap();
    let mut ledger = Ledger::new(path);
    assert_eq!(ledger.refresh().unwrap(), &Book::default());
    assert!(matches!(ledger.append(&[draft(Kind::Lost, 0)]), Err(LedgerError::Io { .. })));
}

#[test]
fn links_pipes_and_giants_are_refused() {
    let folder = folder();
    let path = folder.path().join(LINES);
    let target = folder.path().join("precious");
    fs::write(&target, "precious").unwrap();
    symlink(&target, &path).unwrap();
    let mut ledger = Ledger::new(folder.path().to_owned());
    assert!(matches!(ledger.append(&[draft(Kind::Lost, 0)]), Err(LedgerError::Io { .. })));
    assert_eq!(fs::read(&target).unwrap(), b"precious");

    fs::remove_file(&path).unwrap();
    let mode = Mode::RUSR | Mode::WUSR;
    let pipe = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &path, pipe, mode, 0).unwrap();
    assert!(matches!(ledger.refresh(), Err(LedgerError::NotAFile { .. })));

    fs::remove_file(&path).unwrap();
    File::create(&path).unwrap().set_len(READ_BYTES_MAX + 1).unwrap();
    assert!(matches!(ledger.refresh(), Err(LedgerError::Large { .. })));
}

#[test]
fn lines_that_make_no_sense_are_skipped_and_counted() {
    let folder = folder();
    let mut ledger = Ledger::new(folder.path().to_owned());
    ledger.append(&[draft(Kind::Lost, 0)]).unwrap();
    let path = folder.path().join(LINES);
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(b"\n\0\0\0\n{\"v\":9}\n");
    bytes.extend(vec![b'x'; 100_000]);
    bytes.push(b'\n');
    fs::write(&path, bytes).unwrap();
    ledger.append(&[draft(Kind::Lost, 64)]).unwrap();
    let again = reread(folder.path());
    assert_eq!((again.book().unreadable_lines(), again.book().unresolved().len()), (4, 2));
}
