//! Volumes of every kind that the kernel makes, whether we can open them or not.
//!
//! Each is written, closed, opened again and read by the kernel alone: the script is right then,
//! and what it leaves in the target folder is an image with what must be read from it. When
//! `steadfast` learns a kind, its row moves to the exchanges.

use super::exchange::{read, size, write};
use crate::content::{Content, Write, scattered};
use crate::disks::Disks;
use crate::format::{Format, Mode};
use crate::lab::{Answer, Lab};
use crate::subject::Subject;
use anyhow::{Context, ensure};
use serde_json::json;
use std::fs::File;

/// # Errors
/// If the kernel does not read what it wrote.
pub(super) fn make(lab: &mut Lab<'_>, format: &Format) -> anyhow::Result<()> {
    let subject = Subject::integrity(*format);
    let disks = lab.blank(&subject)?;
    let recalculated = if format.recalculate { RECALCULATED } else { "" };
    let script = [subject.make(), recalculated.to_owned(), size(&subject), subject.close()];
    let answer = lab.guest(&disks, &script.concat())?;
    let sectors = answer.number("sectors")?;
    // What was neither wiped nor recalculated cannot be read before it is written.
    let mut writes = match format.wipe || format.recalculate {
        true => Vec::new(),
        false => vec![Write { generation: 7, sector: 0, sectors }],
    };
    writes.extend(scattered(sectors, subject.block(), 0));
    let mut content = Content::new(sectors);
    content.apply(&writes);
    let mut script = subject.open() + &write(&subject, &writes);
    if format.allow_discards {
        let (sector, count) = DISCARDED;
        script +=
            &format!("blkdiscard -o {} -l {} {}\n", sector * 512, count * 512, subject.device());
        content.clear(sector, count);
    }
    script += &subject.close();
    script += DUMP;
    let dump = lab.guest(&disks, &script)?;
    remember(lab, &subject, &disks, &content, &dump)
}

/// A volume whose device grew after it was filled.
///
/// # Errors
/// If the kernel does not read what it wrote, before and behind the old end.
pub(super) fn resized(lab: &mut Lab<'_>, format: &Format) -> anyhow::Result<()> {
    let subject = Subject::integrity(*format);
    let (disks, content) = grow(lab, &subject)?;
    let dump = lab.guest(&disks, DUMP)?;
    remember(lab, &subject, &disks, &content, &dump)
}

/// The kernel fills a volume, grows it by [`GROWN_BYTES`], and fills that, too.
///
/// # Errors
/// If the kernel does not.
pub(super) fn grow(lab: &mut Lab<'_>, subject: &Subject) -> anyhow::Result<(Disks, Content)> {
    let disks = lab.blank(subject)?;
    let answer = lab.guest(&disks, &[subject.make(), size(subject), subject.close()].concat())?;
    let small = answer.number("sectors")?;
    let before = scattered(small, subject.block(), 0);
    let script = [subject.open(), write(subject, &before), subject.close()];
    lab.guest(&disks, &script.concat())?;
    File::options().write(true).open(disks.data(0))?.set_len(subject.member_bytes + GROWN_BYTES)?;
    let grow = "integritysetup resize -q --wipe t0\n".to_owned();
    let script = [subject.open(), grow, size(subject), subject.close()];
    let sectors = lab.guest(&disks, &script.concat())?.number("sectors")?;
    ensure!(sectors > small, "{small} sectors before, {sectors} after it grew");
    let mut content = Content::new(sectors);
    let behind = [Write { generation: 2, sector: small - 64, sectors: sectors - small }];
    content.apply(&before);
    content.apply(&behind);
    let script = [subject.open(), write(subject, &behind), subject.close()];
    lab.guest(&disks, &script.concat())?;
    Ok((disks, content))
}

/// A volume in bitmap mode whose machine died: the dirty bitmap is where the journal would be.
/// Everything was synced, so what must be read is known.
///
/// # Errors
/// If the kernel does not read what it wrote.
pub(super) fn dirty_bitmap(lab: &mut Lab<'_>, format: &Format) -> anyhow::Result<()> {
    let subject = Subject::integrity(*format);
    let disks = lab.blank(&subject)?;
    let answer = lab.guest(&disks, &[subject.make(), size(&subject), subject.close()].concat())?;
    let sectors = answer.number("sectors")?;
    let writes = scattered(sectors, subject.block(), 0);
    let mut content = Content::new(sectors);
    content.apply(&writes);
    let end = "echo now\nsleep 1000\n".to_owned();
    let script = [subject.open(), write(&subject, &writes), end];
    lab.cut_power(&disks, "now", &script.concat())?;
    let dump = lab.guest(&disks, DUMP)?;
    ensure!(dump.fields()["flags"].contains("dirty_bitmap"), "not dirty: {dump:?}");
    // The kernel cleans up what it opens: the image stays as it was left.
    remember(lab, &subject, &disks.copies()?, &content, &dump)
}

