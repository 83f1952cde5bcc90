//! The write journal of RAID 4, 5 and 6: one side dies while it holds what is not home, or may not be; the other
//! reads the array, with all members and without any that it can spare, brings it home, and both then agree. And one
//! that we made is one to the kernel.

use super::crash::{History, NEWEST, begun_there, kill_over, recovered};
use super::exchange::{agrees_inside, dumps_agree, read, write};
use super::membership::add;
use crate::content::{Content, index, scattered};
use crate::disks::Disks;
use crate::lab::{Lab, flip, text};
use crate::subject::Subject;
use anyhow::{Context, ensure};

/// # Errors
/// If we do not find what the kernel had synced, or it anything else than we.
pub(super) fn cut_there(lab: &mut Lab<'_>, subject: &Subject) -> anyhow::Result<()> {
    let (members, history) = begun_there(lab, subject)?;
    let loose: String = history.loose.iter().map(|w| w.command(subject.device())).collect();
    let synced = write(subject, &history.synced);
    // All that came before was written in mode write-through: in the other one those writes were seen to
    // hang the kernel (6.12.117, three members).
    let end = "echo now\nsleep 1000\n".to_owned();
    let script = [subject.open(), subject.set_journal_mode(), synced, loose, end];
    lab.cut_power(&members, "now", &script.concat())?;

    let (complete, data_only) = held(lab, subject, &members)?;
    if subject.journal == Some("write-back") {
        ensure!(data_only > 0, "nothing is in the journal alone, so nothing is judged");
    } else {
        ensure!(complete > 0, "the journal is empty, so nothing is judged");
        // It had come home already. A crash could have left it in the middle.
        half_written(lab, &members)?;
    }
    let whole = exported(lab, &members, &history, "with all members")?;
    let spare = if subject.level == Some(6) { 2 } else { 1 };
    for first in 0..subject.members {
        for second in first..subject.members {
            let gone = [first, second];
            if (spare == 1) != (first == second) {
                continue;
            }
            let here = 0..members.members();
            let here: Vec<usize> = here.filter(|member| !gone.contains(member)).collect();
            let what = format!("without members {gone:?}");
            let found = exported(lab, &members.choose(&here), &history, &what)?;
            Content::from(whole.clone()).must_be(&found, &what)?;
        }
    }
    let ours = members.copies()?;
    let answer = lab.guest(&members, &[subject.open(), read(subject), subject.close()].concat())?;
    Content::from(whole.clone()).must_be(&lab.given(&answer)?, "what the kernel recovers")?;
    agrees_inside(subject, &answer)?;
    Content::from(lab.given(&answer)?).must_be(&lab.export(&members)?, "what we read then")?;

    lab.steadfast("scrub", &ours, &["-q"])?.ended_within(&[0])?;
    ensure!(
        held(lab, subject, &ours)? == (0, 0),
        "we brought it home, and something is in the journal"
    );
    let answer = lab.guest(&ours, &[subject.open(), read(subject), subject.close()].concat())?;
    Content::from(whole)
        .must_be(&lab.given(&answer)?, "what the kernel reads after our recovery")?;
    agrees_inside(subject, &answer)
}

/// # Errors
/// If the kernel does not bring home what our journal holds, or we do not.
pub(super) fn killed_here(lab: &mut Lab<'_>, subject: &Subject) -> anyhow::Result<()> {
    let (members, history) = begun_there(lab, subject)?;
    kill_over(lab, &members, &history, true)?;
    let (complete, data_only) = held(lab, subject, &members)?;
    ensure!(complete > 0 && data_only == 0, "{complete} and {data_only} rows in the journal");
    half_written(lab, &members)?;
    let same = members.copies()?;
    for gone in 0..subject.members {
        let here: Vec<usize> = (0..members.members()).filter(|&member| member != gone).collect();
        exported(lab, &members.choose(&here), &history, &format!("without member {gone}"))?;
    }

    let more = scattered(history.old.sectors(), subject.block(), 7);
    let script = [subject.open(), read(subject), write(subject, &more), subject.close()];
    let answer = lab.guest(&members, &script.concat())?;
    let bytes = lab.given(&answer)?;
    history.must_hold(&bytes, "what the kernel recovers")?;
    let mut kernel = Content::from(bytes);
    agrees_inside(subject, &answer)?;
    kernel.apply(&more);
    kernel.must_be(&lab.export(&members)?, "what we read after the kernel")?;
    lab.must_be_sound(&members)?;

    let seen = recovered(lab, &same, &history)?;
    let answer = lab.guest(&same, &[subject.open(), read(subject), subject.close()].concat())?;
    seen.must_be(&lab.given(&answer)?, "what the kernel reads after our recovery")?;
    agrees_inside(subject, &answer)
}

