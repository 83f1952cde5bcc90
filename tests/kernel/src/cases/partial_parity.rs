//! The partial parity log of RAID 5: one side dies while it writes, the other opens what is left, with all
//! members and without any one of them.

use super::crash::{begun_there, killed_here};
use super::exchange::{agrees_inside, read, write};
use crate::lab::{Lab, text};
use crate::subject::Subject;
use anyhow::Context;

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
    let (members, history) = killed_here(lab, subject, true)?;
    for gone in 0..members.members() {
        let same = members.copies_as(&format!("without{gone}"))?;
        let here: Vec<usize> = (0..same.members()).filter(|&member| member != gone).collect();
        let devices: Vec<String> = (0..here.len()).map(|disk| format!("$D{disk}")).collect();
        let open = format!("mdadm --assemble --run --quiet /dev/md0 {}\n", devices.join(" "));
        let give =
            format!("md_settled\ngive {}\nmdadm --stop --quiet /dev/md0\n", subject.device());
        let answer = lab.guest(&same.choose(&here), &(open + &give))?;
        let what = format!("what the kernel reads without member {gone}");
        history.must_hold(&lab.given(&answer)?, &what)?;
    }
    let answer = lab.guest(&members, &[subject.open(), read(subject), subject.close()].concat())?;
    history.must_hold(&lab.given(&answer)?, "what the kernel recovers")?;
    agrees_inside(subject, &answer)?;
    history.must_hold(&lab.export(&members)?, "what we read after the kernel")?;
    lab.must_be_sound(&members)
}