/// The kernel reads `content` from `disks`, and what that takes is written down beside them.
fn remember(
    lab: &mut Lab<'_>,
    subject: &Subject,
    disks: &Disks,
    content: &Content,
    dump: &Answer,
) -> anyhow::Result<()> {
    let table = "echo table $(dmsetup table t0)\n".to_owned();
    let answer =
        lab.guest(disks, &[subject.open(), read(subject), table, subject.close()].concat())?;
    content.must_be(&lab.given(&answer)?, "what the kernel reads of what it wrote")?;
    let format = subject.integrity.context("a volume of dm-integrity")?;
    let expected = json!({
        "format": format.format_command(0).trim(),
        "open": format.open_command(0, "t0").trim(),
        "table": answer.all("table").last().context("the table")?,
        "dump": dump.fields(),
        "sectors": answer.number("sectors")?,
        "sha256": content.sha256(),
    });
    let text = serde_json::to_string_pretty(&expected)?;
    std::fs::write(lab.path("expected.json"), text + "\n").context("expected.json")
}

/// Every kind, each with what makes it different from the default.
pub(super) fn formats() -> Vec<(String, Format)> {
    let small = Format { journal_bytes: Some(1 << 20), ..Format::CRC32C_4096 };
    let mut formats = Vec::new();
    for integrity in ALGORITHMS {
        for sector_size in [512, 4096] {
            let format = Format { integrity, sector_size, ..Format::CRC32C };
            formats.push((format!("{integrity}-{sector_size}"), format));
        }
    }
    let others = [
        ("1024", Format { sector_size: 1024, ..Format::CRC32C }),
        ("2048", Format { sector_size: 2048, integrity: "sha1", ..Format::CRC32C }),
        ("blake2b", Format { integrity: "blake2b-256", tag_size: Some(32), ..small }),
        ("tag-short", Format { integrity: "sha256", tag_size: Some(5), ..Format::CRC32C }),
        ("tag-long", Format { tag_size: Some(8), ..Format::CRC32C }),
        ("interleave", Format { interleave_sectors: Some(1024), ..small }),
        ("buffer", Format { buffer_sectors: Some(16), ..small }),
        ("bitmap", Format { mode: Mode::Bitmap, ..small }),
        ("direct", Format { mode: Mode::Direct, ..small }),
        ("data-device", Format { data_device: true, ..Format::CRC32C }),
        ("data-device-4096", Format { data_device: true, integrity: "sha256", ..small }),
        ("journal-mac", Format { journal_integrity: Some("hmac-sha256"), ..small }),
        ("journal-mac-sha1", Format { journal_integrity: Some("hmac-sha1"), ..Format::CRC32C }),
        ("journal-ctr", Format { journal_crypt: Some("ctr-aes"), ..small }),
        ("journal-cbc", Format { journal_crypt: Some("cbc-aes"), ..small }),
        (
            "keyed-all",
            Format {
                integrity: "hmac-sha256",
                journal_integrity: Some("hmac-sha256"),
                journal_crypt: Some("ctr-aes"),
                ..small
            },
        ),
        ("recalculated", Format { wipe: false, recalculate: true, ..small }),
        ("unwiped", Format { wipe: false, ..small }),
        ("discards", Format { allow_discards: true, ..small }),
        ("legacy-padding", Format { legacy_padding: true, ..small }),
        ("legacy-hmac", Format { legacy_hmac: true, ..small }),
        ("legacy-both", Format { legacy_padding: true, legacy_hmac: true, ..small }),
    ];
    formats.extend(others.map(|(name, format)| (name.to_owned(), format)));
    formats
}

const ALGORITHMS: [&str; 7] =
    ["crc32c", "crc32", "xxhash64", "sha1", "sha256", "sha512", "hmac-sha256"];

const DUMP: &str = "integritysetup dump $D0\n";

/// By how much a device grows.
pub(super) const GROWN_BYTES: u64 = 8 << 20;

/// Sectors that are given back, in the middle of what was written.
pub(super) const DISCARDED: (u64, u64) = (6144, 1024);

/// The guest waits until all tags are computed: the status ends with how far it is.
pub(super) const RECALCULATED: &str =
    "recalculated() { [ \"$(dmsetup status t0 | cut -d' ' -f6)\" = \"$(sectors_of /dev/mapper/t0)\" ]; }
wait_for recalculated\n";