/// # Errors
/// If the kernel does not take what we made and wrote, does not log into its journal, or either reads otherwise
/// than the other wrote.
pub(super) fn made_here(lab: &mut Lab<'_>, subject: &Subject) -> anyhow::Result<()> {
    let (members, sectors) = lab.create(subject)?;
    let mut content = Content::new(sectors);
    content.must_be(&lab.export(&members)?, "what we read of what we made")?;
    dumps_agree(lab, subject, &members)?;
    ensure!(tail(lab, subject, &members)?.starts_with("0 of "), "it begins at its beginning");

    let first = scattered(sectors, subject.block(), 0);
    lab.import(&members, &first)?;
    content.apply(&first);
    lab.must_be_sound(&members)?;
    let writes = scattered(sectors, subject.block(), 2);
    let policy = "echo policy \"$(cat /sys/block/md0/md/consistency_policy)\"\n".to_owned();
    let script = [subject.open(), policy, subject.set_journal_mode(), read(subject)];
    let script = [script.concat(), write(subject, &writes), subject.close()];
    let answer = lab.guest(&members, &script.concat())?;
    content.must_be(&lab.given(&answer)?, "what the kernel reads")?;
    agrees_inside(subject, &answer)?;
    let policy = answer.fields().get("policy").copied().unwrap_or_default().to_owned();
    ensure!(policy.trim() == "journal", "the kernel's policy is {policy}");

    content.apply(&writes);
    content.must_be(&lab.export(&members)?, "what we read after the kernel wrote")?;
    ensure!(!tail(lab, subject, &members)?.starts_with("0 of "), "both logged");
    let last = scattered(sectors, subject.block(), 4);
    lab.import(&members, &last)?;
    content.apply(&last);
    let answer = lab.guest(&members, &[subject.open(), read(subject), subject.close()].concat())?;
    content.must_be(&lab.given(&answer)?, "what the kernel reads again")?;
    agrees_inside(subject, &answer)?;
    lab.must_be_sound(&members)
}

/// # Errors
/// If the kernel does not take an array of which we rebuilt a member through its journal, or reads anything else.
pub(super) fn rebuilt_here(lab: &mut Lab<'_>, subject: &Subject) -> anyhow::Result<()> {
    let (members, sectors) = lab.create(subject)?;
    let mut content = Content::new(sectors);
    let kept: Vec<usize> = (0..members.members()).filter(|member| *member != 1).collect();
    let kept = members.choose(&kept);
    for (generation, degraded) in [(0, false), (2, true)] {
        let writes = scattered(sectors, subject.block(), generation);
        if degraded {
            lab.import_degraded(&kept, &writes)?;
        } else {
            lab.import(&members, &writes)?;
        }
        content.apply(&writes);
    }
    std::fs::File::create(members.data(1))?.set_len(subject.member_bytes)?;
    add(lab, &kept, &members.member(1))?;
    content.must_be(&lab.export(&members)?, "what we read of what we rebuilt")?;

    let writes = scattered(sectors, subject.block(), 4);
    let script = [subject.open(), read(subject), write(subject, &writes), subject.close()];
    let answer = lab.guest(&members, &script.concat())?;
    content.must_be(&lab.given(&answer)?, "what the kernel reads")?;
    agrees_inside(subject, &answer)?;
    content.apply(&writes);
    content.must_be(&lab.export(&members)?, "what we read after the kernel wrote")?;
    lab.must_be_sound(&members)
}

/// Where the journal begins, as `inspect` says.
fn tail(lab: &Lab<'_>, subject: &Subject, members: &Disks) -> anyhow::Result<String> {
    journal_field(lab, subject, members, "journal_tail")
}

/// What `inspect` says of the journal.
fn journal_field(
    lab: &Lab<'_>,
    subject: &Subject,
    members: &Disks,
    name: &str,
) -> anyhow::Result<String> {
    let found = lab.inspect(&members.member(subject.members))?;
    let fields = found["md"]["write_journal"].as_array().context("it has a journal")?;
    let field = fields.iter().find(|field| field["name"] == name);
    let field = field.with_context(|| name.to_owned())?;
    Ok(field["value"].as_str().unwrap_or_default().to_owned())
}

/// What we read of it, and that it is what was synced.
fn exported(
    lab: &Lab<'_>,
    members: &Disks,
    history: &History,
    what: &str,
) -> anyhow::Result<Vec<u8>> {
    let file = lab.path("export");
    let options = ["-q", "--yes", "--to", text(&file)?];
    // That a member is missing is said.
    lab.steadfast("export", members, &options)?.ended_within(&[0, 1])?;
    let bytes = std::fs::read(&file).context("what was exported")?;
    history.must_hold(&bytes, &format!("what we read {what}"))?;
    Ok(bytes)
}

/// How many rows the journal holds whole, and how many have data alone in it.
fn held(lab: &Lab<'_>, subject: &Subject, members: &Disks) -> anyhow::Result<(u64, u64)> {
    let number = |name: &str| -> anyhow::Result<u64> {
        Ok(journal_field(lab, subject, members, name)?.parse()?)
    };
    Ok((number("data-parity stripes")?, number("data-only stripes")?))
}

/// A bit of a block that the journal holds is wrong at home.
fn half_written(lab: &Lab<'_>, members: &Disks) -> anyhow::Result<()> {
    for sector in [NEWEST, 4216] {
        let options = ["--json", "--sector", &sector.to_string()];
        let explained = lab.steadfast("explain", members, &options)?.object()?;
        let number = |name: &str| explained["places"][0][name].as_u64().context("its place");
        flip(members.data(index(number("slot")?)), number("data_byte")?)?;
    }
    Ok(())
}
