//! Members that one side lost and the other rebuilt, in both directions, also when whoever began did
//! not come to the end.

use super::exchange::{agrees_inside, read, size, write};
use super::{Case, Part, row};
use crate::content::{Content, scattered};
use crate::disks::Disks;
use crate::format::Format;
use crate::lab::Lab;
use crate::subject::Subject;
use anyhow::{Context, ensure};
use std::collections::BTreeSet;
use std::fs::File;
use std::time::Duration;

/// Members that one side lost and the other rebuilt.
pub(super) fn cases() -> Vec<Case> {
    let small = Format { journal_bytes: Some(1 << 20), ..Format::CRC32C_4096 };
    let subjects = [
        ("raid1", Subject::md(1, 2), Part::All),
        ("raid5", Subject::md(5, 3), Part::Ci),
        ("raid6", Subject::md(6, 4), Part::All),
        ("raid1-crc32c", Subject::stacked(1, 2, small), Part::All),
        ("raid5-crc32c", Subject::stacked(5, 3, small), Part::All),
        ("raid6-crc32c", Subject::stacked(6, 4, small), Part::Ci),
    ];
    type Judge = fn(&mut Lab<'_>, &Subject) -> anyhow::Result<()>;
    let judges: [(&str, &'static str, Judge, bool); 5] = [
        (
            "rebuilt-ours",
            "the kernel loses a member; we rebuild it; both read, the kernel checks",
            rebuilt_by_us,
            true,
        ),
        (
            "rebuilt-theirs",
            "we lose a member; the kernel rebuilds on our spare; both read, the kernel checks",
            rebuilt_by_kernel,
            true,
        ),
        (
            "rebuild-half-ours",
            "we stop in the middle of a rebuild; the kernel goes on from there",
            half_by_us,
            false,
        ),
        (
            "rebuild-half-theirs",
            "the kernel stops in the middle of a rebuild; we go on from there",
            half_by_kernel,
            false,
        ),
        (
            "replace-half-theirs",
            "the kernel stops in the middle of replacing a member; we go on, and take it over",
            half_replaced_by_kernel,
            false,
        ),
    ];
    let mut cases = Vec::new();
    for (what_name, what, judge, small_part) in judges {
        for (name, subject, part) in subjects {
            let part = if small_part { part } else { Part::All };
            let name = format!("{what_name}-{name}");
            cases.push(row(part, name, what, move |lab| judge(lab, &subject)));
        }
    }
    for (name, subject, part) in [
        ("raid1", Subject::md(1, 2).with_intent(), Part::All),
        ("raid5", Subject::md(5, 3).with_intent(), Part::Ci),
        ("raid10", Subject::md(10, 4).with_intent(), Part::All),
        ("raid6-crc32c", Subject::stacked(6, 4, small).with_intent(), Part::All),
    ] {
        cases.push(row(
            part,
            format!("returned-{name}"),
            "the kernel writes while a member is away; we give it what the bitmap says it missed",
            move |lab| returned(lab, &subject),
        ));
    }
    cases
}

/// An array of which member 1 is gone, and a blank disk.
struct Degraded {
    /// The members that are left, and the blank disk behind them.
    now: Disks,
    /// The members that are left, and the one that is gone behind them, as it left.
    before: Disks,
    content: Content,
}

impl Degraded {
    /// Without the blank disk.
    fn rest(&self) -> Disks {
        self.now.choose(&(0..self.now.members() - 1).collect::<Vec<_>>())
    }

    fn blank(&self) -> Disks {
        self.now.member(self.now.members() - 1)
    }
}

/// The kernel makes an array, writes it, and writes it again without member 1.
fn degraded_there(lab: &mut Lab<'_>, subject: &Subject) -> anyhow::Result<Degraded> {
    let all = lab.blank(&wide(subject))?;
    let members = all.choose(&(0..subject.members).collect::<Vec<_>>());
    let answer = lab.guest(&members, &[subject.make(), size(subject), subject.close()].concat())?;
    let sectors = answer.number("sectors")?;
    let mut content = Content::new(sectors);
    let first = scattered(sectors, subject.block(), 0);
    lab.guest(&members, &[subject.open(), write(subject, &first), subject.close()].concat())?;
    content.apply(&first);
    let kept: Vec<usize> = (0..subject.members).filter(|member| *member != 1).collect();
    let less = Subject { members: subject.members - 1, ..*subject };
    let second = scattered(sectors, subject.block(), 2);
    let script = [less.open_degraded(), write(&less, &second), less.close()].concat();
    lab.guest(&all.choose(&kept), &script)?;
    content.apply(&second);
    let [now, before] = [subject.members, 1]
        .map(|last| all.choose(&kept.iter().copied().chain([last]).collect::<Vec<_>>()));
    Ok(Degraded { now, before, content })
}

/// We make an array, write it, add a spare to it, and write it again without member 1 and the spare.
fn degraded_here(lab: &mut Lab<'_>, subject: &Subject) -> anyhow::Result<Degraded> {
    let (members, sectors) = lab.create(subject)?;
    let all = Disks::named(lab.folder(), &wide(subject))?;
    File::create(all.metadata(subject.members))?.set_len(subject.member_bytes)?;
    let mut content = Content::new(sectors);
    let first = scattered(sectors, subject.block(), 0);
    lab.import(&members, &first)?;
    content.apply(&first);
    add(lab, &members, &all.member(subject.members))?;
    let kept: Vec<usize> = (0..subject.members).filter(|member| *member != 1).collect();
    let second = scattered(sectors, subject.block(), 2);
    lab.import_degraded(&all.choose(&kept), &second)?;
    content.apply(&second);
    let [now, before] = [subject.members, 1]
        .map(|last| all.choose(&kept.iter().copied().chain([last]).collect::<Vec<_>>()));
    Ok(Degraded { now, before, content })
}

/// One disk more.
fn wide(subject: &Subject) -> Subject {
    Subject { members: subject.members + 1, ..*subject }
}

pub(super) fn add(lab: &Lab<'_>, members: &Disks, new: &Disks) -> anyhow::Result<()> {
    let path = new.metadata(0).display().to_string();
    lab.steadfast("add", members, &["-q", "--new", &path])?.ended(0)?;
    Ok(())
}

/// Both sides find the array complete, its copies or parity equal, and everything there.
fn both_are_content(
    lab: &mut Lab<'_>,
    subject: &Subject,
    members: &Disks,
    content: &Content,
) -> anyhow::Result<()> {
    let state = "md_state\n".to_owned();
    let script = [subject.open(), read(subject), state, subject.close()].concat();
    let answer = lab.guest(members, &script)?;
    content.must_be(&lab.given(&answer)?, "what the kernel reads")?;
    agrees_inside(subject, &answer)?;
    answer.must_say("degraded", 0)?;
    content.must_be(&lab.export(members)?, "what we read")?;
    lab.must_be_sound(members)?;
    let status = lab.steadfast("status", members, &["--json"])?.object()?;
    ensure!(status["missing"] == 0, "{status}");
    Ok(())
}

/// # Errors
/// If what we rebuilt is not what the kernel would have.
fn rebuilt_by_us(lab: &mut Lab<'_>, subject: &Subject) -> anyhow::Result<()> {
    let array = degraded_there(lab, subject)?;
    add(lab, &array.rest(), &array.blank())?;
    both_are_content(lab, subject, &array.now, &array.content)
}

/// The kernel writes while a member is away; we take it back, and give it what it missed.
///
/// # Errors
/// If it was given all, or not enough.
fn returned(lab: &mut Lab<'_>, subject: &Subject) -> anyhow::Result<()> {
    let array = degraded_there(lab, subject)?;
    let path = array.before.metadata(subject.members - 1).display().to_string();
    let options = ["--json", "--new", &path];
    let added = lab.steadfast("add", &array.rest(), &options)?.ended(0)?.object()?;
    let missed = added["missed_sectors"].as_u64().with_context(|| added.to_string())?;
    ensure!(missed > 0 && missed < array.content.sectors(), "{added}");
    both_are_content(lab, subject, &array.before, &array.content)
}

/// # Errors
/// If the kernel does not rebuild on the spare that we made.
fn rebuilt_by_kernel(lab: &mut Lab<'_>, subject: &Subject) -> anyhow::Result<()> {
    let array = degraded_here(lab, subject)?;
    both_are_content(lab, subject, &array.now, &array.content)
}

/// We stop in the middle of a rebuild, and the kernel goes on.
///
/// # Errors
/// If it does not, or never was the middle.
fn half_by_us(lab: &mut Lab<'_>, subject: &Subject) -> anyhow::Result<()> {
    let array = degraded_here(lab, subject)?;
    // How far it comes is a matter of luck: it starts anew until it was caught in the middle.
    for turn in 0..40u64 {
        let now = array.now.copies_as(&format!("turn{turn}"))?;
        let server = lab.program.serve(&now, &lab.path(""))?;
        std::thread::sleep(Duration::from_millis(turn * 3));
        server.stop_within(&[0, 1])?;
        if is_half(lab, &now)? {
            return both_are_content(lab, subject, &now, &array.content);
        }
    }
    anyhow::bail!("it was never stopped in the middle")
}

/// The kernel stops in the middle of a rebuild, and we go on.
///
/// # Errors
/// If we do not, or it never was the middle.
fn half_by_kernel(lab: &mut Lab<'_>, subject: &Subject) -> anyhow::Result<()> {
    let array = degraded_there(lab, subject)?;
    let less = Subject { members: subject.members - 1, ..*subject };
    let last = array.now.members() - 1;
    let script = [
        less.open_degraded(),
        subject.make_member(last),
        format!("begin_recovery {}\n", subject.member_device(last)),
        less.close(),
        subject.close_member(last),
    ];
    lab.guest(&array.now, &script.concat())?;
    ensure!(is_half(lab, &array.now)?, "the kernel came to the end");
    lab.steadfast("rebuild", &array.now, &["-q"])?.ended(0)?;
    both_are_content(lab, subject, &array.now, &array.content)
}

/// The kernel stops in the middle of replacing a member that is there, and we go on.
///
/// # Errors
/// If we do not, or it never was the middle.
fn half_replaced_by_kernel(lab: &mut Lab<'_>, subject: &Subject) -> anyhow::Result<()> {
    let all = lab.blank(&wide(subject))?;
    let members = all.choose(&(0..subject.members).collect::<Vec<_>>());
    let answer = lab.guest(&members, &[subject.make(), size(subject), subject.close()].concat())?;
    let sectors = answer.number("sectors")?;
    let mut content = Content::new(sectors);
    let first = scattered(sectors, subject.block(), 0);
    let (old, new) = (subject.member_device(1), subject.member_device(subject.members));
    let script = [
        subject.open(),
        write(subject, &first),
        subject.make_member(subject.members),
        format!("begin_replacement {old} {new}\n"),
        subject.close(),
        subject.close_member(subject.members),
    ];
    lab.guest(&all, &script.concat())?;
    content.apply(&first);
    // All is right and redundant, and there is something to be done: that is said.
    let found = lab.salvage(&all, &[], &[1])?;
    found.must_lack(&BTreeSet::new(), "we, with both")?;
    content.must_be(&found.bytes, "what we read with both")?;
    lab.steadfast("rebuild", &all, &["-q"])?.ended(0)?;
    let now: Vec<usize> = (0..=subject.members).filter(|member| *member != 1).collect();
    both_are_content(lab, subject, &all.choose(&now), &content)
}

/// Whether the last member is filled, but only in part.
fn is_half(lab: &Lab<'_>, members: &Disks) -> anyhow::Result<bool> {
    let found = lab.inspect(&members.member(members.members() - 1))?;
    let fields = found["md"]["fields"].as_array().context("fields")?;
    let field = fields.iter().find(|field| field["name"] == "recovery_offset");
    let filled = field.and_then(|field| field["value"].as_str());
    Ok(filled.is_some_and(|value| value.trim().parse::<u64>().is_ok_and(|sectors| sectors > 0)))
}
