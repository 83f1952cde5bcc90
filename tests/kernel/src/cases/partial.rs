//! Volumes whose tags are not all valid: never wiped, half recalculated, or read without looking at
//! tags at all.

use super::crash::{NEWEST, begun_there, journal_is_full, killed_here, patient};
use super::exchange::{dumps_agree, read, size, write};
use super::made::RECALCULATED;
use crate::content::{Content, SECTOR, Write, pattern};
use crate::disks::Disks;
use crate::format::{Format, Mode};
use crate::lab::{Lab, flip};
use crate::subject::Subject;
use anyhow::{Context, ensure};
use std::collections::BTreeSet;
use std::time::Duration;

/// One side makes a volume without wiping and writes most of it, the other reads that and writes more.
///
/// # Errors
/// If one of them reads what was never written, or not what was.
pub(super) fn unwiped(lab: &mut Lab<'_>, format: &Format, ours: bool) -> anyhow::Result<()> {
    let format = Format { wipe: false, ..*format };
    let subject = Subject::integrity(format);
    let (members, sectors) = if ours {
        lab.create(&subject)?
    } else {
        let members = lab.blank(&subject)?;
        let script = [subject.make(), size(&subject), subject.close()];
        let sectors = lab.guest(&members, &script.concat())?.number("sectors")?;
        (members, sectors)
    };
    let holes = [(2048, 64), (sectors / 2 / 8 * 8, 40), (sectors - 72, 64)];
    let mut writes = Vec::new();
    let mut at = 0;
    for (sector, length) in holes.into_iter().chain([(sectors, 0)]) {
        writes.push(Write { generation: 1, sector: at, sectors: sector - at });
        at = sector + length;
    }
    let mut content = Content::new(sectors);
    let mut missing: BTreeSet<u64> =
        holes.iter().flat_map(|&(sector, length)| sector..sector + length).collect();
    // The other fills one hole, and a part of the next.
    let more = [(holes[0].0, 64), (holes[1].0 + 8, 8)];
    let more = more.map(|(sector, sectors)| Write { generation: 3, sector, sectors });
    for (writer_is_us, writes) in [(ours, &writes[..]), (!ours, &more[..])] {
        if writer_is_us {
            lab.import(&members, writes)?;
        } else {
            let script = [subject.open(), write(&subject, writes), subject.close()];
            lab.guest(&members, &script.concat())?;
        }
        content.apply(writes);
        for write in writes {
            missing.retain(|sector| !(write.sector..write.sector + write.sectors).contains(sector));
        }
        let found = lab.salvage(&members, &[], &[2])?;
        found.must_lack(&missing, "we")?;
        found.must_be(&content, &content, "what we read")?;
        let look = format!("salvage {}\n", subject.device());
        let answer = lab.guest(&members, &[subject.open(), look, subject.close()].concat())?;
        let found = lab.salvaged(&answer)?;
        found.must_lack(&missing, "the kernel")?;
        found.must_be(&content, &content, "what the kernel reads")?;
    }
    Ok(())
}

/// The kernel stops in the middle of computing tags for data that were there, closed or killed; we
/// read what they vouch for, and finish it.
///
/// # Errors
/// If we give out more without being asked, or anything else than what lies there.
pub(super) fn recalculated_by_us(
    lab: &mut Lab<'_>,
    format: &Format,
    cut: bool,
) -> anyhow::Result<()> {
    let (subject, members) = full_of_data(lab, format)?;
    let half = Subject::integrity(Format { wipe: false, recalculate: true, ..*format });
    lab.guest(&members, &Format { wipe: false, ..*format }.format_command(0))?;
    let steps = if cut { STEPS_STORED + 1 } else { 1 };
    let reached = format!("while [ $(position) -lt {} ]; do :; done\n", steps * step_of(format));
    if cut {
        let script = [POSITION, &half.open(), &reached, "echo now\nsleep 1000\n"].concat();
        lab.cut_power(&members, "now", &script)?;
    } else {
        lab.guest(&members, &[POSITION, &half.open(), &reached, &half.close()].concat())?;
    }
    let answer = lab.guest(&members, "echo member\nintegritysetup dump $D0\n")?;
    let position = answer.number("recalc_sector")?;
    let all = raw(lab, &members, format)?;
    let sectors = all.sectors();
    ensure!(position > 0 && position < sectors, "it stopped at {position} of {sectors}");
    dumps_agree(lab, &subject, &members)?;

    let found = lab.salvage(&members, &[], &[2])?;
    found.must_be(&all, &all, "what we read of what has valid tags")?;
    let beyond: BTreeSet<u64> = (position..sectors).collect();
    if cut {
        // Tags that were computed and not yet counted are valid.
        ensure!(found.unreadable.is_subset(&beyond), "sectors below {position} cannot be read");
        ensure!(!found.unreadable.is_empty(), "all tags are valid");
    } else {
        found.must_lack(&beyond, "we")?;
    }
    let found = lab.salvage(&members, &["--unverified"], &[1])?;
    found.must_lack(&BTreeSet::new(), "asked for what is not verified, we")?;
    all.must_be(&found.bytes, "what we read unverified")?;

    lab.steadfast("scrub", &members, &["-q", "--recalculate"])?.ended(0)?;
    both_read(lab, &subject, &members, &all)
}

