//! Bits that flip on a member: the same sectors are lost on both sides, and what one side heals is
//! sound for the other.

use super::exchange::{agrees_inside, read, size, write};
use crate::content::{Content, scattered};
use crate::disks::Disks;
use crate::format::Format;
use crate::lab::{Lab, flip, text};
use crate::subject::Subject;
use anyhow::{Context, ensure};
use std::collections::BTreeSet;

/// # Errors
/// If a sector is lost on one side only, or another than those that were damaged.
pub(super) fn flipped(lab: &mut Lab<'_>, format: &Format) -> anyhow::Result<()> {
    let subject = Subject::integrity(*format);
    let members = lab.blank(&subject)?;
    let answer =
        lab.guest(&members, &[subject.make(), size(&subject), subject.close()].concat())?;
    let sectors = answer.number("sectors")?;
    let base = scattered(sectors, subject.block(), 0);
    let mut content = Content::new(sectors);
    content.apply(&base);
    let base = write(&subject, &base);
    lab.guest(&members, &[subject.open(), base, subject.close()].concat())?;

    let mut expected = BTreeSet::new();
    // The first and the last block, a neighbour, and the second run of tags.
    for (sector, in_tag) in [
        (5, false),
        (1030, true),
        (4100, false),
        (4108, true),
        (33_000, true),
        (sectors - 1, false),
    ] {
        let place = lab.place(&members, sector)?;
        match in_tag {
            true => flip(members.metadata(place.member), place.tag + 1)?,
            false => flip(members.data(place.member), place.data + 100)?,
        }
        let first = sector / format.block() * format.block();
        expected.extend(first..first + format.block());
    }
    let ours = lab.salvage(&members, &[], &[2])?;
    ours.must_lack(&expected, "we")?;
    ours.must_be(&content, &content, "what we read")?;
    lab.steadfast("scrub", &members, &["--check"])?.ended(2)?;

    let look = format!("salvage {}\n", subject.device());
    let answer = lab.guest(&members, &[subject.open(), look, subject.close()].concat())?;
    let theirs = lab.salvaged(&answer)?;
    theirs.must_lack(&expected, "the kernel")?;
    theirs.must_be(&content, &content, "what the kernel reads")?;
    // Neither side changed anything.
    lab.salvage(&members, &[], &[2])?.must_lack(&expected, "we, after reading")
}

/// # Errors
/// If what one side healed is not sound for the other.
pub(super) fn healed(lab: &mut Lab<'_>, subject: &Subject) -> anyhow::Result<()> {
    let (members, sectors) = lab.create(subject)?;
    let base = scattered(sectors, subject.block(), 0);
    lab.import(&members, &base)?;
    let mut content = Content::new(sectors);
    content.apply(&base);

    // They heal: every read of a damaged block is answered, and written back.
    damage(lab, &members, &[8, 5000])?;
    // A copy that its reads passed by is met by the first check, and counted; healed, it is equal.
    let (check, sound) = (subject.check().to_owned(), sound_members(subject));
    let script = [subject.open(), read(subject), check, sound, subject.close()];
    let answer = lab.guest(&members, &script.concat())?;
    content.must_be(&lab.given(&answer)?, "what the kernel reads of a damaged array")?;
    agrees_inside(subject, &answer)?;
    nothing_bad(&answer.all("bad").collect::<Vec<_>>())?;
    lab.must_be_sound(&members)?;

    // We heal.
    damage(lab, &members, &[16, 4104, 6016])?;
    content.must_be(&exported(lab, &members)?, "what we read of a damaged array")?;
    lab.steadfast("scrub", &members, &["-q"])?.ended(1)?;
    lab.must_be_sound(&members)?;
    let script = [subject.open(), sound_members(subject), read(subject), subject.close()];
    let answer = lab.guest(&members, &script.concat())?;
    nothing_bad(&answer.all("bad").collect::<Vec<_>>())?;
    content.must_be(&lab.given(&answer)?, "what the kernel reads of what we healed")?;
    agrees_inside(subject, &answer)
}

fn nothing_bad(lines: &[&str]) -> anyhow::Result<()> {
    ensure!(lines.is_empty(), "members have bad blocks: {lines:?}");
    Ok(())
}

/// Flips a bit of the data or, every other time, of the tag of each sector.
fn damage(lab: &Lab<'_>, members: &Disks, sectors: &[u64]) -> anyhow::Result<()> {
    for (index, &sector) in sectors.iter().enumerate() {
        let place = lab.place(members, sector)?;
        match index % 2 {
            0 => flip(members.data(place.member), place.data + 77)?,
            _ => flip(members.metadata(place.member), place.tag)?,
        }
    }
    Ok(())
}

/// The guest looks for blocks of the members that it cannot read.
fn sound_members(subject: &Subject) -> String {
    (0..subject.members).map(|member| format!("errors /dev/mapper/t{member}\n")).collect()
}

/// All of it, however much had to be reconstructed.
fn exported(lab: &Lab<'_>, members: &Disks) -> anyhow::Result<Vec<u8>> {
    let file = lab.path("export");
    let options = ["-q", "--yes", "--to", text(&file)?];
    lab.steadfast("export", members, &options)?.ended_within(&[0, 1])?;
    std::fs::read(&file).context("what was exported")
}
