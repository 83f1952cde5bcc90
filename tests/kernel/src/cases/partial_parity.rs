//! The partial parity log of RAID 5: one side dies while it writes, the other opens what is left, with all
//! members and without any one of them.

use super::crash::{History, begun_there, client_commands};
use super::exchange::{agrees_inside, read, write};
use crate::disks::Disks;
use crate::lab::{Lab, text};
use crate::subject::Subject;
use anyhow::{Context, bail};
use serde_json::Value;
use std::thread::sleep;
use std::time::Duration;

/// # Errors
/// If we do not find old or new in what the kernel was writing, whoever is missing.
pub(super) fn cut_there(lab: &mut Lab<'_>, subject: &Subject) -> anyhow::Result<()> {
    let (members, history) = begun_there(lab, subject)?;
    let loose: String = history.loose.iter().map(|w| w.command(subject.device())).collect();
    let again = write(subject, &history.synced);
    let endless = format!("(while :; do\n{loose}done) &\nusleep 300000\necho now\nsleep 1000\n");
    lab.cut_power(&members, "now", &[subject.open(), again, endless].concat())?;
    for gone in 0..members.members() {
        let same = members.copies_as(&format!("without{gone}"))?;
        let here: Vec<usize> = (0..same.members()).filter(|&member| member != gone).collect();
        let rest = same.choose(&here);
        // Opened for writing, its log is replayed; that a member is missing is said.
        lab.steadfast("scrub", &rest, &["-q"])?.ended_within(&[0, 1])?;
        let file = lab.path("degraded");
        let options = ["-q", "--yes", "--to", text(&file)?];
        lab.steadfast("export", &rest, &options)?.ended_within(&[0, 1])?;
        let bytes = std::fs::read(&file).context("what was exported")?;
        history.must_hold(&bytes, &format!("what we read without member {gone}"))?;
    }
    lab.steadfast("scrub", &members, &["-q"])?.ended_within(&[0, 1])?;
    history.must_hold(&lab.export(&members)?, "what we read after our recovery")?;
    lab.must_be_sound(&members)?;
    let answer = lab.guest(&members, &[subject.open(), read(subject), subject.close()].concat())?;
    history.must_hold(&lab.given(&answer)?, "what the kernel reads then")?;
    agrees_inside(subject, &answer)
}

/// # Errors
/// If the kernel does not find old or new in what we were writing, whoever is missing.
pub(super) fn cut_here(lab: &mut Lab<'_>, subject: &Subject) -> anyhow::Result<()> {
    let (members, history) = killed_at_work(lab, subject)?;
    for gone in 0..members.members() {
        let same = members.copies_as(&format!("without{gone}"))?;
        let here: Vec<usize> = (0..same.members()).filter(|&member| member != gone).collect();
        let rest = Subject { members: here.len(), ..*subject };
        let give = format!("give {}\n", subject.device());
        let script = [rest.open_degraded(), give, rest.close()].concat();
        let answer = lab.guest(&same.choose(&here), &script)?;
        let what = format!("what the kernel reads without member {gone}");
        history.must_hold(&lab.given(&answer)?, &what)?;
    }
    let answer = lab.guest(&members, &[subject.open(), read(subject), subject.close()].concat())?;
    history.must_hold(&lab.given(&answer)?, "what the kernel recovers")?;
    agrees_inside(subject, &answer)?;
    history.must_hold(&lab.export(&members)?, "what we read after the kernel")?;
    lab.must_be_sound(&members)
}

/// A volume of ours whose server was killed while a client wrote: it is dirty, and a log names what was being
/// written. Each time the same is written.
fn killed_at_work(lab: &Lab<'_>, subject: &Subject) -> anyhow::Result<(Disks, History)> {
    let (members, sectors) = lab.create(subject)?;
    let history = History::new(sectors, subject);
    lab.import(&members, &history.base)?;
    let mut synced = client_commands(lab, "synced", &history.synced)?;
    synced.push("flush".into());
    let loose = client_commands(lab, "loose", &history.loose)?;
    let loose: Vec<String> = std::iter::repeat_n(loose, ROUNDS).flatten().collect();
    for attempt in 0..ATTEMPTS {
        let server = lab.program.serve(&members, &lab.path(""))?;
        server.qemu_io(&synced, "writeback")?;
        let mut client = server.begin_qemu_io(&loose, "writethrough")?;
        sleep(Duration::from_millis(300 + 37 * attempt));
        client.must_be_at_work()?;
        server.kill()?;
        if names_what_was_written(lab, &members)? {
            return Ok((members, history));
        }
    }
    bail!("{ATTEMPTS} times nothing was being written that a log names")
}

/// Whether the array is dirty, and the log of some member names what is to be looked at.
fn names_what_was_written(lab: &Lab<'_>, members: &Disks) -> anyhow::Result<bool> {
    let value = |fields: &Value, name: &str| -> Option<String> {
        let field = fields.as_array()?.iter().find(|field| field["name"] == name)?;
        Some(field["value"].as_str()?.to_owned())
    };
    for member in 0..members.members() {
        let md = lab.inspect(&members.member(member))?["md"].take();
        let dirty = value(&md["fields"], "resync_offset").context("resync_offset")? != "clean";
        let entries = value(&md["partial_parity"], "entries").context("entries")?;
        if dirty && entries != "0" {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How often the server is killed, to catch it at work.
const ATTEMPTS: u64 = 8;
/// How often the client writes the same: it is not done when the server is killed.
const ROUNDS: usize = 2000;