/// We stop in the middle, closed or killed; the kernel finishes it.
///
/// # Errors
/// If the kernel reads anything else than what lies there.
pub(super) fn recalculated_by_kernel(
    lab: &mut Lab<'_>,
    format: &Format,
    kill: bool,
) -> anyhow::Result<()> {
    let (subject, members) = full_of_data(lab, format)?;
    let options = subject.create_options();
    let options: Vec<&str> = options.iter().map(String::as_str).chain(["--yes"]).collect();
    lab.steadfast("create", &members, &options)?.ended(0)?;
    let all = raw(lab, &members, format)?;
    let mut position = None;
    // How far it comes is a matter of luck: it starts anew until it was caught in the middle.
    for wait in (0..40).map(|turn| Duration::from_millis(turn * 12)) {
        let server = lab.program.serve_with(&members, &lab.path(""), &["--recalculate-reset"])?;
        std::thread::sleep(wait);
        // That not all tags are valid yet is said.
        if kill {
            server.kill()?
        } else {
            server.stop_within(&[0, 1])?
        }
        let found = lab.inspect(&members)?;
        let fields = found["integrity"]["fields"].as_array().context("fields")?;
        let field = fields.iter().find(|field| field["name"] == "recalc_sector");
        let Some(found) = field.and_then(|field| field["value"].as_str()) else { continue };
        position = Some(found.trim().parse::<u64>()?).filter(|&at| at > 0 && at < all.sectors());
        if position.is_some() {
            break;
        }
    }
    position.context("it was never stopped in the middle")?;
    dumps_agree(lab, &subject, &members)?;
    let half = Subject::integrity(Format { recalculate: true, ..*format });
    let script = [half.open(), RECALCULATED.into(), read(&half), half.close()];
    let answer = lab.guest(&members, &script.concat())?;
    all.must_be(&lab.given(&answer)?, "what the kernel reads after it has finished")?;
    both_read(lab, &subject, &members, &all)
}

/// Who may have tags computed anew: the same answer on both sides, also when the person insists.
///
/// # Errors
/// If one side allows what the other refuses.
pub(super) fn recalculation_refused(lab: &mut Lab<'_>) -> anyhow::Result<()> {
    let plain = Format { journal_bytes: Some(1 << 20), ..Format::CRC32C_4096 };
    let keyed = Format { integrity: "hmac-sha256", ..plain };
    let mac = Some("hmac-sha256");
    for (name, format, allowed) in [
        ("plain", plain, true),
        ("plain, with a MAC", Format { journal_integrity: mac, ..plain }, true),
        ("keyed", keyed, false),
        ("keyed, with a MAC", Format { journal_integrity: mac, ..keyed }, true),
        ("plain of old", Format { legacy_hmac: true, ..plain }, true),
        ("keyed of old", Format { legacy_hmac: true, ..keyed }, false),
        (
            "plain of old, with a MAC",
            Format { legacy_hmac: true, journal_integrity: mac, ..plain },
            false,
        ),
    ] {
        for (insists, allowed) in [(false, allowed), (true, true)] {
            let subject = Subject { member_bytes: 8 << 20, ..Subject::integrity(format) };
            let (members, _) = lab.create(&subject)?;
            let theirs = members.copies()?;
            let legacy: &[&str] = if insists { &["--legacy-recalculate"] } else { &[] };
            let options = [&["-q", "--recalculate-reset"], legacy].concat();
            let code = if allowed { 0 } else { 3 };
            let done = lab.steadfast("scrub", &members, &options)?.ended(code);
            done.with_context(|| format!("{name}, insists: {insists}"))?;
            let legacy = if insists { " --integrity-legacy-recalculate" } else { "" };
            let open = subject.open().replace(
                "integritysetup open",
                &format!("integritysetup open --integrity-recalculate{legacy}"),
            );
            let open = open.trim();
            let script = format!(
                "if {open} 2>/dev/null; then echo allowed 1; integritysetup close t0; \
                 else echo allowed 0; fi\n"
            );
            let answer = lab.guest(&theirs, &script)?;
            answer
                .must_say("allowed", u64::from(allowed))
                .with_context(|| format!("the kernel: {name}, insists: {insists}"))?;
            for disk in members.files().iter().chain(theirs.files()) {
                std::fs::remove_file(disk)?;
            }
        }
    }
    Ok(())
}

