//! Files that are said to be ledgers.

use ledger::{LINE_BYTES_MAX, Ledger, Record};
use std::fs;

/// Any bytes as a ledger's file: what decodes is encoded to a line that means the same, what the
/// file amounts to is the same however it is read, and a line that is added is added.
pub fn lines(bytes: &[u8]) {
    for line in bytes.split(|&byte| byte == b'\n') {
        let Ok(record) = Record::decode(line) else { continue };
        let encoded = record.encode();
        if encoded.len() <= LINE_BYTES_MAX {
            assert_eq!(Record::decode(&encoded[..encoded.len() - 1]).as_ref(), Ok(&record));
        }
    }
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let path = folder.path().join("ledger.jsonl");
    fs::write(&path, bytes).expect("the folder is ours");
    let mut whole = Ledger::new(folder.path().to_owned());
    let book = whole.refresh().expect("it is a file, and not large").clone();
    for unresolved in book.unresolved() {
        assert!(unresolved.entry.sectors > 0, "an entry has a place");
        assert!(unresolved.entry.sector.checked_add(unresolved.entry.sectors).is_some());
    }

    // Read in two parts, as by somebody who watches it grow.
    let half = bytes.len() / 2;
    fs::write(&path, &bytes[..half]).expect("the folder is ours");
    let mut parts = Ledger::new(folder.path().to_owned());
    let _first_half = parts.refresh().expect("it is a file, and not large");
    let mut file = fs::OpenOptions::new().append(true).open(&path).expect("the file is ours");
    std::io::Write::write_all(&mut file, &bytes[half..]).expect("the file is ours");
    assert_eq!(parts.refresh().expect("it is a file, and not large"), &book);

    parts.clear(None).expect("it can be written");
    assert_eq!(parts.refresh().expect("it is a file").accounts().count(), 0);
}
