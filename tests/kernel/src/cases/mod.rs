//! The table of cases. A row is a name, a sentence, and a function of a [`Lab`].
//!
//! A new feature is a row: usually one of the functions below with another [`Format`] or
//! [`Subject`].

mod above;
mod bad_blocks;
mod changed;
mod crash;
mod damage;
mod discards;
mod exchange;
mod intent;
mod levels;
mod located;
mod made;
mod membership;
mod partial;
mod partial_parity;
mod pi;
mod server;
mod unlogged;
mod write_journal;

use crate::format::{Format, Mode};
use crate::lab::Lab;
use crate::subject::Subject;
use std::fmt;

/// When a case runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Part {
    /// On every change.
    Ci,
    /// With `--all`, or by name.
    All,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ci => "ci",
            Self::All => "all",
        })
    }
}

/// One row.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) what: &'static str,
    pub(crate) part: Part,
    /// What it makes is its result, and stays.
    pub(crate) keeps: bool,
    pub(crate) run: Run,
}

type Run = Box<dyn Fn(&mut Lab<'_>) -> anyhow::Result<()> + Sync>;

fn row(
    part: Part,
    name: impl Into<String>,
    what: &'static str,
    run: impl Fn(&mut Lab<'_>) -> anyhow::Result<()> + Sync + 'static,
) -> Case {
    Case { name: name.into(), what, part, keeps: false, run: Box::new(run) }
}

/// Every case, in the order in which they run.
pub(crate) fn table() -> Vec<Case> {
    let mut table = exchanges();
    table.extend(crashes());
    table.extend(tags_from_above());
    table.extend(partly_valid());
    table.extend(discarded());
    table.extend(changes());
    table.extend(damages());
    table.extend(membership::cases());
    table.extend(located::cases());
    table.extend(bad_blocks::cases());
    table.extend(pi::cases());
    table.push(row(
        Part::Ci,
        "nbd-ext4",
        "the kernel's NBD client and file system on our server, then on dm-integrity itself",
        server::ext4,
    ));
    table.extend(made());
    table
}

/// The namespaces of the machine's NVMe controller, as options of qemu's.
pub(crate) fn namespaces() -> Vec<String> {
    pi::namespaces()
}

/// Volumes that are judged in both directions: a new one is a line here.
fn volumes() -> Vec<(&'static str, Subject, Part)> {
    let small = Format { journal_bytes: Some(1 << 20), ..Format::CRC32C_4096 };
    let algorithm = |integrity, sector_size| {
        Subject::integrity(Format { integrity, sector_size, ..Format::CRC32C })
    };
    vec![
        ("crc32c-512", Subject::integrity(Format::CRC32C), Part::Ci),
        ("crc32c-4096", Subject::integrity(Format::CRC32C_4096), Part::Ci),
        (
            "crc32c-interleave",
            Subject::integrity(Format { interleave_sectors: Some(1024), ..small }),
            Part::All,
        ),
        ("crc32", algorithm("crc32", 4096), Part::All),
        ("xxhash64", algorithm("xxhash64", 512), Part::All),
        ("sha1", algorithm("sha1", 4096), Part::All),
        ("sha256", algorithm("sha256", 4096), Part::Ci),
        ("sha512", algorithm("sha512", 512), Part::All),
        (
            "blake2b",
            Subject::integrity(Format { integrity: "blake2b-256", tag_size: Some(32), ..small }),
            Part::All,
        ),
        (
            "sha256-short",
            Subject::integrity(Format { integrity: "sha256", tag_size: Some(5), ..small }),
            Part::All,
        ),
        ("crc32c-1024", algorithm("crc32c", 1024), Part::All),
        ("sha1-2048", algorithm("sha1", 2048), Part::All),
        ("hmac-sha256", algorithm("hmac-sha256", 4096), Part::Ci),
        ("hmac-sha256-512", algorithm("hmac-sha256", 512), Part::All),
        ("hmac-sha1", algorithm("hmac-sha1", 4096), Part::All),
        ("hmac-sha512", algorithm("hmac-sha512", 512), Part::All),
        ("mac", Subject::integrity(Format { journal_integrity: MAC, ..small }), Part::All),
        ("ctr", Subject::integrity(Format { journal_crypt: Some("ctr-aes"), ..small }), Part::All),
        ("cbc", Subject::integrity(Format { journal_crypt: Some("cbc-aes"), ..small }), Part::All),
        ("mac-ctr", Subject::integrity(sealed("ctr-aes", small)), Part::Ci),
        ("mac-cbc", Subject::integrity(sealed("cbc-aes", small)), Part::All),
        (
            "keyed-all",
            Subject::integrity(Format {
                integrity: "hmac-sha256",
                ..sealed("ctr-aes", Format::CRC32C)
            }),
            Part::All,
        ),
        ("data-device", Subject::integrity(Format { data_device: true, ..small }), Part::Ci),
        ("legacy-padding", Subject::integrity(Format { legacy_padding: true, ..small }), Part::All),
        (
            "legacy-hmac",
            Subject::integrity(Format {
                integrity: "hmac-sha256",
                journal_integrity: MAC,
                legacy_hmac: true,
                ..small
            }),
            Part::All,
        ),
        (
            "legacy-both",
            Subject::integrity(Format { legacy_padding: true, legacy_hmac: true, ..small }),
            Part::All,
        ),
        ("bitmap", Subject::integrity(Format { mode: Mode::Bitmap, ..small }), Part::All),
        ("direct", Subject::integrity(Format { mode: Mode::Direct, ..small }), Part::All),
        ("raid1", Subject::md(1, 2), Part::Ci),
        ("raid5", Subject::md(5, 3), Part::Ci),
        ("raid5-ppl", Subject::md(5, 4).with_ppl(), Part::All),
        (
            "raid5-ppl-metadata-1-0",
            Subject { metadata: "1.0", ..Subject::md(5, 3).with_ppl() },
            Part::All,
        ),
        ("raid6", Subject::md(6, 4), Part::Ci),
        ("raid1-crc32c", Subject::stacked(1, 2, Format::CRC32C), Part::Ci),
        ("raid5-crc32c", Subject::stacked(5, 3, small), Part::Ci),
        ("raid6-crc32c", Subject::stacked(6, 4, small), Part::Ci),
        (
            "raid1-data-device",
            Subject::stacked(1, 2, Format { data_device: true, ..small }),
            Part::All,
        ),
        ("raid1-intent", Subject::md(1, 2).with_intent(), Part::All),
        ("raid5-intent", Subject::md(5, 3).with_intent(), Part::All),
        ("raid10-intent", Subject::md(10, 4).with_intent(), Part::All),
        ("raid6-crc32c-intent", Subject::stacked(6, 4, small).with_intent(), Part::All),
        ("raid6-5-chunk4k", Subject { chunk_kib: 4, ..Subject::md(6, 5) }, Part::All),
    ]
}

/// The journal sealed.
const MAC: Option<&str> = Some("hmac-sha256");

/// The journal sealed and encrypted.
const fn sealed(cipher: &'static str, format: Format) -> Format {
    Format { journal_integrity: MAC, journal_crypt: Some(cipher), ..format }
}

fn exchanges() -> Vec<Case> {
    let mut cases = Vec::new();
    let volumes =
        volumes().into_iter().map(|(name, subject, part)| (name.to_owned(), subject, part));
    for (name, subject, part) in volumes.chain(levels::volumes()) {
        cases.push(row(
            part,
            format!("ours-{name}"),
            "we make and write it; the kernel reads, checks, writes; we read",
            move |lab| exchange::ours_to_kernel(lab, &subject),
        ));
        cases.push(row(
            part,
            format!("theirs-{name}"),
            "the kernel makes and writes it; we read, scrub, write; the kernel reads",
            move |lab| exchange::kernel_to_ours(lab, &subject),
        ));
    }
    cases.push(row(
        Part::Ci,
        "laps",
        "both write their journals round five times, in turns",
        |lab| exchange::laps(lab, &Format { journal_bytes: Some(1 << 20), ..Format::CRC32C_4096 }),
    ));
    cases.push(row(
        Part::All,
        "declined",
        "both legacy options: our superblock is that of the kernel's target, field by field",
        |lab| {
            let small = Format { journal_bytes: Some(1 << 20), ..Format::CRC32C_4096 };
            let old = Format { legacy_padding: true, legacy_hmac: true, ..small };
            exchange::both_declined(lab, &old)
        },
    ));
    cases
}

fn tags_from_above() -> Vec<Case> {
    vec![
        row(
            Part::Ci,
            "above-exchanged",
            "without a hash: the kernel reads our data and tags, and we what it wrote with tags",
            above::exchanged,
        ),
        row(
            Part::Ci,
            "above-power-cut",
            "the kernel's machine dies with data and tags in its journal; we recover both",
            above::power_cut,
        ),
        row(
            Part::Ci,
            "above-killed",
            "our server is killed with data and tuples in its journal; the kernel recovers both",
            above::killed,
        ),
    ]
}

fn crashes() -> Vec<Case> {
    // Large enough for what is written, and for what an array writes into its superblocks: the five
    // sections of 1 MiB with blocks of 4096 bytes are full before the power is cut.
    let journal = |format| Format { journal_bytes: Some(4 << 20), ..format };
    let alone = |format| Subject::integrity(journal(format));
    let stacked = |level, members, format| Subject::stacked(level, members, journal(format));
    let subjects = [
        ("crc32c-512", alone(Format::CRC32C), Part::Ci),
        ("crc32c-4096", alone(Format::CRC32C_4096), Part::All),
        ("mac-ctr", alone(sealed("ctr-aes", Format::CRC32C_4096)), Part::All),
        ("mac-cbc", alone(sealed("cbc-aes", Format::CRC32C)), Part::All),
        ("raid5", Subject::md(5, 3), Part::All),
        ("raid5-crc32c", stacked(5, 3, Format::CRC32C_4096), Part::Ci),
        ("raid5-crc32c-ppl", stacked(5, 3, Format::CRC32C_4096).with_ppl(), Part::All),
        ("raid1-crc32c", stacked(1, 2, Format::CRC32C), Part::All),
        ("raid0-crc32c", stacked(0, 2, Format::CRC32C_4096), Part::All),
        ("raid10", Subject::md(10, 3), Part::All),
        ("raid10-crc32c", stacked(10, 4, Format::CRC32C_4096), Part::All),
    ];
    let mut cases = Vec::new();
    for (name, subject, part) in subjects {
        cases.push(row(
            part,
            format!("power-cut-{name}"),
            "the kernel's machine dies with its journal full; we recover what was synced",
            move |lab| crash::power_cut(lab, &subject),
        ));
        // With a partial parity log members are flushed before each record: no journal is left full.
        if !subject.mdadm.contains("ppl") {
            cases.push(row(
                part,
                format!("killed-{name}"),
                "our server is killed with its journal full; the kernel recovers what was flushed",
                move |lab| crash::killed(lab, &subject),
            ));
        }
    }
    let logged = Subject::md(5, 4).with_ppl();
    cases.push(row(
        Part::Ci,
        "power-cut-ppl",
        "the kernel's machine dies while it writes; by its log we find old or new, whoever is missing",
        move |lab| partial_parity::cut_there(lab, &logged),
    ));
    let tagged = stacked(5, 3, Format::CRC32C_4096).with_ppl();
    cases.push(row(
        Part::All,
        "power-cut-ppl-crc32c",
        "the kernel's machine dies while it writes; by its log we find old or new, whoever is missing",
        move |lab| partial_parity::cut_there(lab, &tagged),
    ));
    for (name, subject, part) in
        [("killed-ppl", logged, Part::Ci), ("killed-ppl-crc32c", tagged, Part::All)]
    {
        cases.push(row(
            part,
            name,
            "our server is killed while it writes; by our log the kernel finds old or new, whoever is missing",
            move |lab| partial_parity::cut_here(lab, &subject),
        ));
    }
    for (name, subject, part) in [
        ("raid5", Subject::md(5, 3).with_journal("write-through"), Part::All),
        ("raid5-write-back", Subject::md(5, 3).with_journal("write-back"), Part::Ci),
        ("raid6", Subject::md(6, 4).with_journal("write-through"), Part::All),
        ("raid6-write-back", Subject::md(6, 5).with_journal("write-back"), Part::All),
        ("raid4-write-back", Subject::md(4, 3).with_journal("write-back"), Part::All),
    ] {
        cases.push(row(
            part,
            format!("power-cut-journal-{name}"),
            "the kernel's machine dies with a write journal full; we read it, whoever is missing, and bring it home",
            move |lab| write_journal::cut_there(lab, &subject),
        ));
    }
    let small = Format { journal_bytes: Some(1 << 20), ..Format::CRC32C_4096 };
    let later = |metadata, subject| Subject { metadata, ..subject };
    for (name, subject, part) in [
        ("raid5", Subject::md(5, 3).with_journal("write-through"), Part::All),
        ("raid5-crc32c", stacked(5, 3, small).with_journal("write-back"), Part::Ci),
        ("raid6", later("1.0", Subject::md(6, 4).with_journal("write-through")), Part::All),
        ("raid4", later("1.1", Subject::md(4, 3).with_journal("write-back")), Part::All),
    ] {
        cases.push(row(
            part,
            format!("ours-journal-{name}"),
            "we make it with a write journal and write it; the kernel reads, checks, writes; we read and write",
            move |lab| write_journal::made_here(lab, &subject),
        ));
    }
    for (level, members, part) in [(5, 3, Part::Ci), (6, 4, Part::All)] {
        let subject = Subject::md(level, members).with_journal("write-through");
        cases.push(row(
            part,
            format!("rebuilt-journal-raid{level}"),
            "we write through a journal without a member and rebuild it; the kernel reads, checks, writes",
            move |lab| write_journal::rebuilt_here(lab, &subject),
        ));
    }
    for (level, members, part) in [(5, 3, Part::Ci), (6, 5, Part::All), (4, 4, Part::All)] {
        let subject = Subject::md(level, members).with_journal("write-through");
        cases.push(row(
            part,
            format!("killed-journal-raid{level}"),
            "our server is killed with a write journal full; the kernel brings it home, and so do we",
            move |lab| write_journal::killed_here(lab, &subject),
        ));
    }
    for (name, subject, part) in [
        ("raid1", Subject::md(1, 2).with_intent(), Part::Ci),
        ("raid5", Subject::md(5, 3).with_intent(), Part::All),
    ] {
        cases.push(row(
            part,
            format!("power-cut-intent-{name}"),
            "the kernel's machine dies while it writes; we compare what its bitmap says, and no more",
            move |lab| intent::power_cut(lab, &subject),
        ));
        cases.push(row(
            part,
            format!("killed-intent-{name}"),
            "our server is killed while it writes; the kernel compares what our bitmap says",
            move |lab| intent::killed(lab, &subject),
        ));
    }
    let small = Format { journal_bytes: Some(1 << 20), ..Format::CRC32C_4096 };
    let bitmap = Format { mode: Mode::Bitmap, ..small };
    let direct = Format { mode: Mode::Direct, ..small };
    for (name, format, part) in [
        ("bitmap", bitmap, Part::Ci),
        ("bitmap-512", Format { mode: Mode::Bitmap, ..Format::CRC32C }, Part::All),
        ("bitmap-fine", Format { bitmap_sectors: Some(256), ..bitmap }, Part::All),
        ("bitmap-data-device", Format { data_device: true, ..bitmap }, Part::All),
        ("direct", direct, Part::All),
        (
            "direct-sha256-512",
            Format { integrity: "sha256", sector_size: 512, ..direct },
            Part::All,
        ),
    ] {
        cases.push(row(
            part,
            format!("power-cut-{name}"),
            "the kernel's machine dies without a journal; we recover what was synced, and bless nothing",
            move |lab| unlogged::power_cut(lab, &format),
        ));
        cases.push(row(
            part,
            format!("killed-{name}"),
            "our server is killed without a journal; the kernel recovers what was flushed",
            move |lab| unlogged::killed(lab, &format),
        ));
    }
    cases
}

/// Volumes whose tags are not all valid, or not to be looked at.
fn partly_valid() -> Vec<Case> {
    let small = Format { journal_bytes: Some(1 << 20), ..Format::CRC32C_4096 };
    let mut cases = Vec::new();
    for (whose, ours) in [("ours", true), ("theirs", false)] {
        let part = if ours { Part::All } else { Part::Ci };
        for (name, format, part) in
            [("unwiped", small, part), ("unwiped-512", Format::CRC32C, Part::All)]
        {
            cases.push(row(
                part,
                format!("{name}-{whose}"),
                "never wiped: both read what either wrote, and the same holes fail on both sides",
                move |lab| partial::unwiped(lab, &format, ours),
            ));
        }
        let journal = Format { journal_bytes: Some(4 << 20), ..Format::CRC32C_4096 };
        cases.push(row(
            part,
            format!("recovery-{whose}"),
            "full journal, damage: recovery mode gives the same raw content and writes nothing",
            move |lab| partial::recovery(lab, &journal, ours),
        ));
    }
    // Slow tags and short steps, so that there is a middle to be caught in.
    let slow = Format {
        integrity: "sha512",
        sector_size: 512,
        interleave_sectors: Some(1024),
        journal_bytes: Some(1 << 20),
        ..Format::CRC32C
    };
    let apart = Format { data_device: true, interleave_sectors: None, ..slow };
    for (name, format, stop, part) in [
        ("closed", slow, false, Part::Ci),
        ("killed", slow, true, Part::All),
        ("closed-data-device", apart, false, Part::All),
    ] {
        cases.push(row(
            part,
            format!("half-theirs-{name}"),
            "the kernel stops while it computes tags; we give out what is verified, and finish it",
            move |lab| partial::recalculated_by_us(lab, &format, stop),
        ));
        cases.push(row(
            Part::All,
            format!("half-ours-{name}"),
            "we stop while we compute tags; the kernel finishes it, and both read the data",
            move |lab| partial::recalculated_by_kernel(lab, &format, stop),
        ));
    }
    cases.push(row(
        Part::All,
        "recalculation-refused",
        "who may have tags computed anew with a key: the same answers on both sides",
        partial::recalculation_refused,
    ));
    cases
}

/// Blocks that were given back.
fn discarded() -> Vec<Case> {
    let small = Format { journal_bytes: Some(1 << 20), ..Format::CRC32C_4096 };
    let case = |(name, ours)| {
        row(
            Part::All,
            format!("discards-{name}"),
            "what one side discarded reads as zeroes on the other, where the opening allows it",
            move |lab| discards::exchanged(lab, &small, ours),
        )
    };
    let mut cases: Vec<Case> = [("ours", true), ("theirs", false)].map(case).into();
    cases.push(row(
        Part::All,
        "discards-keyed",
        "keyed tags of discarded blocks (flag 0x40): both read and write them, nobody without the key",
        discards::keyed,
    ));
    cases
}

fn changes() -> Vec<Case> {
    let small = Format { journal_bytes: Some(1 << 20), ..Format::CRC32C_4096 };
    let keyed = Format { integrity: "hmac-sha256", ..sealed("ctr-aes", small) };
    let mut cases = Vec::new();
    let bitmap = Format { mode: Mode::Bitmap, ..small };
    for (name, format, part) in [
        ("crc32c", small, Part::Ci),
        ("keyed-all", keyed, Part::All),
        ("bitmap", bitmap, Part::All),
        ("data-device", Format { data_device: true, ..small }, Part::All),
    ] {
        cases.push(row(
            part,
            format!("resized-ours-{name}"),
            "we grow it; the kernel reads old content and zeroes, writes behind; we cut it",
            move |lab| changed::resized_by_us(lab, &format),
        ));
        cases.push(row(
            Part::All,
            format!("resized-theirs-{name}"),
            "the kernel grows and fills it; we read and write behind the old end",
            move |lab| changed::resized_by_kernel(lab, &format),
        ));
    }
    let apart = Format { data_device: true, ..Format::CRC32C_4096 };
    let sha256 = Format { integrity: "sha256", sector_size: 512, ..apart };
    for (name, format, part) in [("crc32c", apart, Part::Ci), ("sha256-512", sha256, Part::All)] {
        cases.push(row(
            part,
            format!("adopted-{name}"),
            "we adopt data that were there; the kernel reads all of them, and writes",
            move |lab| changed::adopted(lab, &format),
        ));
    }
    cases
}

fn damages() -> Vec<Case> {
    let mut cases = Vec::new();
    let apart =
        Format { integrity: "hmac-sha256", data_device: true, ..sealed("ctr-aes", Format::CRC32C) };
    for (name, format, part) in [
        ("512", Format::CRC32C, Part::Ci),
        ("4096", Format::CRC32C_4096, Part::Ci),
        ("keyed-data-device", apart, Part::All),
        ("bitmap", Format { mode: Mode::Bitmap, ..Format::CRC32C_4096 }, Part::All),
        ("direct", Format { mode: Mode::Direct, ..Format::CRC32C_4096 }, Part::All),
        ("crc32", Format { integrity: "crc32", ..Format::CRC32C }, Part::All),
        ("xxhash64", Format { integrity: "xxhash64", ..Format::CRC32C }, Part::All),
        ("sha1", Format { integrity: "sha1", ..Format::CRC32C_4096 }, Part::All),
        ("sha256", Format { integrity: "sha256", ..Format::CRC32C }, Part::All),
        ("hmac-sha256", Format { integrity: "hmac-sha256", ..Format::CRC32C_4096 }, Part::All),
    ] {
        cases.push(row(
            part,
            format!("flipped-{name}"),
            "flipped bits of data and tags: EILSEQ there and unreadable here, the same sectors",
            move |lab| damage::flipped(lab, &format),
        ));
    }
    for (level, members) in [(1, 2), (5, 3), (6, 4), (10, 4)] {
        let subject = Subject::stacked(level, members, Format::CRC32C_4096);
        cases.push(row(
            if level == 5 { Part::Ci } else { Part::All },
            format!("healed-raid{level}"),
            "what either side healed, the other finds sound, on every member",
            move |lab| damage::healed(lab, &subject),
        ));
    }
    cases
}

/// Volumes of the kernel alone, which stay as images.
fn made() -> Vec<Case> {
    let keeps = |name: String, what, run: Run| Case {
        name: format!("made-{name}"),
        what,
        part: Part::All,
        keeps: true,
        run,
    };
    let each = |(name, format)| {
        let run = move |lab: &mut Lab<'_>| made::make(lab, &format);
        let what = "the kernel makes it and reads it back; its image and what to expect stay";
        keeps(name, what, Box::new(run))
    };
    let mut cases: Vec<Case> = made::formats().into_iter().map(each).collect();
    let small = Format { journal_bytes: Some(1 << 20), ..Format::CRC32C_4096 };
    let bitmap = Format { mode: Mode::Bitmap, ..small };
    let special: [(&str, &'static str, Run); 2] = [
        (
            "resized",
            "the kernel grows it with its device, and reads both parts back",
            Box::new(move |lab| made::resized(lab, &small)),
        ),
        (
            "dirty-bitmap",
            "the kernel's machine dies in bitmap mode; the kernel reads what was synced",
            Box::new(move |lab| made::dirty_bitmap(lab, &bitmap)),
        ),
    ];
    cases.extend(special.map(|(name, what, run)| keeps(name.to_owned(), what, run)));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_words_and_every_one_is_another() {
        let table = table();
        let names: BTreeSet<&str> = table.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names.len(), table.len());
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '+';
        assert!(names.iter().all(|name| name.chars().all(plain)), "{names:?}");
    }
}