/// A volume that died with a full journal, and was then damaged: recovery mode gives out what lies at
/// home, there and here, and changes nothing.
///
/// # Errors
/// If the two differ, or something was written.
pub(super) fn recovery(lab: &mut Lab<'_>, format: &Format, ours: bool) -> anyhow::Result<()> {
    let subject = Subject::integrity(*format);
    let members = if ours {
        killed_here(lab, &subject, false)?.0
    } else {
        let (members, history) = begun_there(lab, &subject)?;
        let synced = write(&subject, &history.synced);
        let end = "echo now\nsleep 1000\n".to_owned();
        lab.cut_power(&members, "now", &[patient(&subject.open()), synced, end].concat())?;
        members
    };
    journal_is_full(lab, &subject, &members)?;
    let place = lab.place(&members, 33_000)?;
    flip(members.data(0), place.data)?;
    // A journal that makes no sense: any other mode has to decide what to do about that.
    flip(members.metadata(0), 8 * SECTOR + 504)?;
    let before = bytes_of(&members)?;

    let all = raw(lab, &members, format)?;
    // The first piece of the history's beginning, which was overwritten in the journal only.
    let old = Content::from(pattern(NEWEST, 1));
    old.must_be(all.piece(NEWEST, 1), "home of what only the journal holds")?;
    let open = Subject::integrity(Format { mode: Mode::Recovery, ..*format });
    let answer = lab.guest(&members, &[open.open(), read(&open), open.close()].concat())?;
    all.must_be(&lab.given(&answer)?, "what the kernel reads in recovery mode")?;
    ensure!(bytes_of(&members)? == before, "recovery mode wrote something");
    Ok(())
}

/// Disks full of data that nobody tagged.
fn full_of_data(lab: &Lab<'_>, format: &Format) -> anyhow::Result<(Subject, Disks)> {
    let subject = Subject::integrity(Format { wipe: false, ..*format });
    // Steps of 16 MiB, where there are no runs: several of them.
    let member_bytes = if format.data_device { 60 << 20 } else { subject.member_bytes };
    let subject = Subject { member_bytes, ..subject };
    let members = Disks::named(lab.folder(), &subject)?;
    for disk in members.files() {
        std::fs::write(disk, pattern(7, subject.member_bytes / SECTOR))?;
    }
    Ok((subject, members))
}

/// All of it has valid tags, for both.
fn both_read(
    lab: &mut Lab<'_>,
    subject: &Subject,
    members: &Disks,
    all: &Content,
) -> anyhow::Result<()> {
    all.must_be(&lab.export(members)?, "what we read, verified")?;
    lab.must_be_sound(members)?;
    let answer = lab.guest(members, &[subject.open(), read(subject), subject.close()].concat())?;
    all.must_be(&lab.given(&answer)?, "what the kernel reads, verified")?;
    dumps_agree(lab, subject, members)
}

/// What lies there, whatever tags and journal say.
fn raw(lab: &Lab<'_>, members: &Disks, format: &Format) -> anyhow::Result<Content> {
    let members = members.run_as(&Format { mode: Mode::Recovery, ..*format });
    Ok(Content::from(lab.salvage(&members, &[], &[0, 1])?.bytes))
}

fn bytes_of(members: &Disks) -> anyhow::Result<Vec<Vec<u8>>> {
    let read = |path| std::fs::read(path).context("a disk");
    members.files().iter().map(read).collect()
}

/// Sectors of a step of recalculation: never across runs, here smaller than the largest step.
fn step_of(format: &Format) -> u64 {
    u64::from(format.interleave_sectors.unwrap_or(32_768))
}

/// The guest says how far the kernel's recalculation has come.
const POSITION: &str = "position() { dmsetup status t0 | cut -d' ' -f6; }\n";

/// Steps after which the kernel stores the position in the superblock.
const STEPS_STORED: u64 = 16;
