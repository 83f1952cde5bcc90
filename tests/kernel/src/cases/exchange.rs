//! One side makes and writes a volume, the other reads, checks and writes it, and the first reads.

use crate::content::{Content, Write, scattered};
use crate::disks::Disks;
use crate::format::Format;
use crate::lab::{Answer, Lab};
use crate::subject::Subject;
use anyhow::{Context, ensure};
use serde_json::Value;
use std::fs::File;

/// # Errors
/// If the kernel does not read what we wrote, or we not what it wrote then.
pub(super) fn ours_to_kernel(lab: &mut Lab<'_>, subject: &Subject) -> anyhow::Result<()> {
    let (members, sectors) = lab.create(subject)?;
    let mut content = Content::new(sectors);
    let first = scattered(sectors, subject.block(), 0);
    lab.import(&members, &first)?;
    content.apply(&first);
    dumps_agree(lab, subject, &members)?;

    let second = scattered(sectors, subject.block(), 2);
    let answer = lab.guest(
        &members,
        &[subject.open(), read(subject), write(subject, &second), subject.close()].concat(),
    )?;
    content.must_be(&lab.given(&answer)?, "what the kernel reads")?;
    agrees_inside(subject, &answer)?;
    content.apply(&second);
    content.must_be(&lab.export(&members)?, "what we read after the kernel wrote")?;
    dumps_agree(lab, subject, &members)?;
    closed_cleanly(lab, subject, &members)?;
    lab.must_be_sound(&members)
}

/// # Errors
/// If we do not read what the kernel wrote, or it not what we wrote then.
pub(super) fn kernel_to_ours(lab: &mut Lab<'_>, subject: &Subject) -> anyhow::Result<()> {
    let members = lab.blank(subject)?;
    let answer = lab.guest(&members, &[subject.make(), size(subject), subject.close()].concat())?;
    let sectors = answer.number("sectors")?;
    let mut content = Content::new(sectors);
    let first = scattered(sectors, subject.block(), 0);
    let answer = lab
        .guest(&members, &[subject.open(), write(subject, &first), subject.close()].concat())
        .context("it writes what it made")?;
    drop(answer);
    content.apply(&first);
    dumps_agree(lab, subject, &members)?;
    content.must_be(&lab.export(&members)?, "what we read")?;
    lab.must_be_sound(&members)?;

    let second = scattered(sectors, subject.block(), 2);
    lab.import(&members, &second)?;
    content.apply(&second);
    let answer = lab.guest(&members, &[subject.open(), read(subject), subject.close()].concat())?;
    content.must_be(&lab.given(&answer)?, "what the kernel reads after we wrote")?;
    agrees_inside(subject, &answer)?;
    content.must_be(&lab.export(&members)?, "what we read after the kernel closed it")?;
    closed_cleanly(lab, subject, &members)?;
    lab.must_be_sound(&members)
}

/// Both sides write more than four journals full, in turns: every sequence number is met by the
/// other's recovery.
///
/// # Errors
/// If one of them reads anything else than what was written.
pub(super) fn laps(lab: &mut Lab<'_>, format: &Format) -> anyhow::Result<()> {
    let subject = Subject::integrity(*format);
    let journal = format.journal_bytes.context("a journal of a known size")?;
    let (members, sectors) = lab.create(&subject)?;
    let mut content = Content::new(sectors);
    let lap = journal / 512;
    for turn in 0..3 {
        // Pieces of a third of the journal, over each other, each of them synced.
        let writes: Vec<Write> = (0..15 + turn)
            .map(|index| Write {
                generation: 1 + index % 5 + turn * 5,
                sector: index * 1024 + turn * 64,
                sectors: lap / 3 / 8 * 8,
            })
            .collect();
        lab.import(&members, &writes)?;
        content.apply(&writes);
        let theirs: Vec<Write> =
            writes.iter().map(|w| Write { generation: w.generation + 1, ..*w }).collect();
        let answer = lab.guest(
            &members,
            &[subject.open(), read(&subject), write(&subject, &theirs), subject.close()].concat(),
        )?;
        content.must_be(&lab.given(&answer)?, &format!("what the kernel reads, turn {turn}"))?;
        content.apply(&theirs);
        content.must_be(&lab.export(&members)?, &format!("what we read, turn {turn}"))?;
    }
    lab.must_be_sound(&members)
}

/// Both later repairs of the format declined: the kernel's target makes what we make, a volume for the
/// kernels before either of them.
///
/// # Errors
/// If a field of the two superblocks differs.
pub(super) fn both_declined(lab: &mut Lab<'_>, format: &Format) -> anyhow::Result<()> {
    let subject = Subject::integrity(*format);
    let (members, _) = lab.create(&subject)?;
    let theirs = members.copies()?;
    File::create(theirs.metadata(0))?.set_len(subject.member_bytes)?;
    let script = "dmsetup create t0 --table \"0 8 integrity $D0 0 - J 4 block_size:4096 \
         journal_sectors:2048 interleave_sectors:32768 internal_hash:crc32c\"\ndmsetup remove t0\n";
    lab.guest(&theirs, script)?;
    let [ours, kernel] = [&members, &theirs].map(|disks| lab.inspect(disks));
    let fields = |found: &Value| found["integrity"]["fields"].clone();
    let (ours, kernel) = (fields(&ours?), fields(&kernel?));
    ensure!(ours == kernel, "ours: {ours}\nthe kernel's: {kernel}");
    Ok(())
}

