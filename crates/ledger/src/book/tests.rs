//! What lines amount to.

use super::*;
use crate::record::Draft;
use proptest::prelude::*;

/// What `draft` makes of a line for 8 sectors from `sector` on of member `device`.
fn record(kind: Kind, device: &str, sector: u64) -> Record {
    let mut draft = Draft::new(kind, Time::default());
    (draft.sector, draft.sectors) = (sector, 8);
    draft.device = Some(device.to_owned()).filter(|device| !device.is_empty());
    draft.member = draft.device.as_ref().map(|device| format!("{device}.img"));
    if kind == Kind::Mismatch {
        (draft.stored, draft.computed) = (Some("aa".into()), Some("bb".into()));
    }
    Record::new(draft, 0)
}

fn book(records: &[Record]) -> Book {
    let mut book = Book::default();
    for record in records {
        book.apply(record);
    }
    book
}

fn counters(book: &Book, device: &str) -> Counters {
    book.account(Some(device)).map(|account| account.counters).unwrap_or_default()
}

#[test]
fn what_is_healed_is_counted_and_closed() {
    let book = book(&[record(Kind::Mismatch, "a", 0), record(Kind::Healed, "a", 0)]);
    let expected = Counters { mismatches: 1, healed_sectors: 8, ..Counters::default() };
    assert_eq!(counters(&book, "a"), expected);
    assert_eq!(book.unresolved(), []);
    assert_eq!(book.account(Some("a")).unwrap().name, "a.img");
}

#[test]
fn what_is_seen_again_is_no_news_and_not_counted_again() {
    let mut book = book(&[record(Kind::Mismatch, "a", 0), record(Kind::Lost, "a", 0)]);
    let before = book.clone();
    assert!(!book.apply(&record(Kind::Mismatch, "a", 0)));
    assert!(!book.apply(&record(Kind::Lost, "a", 0)));
    assert_eq!(book, before);
    let expected = Counters { mismatches: 1, lost_sectors: 8, ..Counters::default() };
    assert_eq!(counters(&book, "a"), expected);
}

#[test]
fn other_tags_at_the_same_place_are_news() {
    let mut book = book(&[record(Kind::Mismatch, "a", 0)]);
    let other = Record { computed: Some("cc".into()), ..record(Kind::Mismatch, "a", 0) };
    assert!(book.apply(&other));
    assert_eq!(counters(&book, "a").mismatches, 2);
    assert_eq!(book.unresolved().len(), 1);
}

#[test]
fn what_was_healed_and_rots_again_is_counted_again() {
    let [mismatch, healed] = [Kind::Mismatch, Kind::Healed].map(|kind| record(kind, "a", 0));
    let book = book(&[mismatch.clone(), healed, mismatch]);
    assert_eq!(counters(&book, "a").mismatches, 2);
    assert_eq!(book.unresolved()[0].entry.state, State::Detected);
}

#[test]
fn a_loss_keeps_the_tags_that_were_seen() {
    let book = book(&[record(Kind::Mismatch, "a", 0), record(Kind::Lost, "a", 0)]);
    let [entry] = &book.unresolved()[..] else { panic!() };
    assert_eq!((entry.entry.state, entry.entry.kind), (State::Lost, Kind::Mismatch));
    assert_eq!(entry.entry.stored.as_deref(), Some("aa"));
}

#[test]
fn only_what_is_healed_is_closed() {
    let wide = Record { sectors: 24, ..record(Kind::Lost, "a", 0) };
    let book = book(&[wide, record(Kind::Healed, "a", 8), record(Kind::Healed, "b", 0)]);
    let left: Vec<_> =
        book.unresolved().iter().map(|u| (u.entry.sector, u.entry.sectors)).collect();
    assert_eq!(left, [(0, 8), (16, 8)]);
}

#[test]
fn a_superblock_is_not_the_block_of_the_same_number() {
    let superblock = Record { area: Area::Superblock, ..record(Kind::Healed, "a", 0) };
    let book = book(&[record(Kind::Lost, "a", 0), superblock]);
    assert_eq!(book.unresolved().len(), 1);
}

