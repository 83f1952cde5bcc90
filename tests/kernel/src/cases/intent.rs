//! The write-intent bitmap: of what one side left unfinished, the other compares what the bitmap says,
//! and no more.
//!
//! That no more is compared is shown by a byte that is turned on one member where nobody was writing: a
//! comparison of everything would make the members agree there, silently.

use super::crash::{begun_there, killed_here};
use super::exchange::{agrees_inside, read, write};
use crate::content::{Content, SECTOR};
use crate::disks::Disks;
use crate::lab::{Lab, flip};
use crate::subject::Subject;
use anyhow::{Context, ensure};
use serde_json::Value;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// # Errors
/// If we do not believe what the kernel's bitmap says after a power cut, or compare more.
pub(super) fn power_cut(lab: &mut Lab<'_>, subject: &Subject) -> anyhow::Result<()> {
    let (members, history) = begun_there(lab, subject)?;
    let loose: String = history.loose.iter().map(|w| w.command(subject.device())).collect();
    let synced = write(subject, &history.synced);
    let script = [subject.open(), synced, loose, "echo now\nsleep 1000\n".into()];
    lab.cut_power(&members, "now", &script.concat())?;

    some_are_dirty(lab, &members)?;
    let turned = Turned::new(lab, &members)?;
    lab.steadfast("scrub", &members, &["-q"])?.ended(2)?;
    turned.is_still()?;
    turned.back()?;
    lab.must_be_sound(&members)?;
    let bytes = lab.export(&members)?;
    history.must_hold(&bytes, "what we read after our recovery")?;
    none_is_dirty(lab, &members)?;
    let answer = lab.guest(&members, &[subject.open(), read(subject), subject.close()].concat())?;
    Content::from(bytes).must_be(&lab.given(&answer)?, "what the kernel reads then")?;
    agrees_inside(subject, &answer)
}

/// # Errors
/// If the kernel does not believe what our bitmap says after our server was killed.
pub(super) fn killed(lab: &mut Lab<'_>, subject: &Subject) -> anyhow::Result<()> {
    let (members, history) = killed_here(lab, subject, true)?;
    some_are_dirty(lab, &members)?;
    let turned = Turned::new(lab, &members)?;
    let answer =
        lab.guest(&members, &[&subject.open(), subject.check(), &subject.close()].concat())?;
    let one_place = if subject.level == Some(1) { 128 } else { 8 };
    answer.must_say("mismatch_cnt", one_place)?;
    turned.is_still()?;
    turned.back()?;
    none_is_dirty(lab, &members)?;
    let bytes = lab.export(&members)?;
    history.must_hold(&bytes, "what we read after the kernel's recovery")?;
    lab.must_be_sound(&members)
}

/// A byte of the second member that is not what it was, where no history writes.
struct Turned {
    members: Disks,
    byte: u64,
    was: u8,
}

impl Turned {
    fn new(lab: &Lab<'_>, members: &Disks) -> anyhow::Result<Self> {
        let second = members.member(1);
        let found = lab.inspect(&second)?;
        let offset = value(&found["md"]["fields"], "data_offset")?;
        let byte = (offset.parse::<u64>()? + 2500) * SECTOR;
        let was = byte_of(&second, byte)?;
        flip(second.data(0), byte)?;
        Ok(Self { members: second, byte, was })
    }

    fn is_still(&self) -> anyhow::Result<()> {
        let now = byte_of(&self.members, self.byte)?;
        ensure!(now != self.was, "more was compared than the bitmap says");
        Ok(())
    }

    fn back(&self) -> anyhow::Result<()> {
        flip(self.members.data(0), self.byte)
    }
}

fn byte_of(member: &Disks, byte: u64) -> anyhow::Result<u8> {
    let mut found = [0];
    File::open(member.data(0))?.read_exact_at(&mut found, byte)?;
    Ok(found[0])
}

fn some_are_dirty(lab: &Lab<'_>, members: &Disks) -> anyhow::Result<()> {
    for member in (0..members.members()).map(|index| members.member(index)) {
        let (dirty, chunks) = bits(lab, &member)?;
        ensure!(dirty > 0 && dirty < chunks / 2, "{dirty} of {chunks} chunks are dirty");
    }
    Ok(())
}

fn none_is_dirty(lab: &Lab<'_>, members: &Disks) -> anyhow::Result<()> {
    for member in (0..members.members()).map(|index| members.member(index)) {
        let (dirty, chunks) = bits(lab, &member)?;
        ensure!(dirty == 0, "{dirty} of {chunks} chunks are dirty");
    }
    Ok(())
}

/// Dirty chunks and all of them, of a bitmap that is believed.
fn bits(lab: &Lab<'_>, member: &Disks) -> anyhow::Result<(u64, u64)> {
    let found = lab.inspect(member)?;
    let problem = &found["md"]["bitmap_problem"];
    ensure!(*problem == Value::Null, "the bitmap is not believed: {problem}");
    let text = value(&found["md"]["bitmap"], "bits")?;
    let mut numbers = text.split(' ').filter_map(|word| word.parse().ok());
    let (chunks, dirty) = (numbers.next(), numbers.next());
    Ok((dirty.context("dirty chunks")?, chunks.context("chunks")?))
}

fn value<'a>(fields: &'a Value, name: &str) -> anyhow::Result<&'a str> {
    let mut fields = fields.as_array().context("a list of fields")?.iter();
    let field = fields.find(|field| field["name"].as_str() == Some(name));
    field.and_then(|field| field["value"].as_str()).with_context(|| format!("no {name}"))
}