/// The guest says how large the volume is.
pub(super) fn size(subject: &Subject) -> String {
    format!("echo sectors $(sectors_of {})\n", subject.device())
}

/// The guest reads all of it, and checks what is redundant.
pub(super) fn read(subject: &Subject) -> String {
    format!("give {}\n{}", subject.device(), subject.check())
}

/// The guest writes, with every piece synced.
pub(super) fn write(subject: &Subject, writes: &[Write]) -> String {
    let device = subject.device();
    let piece = |write: &Write| format!("{}sync_to {device}\n", write.command(device));
    writes.iter().map(piece).collect()
}

/// The kernel found copies and parity equal.
pub(super) fn agrees_inside(subject: &Subject, answer: &Answer) -> anyhow::Result<()> {
    if subject.is_redundant() { answer.must_say("mismatch_cnt", 0) } else { Ok(()) }
}

/// What the kernel closed has nothing to recover: journals hold nothing, arrays are clean.
pub(super) fn closed_cleanly(
    lab: &Lab<'_>,
    subject: &Subject,
    members: &Disks,
) -> anyhow::Result<()> {
    for member in (0..members.members()).map(|index| members.member(index)) {
        let found = lab.inspect(&member)?;
        if subject.integrity.is_some() {
            let journal = &found["integrity"]["journal"];
            ensure!(journal == "clean", "{}: journal {journal}", member.metadata(0).display());
        }
        if subject.level.is_some() {
            let resync = field(&found["md"], "resync_offset");
            ensure!(resync == Some("clean"), "{}: resync {resync:?}", member.metadata(0).display());
        }
    }
    Ok(())
}

/// The value of a field that `steadfast inspect` names.
fn field<'a>(part: &'a Value, name: &str) -> Option<&'a str> {
    let fields = part["fields"].as_array()?;
    let field = fields.iter().find(|field| field["name"].as_str() == Some(name))?;
    field["value"].as_str().map(str::trim)
}

/// Every line of `integritysetup dump` is a field of `steadfast inspect`, with the same value.
pub(super) fn dumps_agree(
    lab: &mut Lab<'_>,
    subject: &Subject,
    members: &Disks,
) -> anyhow::Result<()> {
    let Some(format) = &subject.integrity else { return Ok(()) };
    let each = members.files().len() / members.members();
    let dump = |index| format!("echo member\nintegritysetup dump $D{}\n", index * each);
    let answer = lab.guest(members, &(0..members.members()).map(dump).collect::<String>())?;
    let dumps = answer.parts("member");
    ensure!(dumps.len() == members.members(), "{} dumps: {answer:?}", dumps.len());
    for (index, dump) in dumps.iter().enumerate() {
        let name = || members.metadata(index).display().to_string();
        dump_agrees(lab, &members.member(index), dump).with_context(name)?;
        flags_are_as_asked(format, dump).with_context(name)?;
    }
    Ok(())
}

fn dump_agrees(lab: &Lab<'_>, member: &Disks, answer: &Answer) -> anyhow::Result<()> {
    let found = lab.inspect(member)?;
    let mut seen = 0;
    for (name, theirs) in answer.fields() {
        // The headline.
        if name == "Info" {
            continue;
        }
        let ours = field(&found["integrity"], name);
        ensure!(ours == Some(theirs.trim()), "{name}: {theirs} there, {ours:?} here");
        seen += 1;
    }
    ensure!(seen >= 8, "a short dump: {answer:?}");
    ensure!(found["problem"] == Value::Null, "{}", found["problem"]);
    Ok(())
}

/// The repairs of later kernels are in the superblock, but for those that were declined.
fn flags_are_as_asked(format: &Format, answer: &Answer) -> anyhow::Result<()> {
    let fields = answer.fields();
    let flags: Vec<&str> = fields.get("flags").context("flags")?.split_whitespace().collect();
    // Without runs of tags there is nothing to pad.
    let padding = !format.data_device && !format.legacy_padding;
    for (flag, expected) in [("fix_padding", padding), ("fix_hmac", !format.legacy_hmac)] {
        // Asked for both, integritysetup keeps the padding; the kernel's target and we do not.
        if flag == "fix_padding" && format.legacy_padding && format.legacy_hmac {
            continue;
        }
        ensure!(flags.contains(&flag) == expected, "{flag} expected: {expected}, but {flags:?}");
    }
    Ok(())
}