#[test]
fn clearing_one_member_leaves_the_others() {
    let clear = Record { sectors: 0, ..record(Kind::Cleared, "a", 0) };
    let mut book = book(&[record(Kind::Lost, "a", 0), record(Kind::Lost, "b", 0), clear]);
    assert_eq!(counters(&book, "a"), Counters::default());
    assert_eq!(counters(&book, "b").lost_sectors, 8);
    assert_eq!(book.unresolved().len(), 1);
    book.apply(&record(Kind::Cleared, "", 0));
    assert_eq!((book.unresolved().len(), book.accounts().count()), (0, 0));
    assert_eq!(book.open_count, 0);
}

#[test]
fn entries_beyond_the_bound_are_counted_only() {
    let mut book = Book::default();
    let extra = 100;
    for number in 0..units::u64_of(OPEN_MAX) + extra {
        assert!(book.apply(&record(Kind::Lost, "a", number * 16)));
    }
    assert_eq!(book.unresolved().len(), OPEN_MAX);
    assert_eq!(counters(&book, "a").unlisted_sectors, extra * 8);
    assert_eq!(counters(&book, "a").lost_sectors, (units::u64_of(OPEN_MAX) + extra) * 8);
}

#[test]
fn members_beyond_the_bound_are_ignored_and_that_is_said() {
    let mut book = Book::default();
    for number in 0..ACCOUNTS_MAX {
        book.apply(&record(Kind::Lost, &number.to_string(), 0));
    }
    assert!(!book.apply(&record(Kind::Lost, "one more", 0)));
    assert_eq!((book.accounts().count(), book.dropped()), (ACCOUNTS_MAX, 1));
}

fn any_record() -> impl Strategy<Value = Record> {
    let kinds = [
        Kind::Mismatch,
        Kind::MediumError,
        Kind::Healed,
        Kind::Healable,
        Kind::Lost,
        Kind::Inconsistent,
        Kind::Resynced,
        Kind::Resolved,
        Kind::Cleared,
        Kind::Dropped,
    ];
    let place = (0_u64..40, 0_u64..20);
    let (kind, device) =
        (prop::sample::select(kinds.to_vec()), prop::sample::select(&["", "a", "b"]));
    (kind, device, place, any::<bool>()).prop_map(
        |(kind, device, (sector, sectors), superblock)| {
            let area = if superblock { Area::Superblock } else { Area::Data };
            Record { sector, sectors, area, ..record(kind, device, 0) }
        },
    )
}

proptest! {
    #[test]
    fn compacting_changes_nothing(records in proptest::collection::vec(any_record(), 0..60)) {
        let mut lines = Vec::new();
        for (seq, record) in (1..).zip(records) {
            lines.extend(Record { seq, ..record }.encode());
        }
        let folded = |lines: &[u8]| {
            let mut book = Book::default();
            crate::file::fold(&mut book, lines);
            book
        };
        let (before, after) = (folded(&lines), folded(&crate::compact::compact(&lines)));
        prop_assert_eq!(before.unresolved(), after.unresolved());
        prop_assert_eq!((before.dropped(), before.open_count), (after.dropped(), after.open_count));
        let counters = |book: &Book| -> Vec<_> {
            let all = book.accounts.iter().map(|(device, account)| (device.clone(), account.counters));
            all.filter(|(_, counters)| *counters != Counters::default()).collect()
        };
        prop_assert_eq!(counters(&before), counters(&after));
    }

    /// A lost sector is lost until something else is known of it, whatever the ranges.
    #[test]
    fn no_sector_has_two_entries(records in proptest::collection::vec(any_record(), 0..60)) {
        let mut book = Book::default();
        for record in &records {
            book.apply(record);
            let counted: usize = book.accounts.values().map(Account::open_count).sum();
            prop_assert_eq!(book.open_count, counted);
        }
    }
}
