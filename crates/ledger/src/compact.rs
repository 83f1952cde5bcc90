//! How a ledger stays small: its oldest half becomes counters and open entries.

use crate::book::Book;
use crate::file::fold;
use crate::record::{Draft, Kind, Record};

/// Lines that amount to the same as `lines`, with the older half of these folded.
pub(crate) fn compact(lines: &[u8]) -> Vec<u8> {
    let half = lines.len() / 2;
    let end = lines[half..].iter().position(|&byte| byte == b'\n');
    let (older, newer) = lines.split_at(end.map_or(lines.len(), |end| half + end + 1));
    let mut book = Book::default();
    fold(&mut book, older);
    let mut compacted = summary(&book);
    compacted.extend_from_slice(newer);
    compacted
}

/// `book` as lines.
fn summary(book: &Book) -> Vec<u8> {
    let since = book.since().unwrap_or_default();
    let counted = |device: Option<&str>, name: &str| {
        let mut draft = Draft::new(Kind::Counted, since);
        draft.device = device.map(str::to_owned);
        draft.member = Some(name.to_owned()).filter(|name| !name.is_empty());
        Record::new(draft, book.last_seq())
    };
    let mut lines = counted(None, "").encode();
    if book.dropped() > 0 {
        let draft = Draft { sectors: book.dropped(), ..Draft::new(Kind::Dropped, since) };
        lines.extend(Record::new(draft, book.last_seq()).encode());
    }
    for (device, account) in book.accounts() {
        let mut record = counted(device, &account.name);
        record.counters = Some(account.counters);
        lines.extend(record.encode());
        for (area, entry) in account.entries() {
            let draft = Draft {
                time: entry.time,
                kind: Kind::Carried,
                member: Some(account.name.clone()).filter(|name| !name.is_empty()),
                device: device.map(str::to_owned),
                area,
                sector: entry.sector,
                sectors: entry.sectors,
                stored: entry.stored.clone(),
                computed: entry.computed.clone(),
                source: None,
                detail: entry.detail.clone(),
            };
            let mut record = Record::new(draft, entry.seq);
            (record.was, record.state) = (Some(entry.kind), Some(entry.state));
            lines.extend(record.encode());
        }
    }
    lines
}
