//! Without a journal: one side loses its power in bitmap or direct mode, the other opens what is left.
//!
//! What was flushed must be there. Of what was written and not flushed, each block is old, new or
//! unreadable: that data lies there is no reason to believe it. Only the kernel, in bitmap mode,
//! computes new tags for what was dirty, and then reads all of it.

use super::crash::{History, begun_there, killed_here};
use super::exchange::{read, write};
use super::made::RECALCULATED;
use crate::content::{Content, Found};
use crate::disks::Disks;
use crate::format::{Format, Mode};
use crate::lab::Lab;
use crate::subject::Subject;
use anyhow::{Context, ensure};
use serde_json::Value;
use std::collections::BTreeSet;

/// # Errors
/// If we do not find what the kernel had synced, or believe what it had not.
pub(super) fn power_cut(lab: &mut Lab<'_>, format: &Format) -> anyhow::Result<()> {
    let subject = Subject::integrity(*format);
    let (members, history) = begun_there(lab, &subject)?;
    let loose: String = history.loose.iter().map(|w| w.command(subject.device())).collect();
    let end = "echo now\nsleep 1000\n".to_owned();
    let script = [subject.open(), write(&subject, &history.synced), loose, end];
    lab.cut_power(&members, "now", &script.concat())?;
    let same = members.copies()?;

    let lost = recovered_by_us(lab, &subject, &members, &history)?;
    ensure!(!lost.is_empty(), "every tag was written before the end: nothing was judged");
    agreed(lab, &subject, &members, &history, &lost)?;
    by_itself(lab, &subject, &same, &history, &lost)?;
    Ok(())
}

/// # Errors
/// If the kernel does not find what had been flushed through us.
pub(super) fn killed(lab: &mut Lab<'_>, format: &Format) -> anyhow::Result<()> {
    let subject = Subject::integrity(*format);
    let (members, history) = killed_here(lab, &subject, true)?;
    let same = members.copies()?;

    let lost = lab.salvage(&same, &[], &[0, 1, 2])?.unreadable;
    by_itself(lab, &subject, &members, &history, &lost)?;
    let found = recovered_by_us(lab, &subject, &same, &history)?;
    ensure!(found == lost, "we lost {found:?}, before {lost:?}");
    agreed(lab, &subject, &same, &history, &lost)
}

/// We read it as it was left, open it as it was run, and then with a journal: the same is lost each
/// time. Gives back what that is.
fn recovered_by_us(
    lab: &Lab<'_>,
    subject: &Subject,
    members: &Disks,
    history: &History,
) -> anyhow::Result<BTreeSet<u64>> {
    let format = subject.integrity.context("a volume of dm-integrity")?;
    is_dirty(lab, members, format.mode == Mode::Bitmap)?;
    let first = lab.salvage(members, &[], &[0, 1, 2])?;
    history.may_lack(&first, "what we read without writing")?;
    let lost = first.unreadable;
    for mode in [format.mode, Mode::Journal] {
        let members = members.run_as(&Format { mode, ..format });
        lab.steadfast("scrub", &members, &["-q"])?.ended_within(&[0, 1, 2])?;
        let found = lab.salvage(&members, &[], &[0, 1, 2])?;
        found.must_lack(&lost, &format!("we, after {mode:?}"))?;
        history.may_lack(&found, &format!("what we read after {mode:?}"))?;
    }
    is_dirty(lab, members, false)?;
    Ok(lost)
}

/// The kernel cannot read what we cannot; once that is written again, both read all.
fn agreed(
    lab: &mut Lab<'_>,
    subject: &Subject,
    members: &Disks,
    history: &History,
    lost: &BTreeSet<u64>,
) -> anyhow::Result<()> {
    let look = format!("salvage {}\n", subject.device());
    let answer = lab.guest(members, &[subject.open(), look, subject.close()].concat())?;
    let theirs = lab.salvaged(&answer)?;
    theirs.must_lack(lost, "the kernel")?;
    history.may_lack(&theirs, "what the kernel reads")?;
    lab.import(members, &history.loose)?;
    let answer = lab.guest(members, &[subject.open(), read(subject), subject.close()].concat())?;
    history.new.must_be(&lab.given(&answer)?, "what the kernel reads once all is written")?;
    history.new.must_be(&lab.export(members)?, "what we read once all is written")?;
    lab.must_be_sound(members)
}

/// The kernel recovers what was left without us; then we read the same.
fn by_itself(
    lab: &mut Lab<'_>,
    subject: &Subject,
    members: &Disks,
    history: &History,
    lost: &BTreeSet<u64>,
) -> anyhow::Result<()> {
    let format = subject.integrity.context("a volume of dm-integrity")?;
    if format.mode == Mode::Bitmap {
        let script = [subject.open(), RECALCULATED.into(), read(subject), subject.close()];
        let bytes = {
            let answer = lab.guest(members, &script.concat())?;
            lab.given(&answer)?
        };
        history.must_hold(&bytes, "what the kernel recovers")?;
        Content::from(bytes).must_be(&lab.export(members)?, "what we read after the kernel")?;
        return lab.must_be_sound(members);
    }
    let look = format!("salvage {}\n", subject.device());
    let answer = lab.guest(members, &[subject.open(), look, subject.close()].concat())?;
    let theirs = lab.salvaged(&answer)?;
    history.may_lack(&theirs, "what the kernel recovers")?;
    theirs.must_lack(lost, "the kernel by itself")
}

/// Whether the superblock says that the journal's area holds dirty bits.
fn is_dirty(lab: &Lab<'_>, members: &Disks, expected: bool) -> anyhow::Result<()> {
    let found = lab.inspect(members)?;
    let fields = found["integrity"]["fields"].as_array().context("fields")?;
    let flags = fields.iter().find(|field| field["name"] == "flags").map(|field| &field["value"]);
    let flags = flags.and_then(Value::as_str).context("flags")?;
    ensure!(flags.contains("dirty_bitmap") == expected, "flags {flags}, dirty: {expected}");
    Ok(())
}

impl History {
    /// # Errors
    /// If something is lost that was flushed, or what is there was never written.
    fn may_lack(&self, found: &Found, what: &str) -> anyhow::Result<()> {
        let loose: BTreeSet<u64> = self
            .loose
            .iter()
            .flat_map(|write| write.sector..write.sector + write.sectors)
            .collect();
        let lost: Vec<&u64> = found.unreadable.difference(&loose).collect();
        ensure!(lost.is_empty(), "{what}: flushed sectors cannot be read: {lost:?}");
        found.must_be(&self.old, &self.new, what)
    }
}
