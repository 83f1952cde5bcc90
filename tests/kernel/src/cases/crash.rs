//! One side loses its power in the middle of its work; the other opens what is left.
//!
//! What was flushed must be there. What was written and not flushed is old or new, each sector.
//! All that a killed machine had handed to its disks stays there, so these cases judge the
//! recovery of journals and of arrays; lost and reordered writes are the simulator's matter.

use super::exchange::{agrees_inside, read, size, write};
use crate::content::{Content, SECTOR, Write, scattered};
use crate::disks::Disks;
use crate::lab::{Lab, text};
use crate::subject::Subject;
use anyhow::ensure;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// # Errors
/// If we do not find what the kernel had synced.
pub(super) fn power_cut(lab: &mut Lab<'_>, subject: &Subject) -> anyhow::Result<()> {
    let (members, history) = begun_there(lab, subject)?;
    let loose: String = history.loose.iter().map(|w| w.command(subject.device())).collect();
    let synced = write(subject, &history.synced);
    let script = [patient(&subject.open()), synced, loose, "echo now\nsleep 1000\n".into()];
    lab.cut_power(&members, "now", &script.concat())?;
    let same = members.copies()?;

    // First without writing anything, then with recovery, then as the kernel sees the result.
    journal_is_full(lab, subject, &members)?;
    let seen = recovered(lab, &members, &history)?;
    let answer = lab.guest(&members, &[subject.open(), read(subject), subject.close()].concat())?;
    seen.must_be(&lab.given(&answer)?, "what the kernel reads after our recovery")?;
    agrees_inside(subject, &answer)?;
    // The judge itself is judged the same.
    let answer = lab.guest(&same, &[subject.open(), read(subject), subject.close()].concat())?;
    history.must_hold(&lab.given(&answer)?, "what the kernel recovers by itself")
}

/// # Errors
/// If the kernel does not find what had been flushed through us.
pub(super) fn killed(lab: &mut Lab<'_>, subject: &Subject) -> anyhow::Result<()> {
    let (members, history) = killed_here(lab, subject, true)?;
    let same = members.copies()?;

    journal_is_full(lab, subject, &members)?;
    let answer = lab.guest(&members, &[subject.open(), read(subject), subject.close()].concat())?;
    let kernel = lab.given(&answer)?;
    history.must_hold(&kernel, "what the kernel recovers")?;
    agrees_inside(subject, &answer)?;
    Content::from(kernel).must_be(&lab.export(&members)?, "what we read after the kernel")?;
    lab.must_be_sound(&members)?;
    recovered(lab, &same, &history)?;
    Ok(())
}

/// A volume of the kernel's with the beginning of a history in it, closed.
pub(super) fn begun_there(
    lab: &mut Lab<'_>,
    subject: &Subject,
) -> anyhow::Result<(Disks, History)> {
    let members = lab.blank(subject)?;
    let answer = lab.guest(&members, &[subject.make(), size(subject), subject.close()].concat())?;
    let history = History::new(answer.number("sectors")?, subject);
    let base = write(subject, &history.base);
    lab.guest(&members, &[subject.open(), base, subject.close()].concat())?;
    Ok((members, history))
}

/// A volume of ours whose server was killed after a client had flushed; with `loose`, and another one
/// had written and not flushed.
pub(super) fn killed_here(
    lab: &mut Lab<'_>,
    subject: &Subject,
    loose: bool,
) -> anyhow::Result<(Disks, History)> {
    let (members, sectors) = lab.create(subject)?;
    let history = History::new(sectors, subject);
    lab.import(&members, &history.base)?;
    kill_over(lab, &members, &history, loose)?;
    Ok((members, history))
}

/// What was synced, and perhaps what was not, is written through our server, which is then killed.
pub(super) fn kill_over(
    lab: &Lab<'_>,
    members: &Disks,
    history: &History,
    loose: bool,
) -> anyhow::Result<()> {
    let server = lab.program.serve(members, &lab.path(""))?;
    let mut commands = client_commands(lab, "synced", &history.synced)?;
    commands.push("flush".into());
    server.qemu_io(&commands, "writeback")?;
    if loose {
        // A client that ends flushes; this one says it does, and does not.
        server.qemu_io(&client_commands(lab, "loose", &history.loose)?, "unsafe")?;
    }
    server.kill()
}

/// What was done before the end.
pub(super) struct History {
    pub(super) base: Vec<Write>,
    pub(super) synced: Vec<Write>,
    /// Written, and never flushed.
    pub(super) loose: Vec<Write>,
    pub(super) old: Content,
    pub(super) new: Content,
}

impl History {
    pub(super) fn new(sectors: u64, subject: &Subject) -> Self {
        let base = scattered(sectors, subject.block(), 0);
        let odd = if subject.block() == 1 { 5 } else { 0 };
        let at = |generation, sector, sectors| Write { generation, sector, sectors };
        // Where a run of tags ends, if the volume has a second one, and far behind.
        let run = (32_768 - 8).min(sectors / 2 / 8 * 8);
        let far = sectors / 8 * 7 / 8 * 8;
        let synced = vec![
            at(3, NEWEST, 16),
            at(3, 4200 + odd, 40),
            at(4, 4216, 8),
            at(3, run, 16),
            at(4, far, 24),
        ];
        // Apart from what was synced, so that what is neither can be told.
        let loose = vec![at(5, 512, 16), at(5, 6400 + odd, 24), at(6, far + 960, 8)];
        let mut old = Content::new(sectors);
        old.apply(&base);
        old.apply(&synced);
        let mut new = old.clone();
        new.apply(&loose);
        Self { base, synced, loose, old, new }
    }

    pub(super) fn must_hold(&self, found: &[u8], what: &str) -> anyhow::Result<()> {
        self.old.or_must_be(&self.new, found, what)
    }
}

/// We read it as it was left, then recover it; gives back what it holds from then on.
pub(super) fn recovered(
    lab: &Lab<'_>,
    members: &Disks,
    history: &History,
) -> anyhow::Result<Content> {
    let file = lab.path("first");
    let options = ["-q", "--yes", "--to", text(&file)?];
    // That an array was not closed is said.
    lab.steadfast("export", members, &options)?.ended_within(&[0, 1])?;
    history.must_hold(&std::fs::read(&file)?, "what we read without writing")?;
    lab.steadfast("scrub", members, &["-q"])?.ended_within(&[0, 1])?;
    let bytes = lab.export(members)?;
    history.must_hold(&bytes, "what we read after our recovery")?;
    lab.must_be_sound(members)?;
    Ok(Content::from(bytes))
}

/// The only copy of the newest data is in the journal: otherwise nothing would be judged.
pub(super) fn journal_is_full(
    lab: &Lab<'_>,
    subject: &Subject,
    members: &Disks,
) -> anyhow::Result<()> {
    if subject.integrity.is_none() {
        return Ok(());
    }
    let place = lab.place(members, NEWEST)?;
    let mut home = [0; 512];
    File::open(members.data(place.member))?.read_exact_at(&mut home, place.data)?;
    let newest = Write { generation: 3, sector: NEWEST, sectors: 1 }.bytes();
    ensure!(newest != home, "the newest data is at home already, nothing would be recovered");
    Ok(())
}

/// The kernel's options with which blocks stay in the journal for a minute, or until it is full
/// but for a twentieth.
pub(super) fn patient(open: &str) -> String {
    let options = "--journal-commit-time 60000 --journal-watermark 95";
    open.replace("integritysetup open", &format!("integritysetup open {options}"))
}

/// Writes for a client that takes its bytes from files.
pub(super) fn client_commands(
    lab: &Lab<'_>,
    name: &str,
    writes: &[Write],
) -> anyhow::Result<Vec<String>> {
    let command = |(index, write): (usize, &Write)| -> anyhow::Result<String> {
        let file = lab.path(&format!("{name}{index}"));
        std::fs::write(&file, write.bytes())?;
        let (offset, bytes) = (write.sector * SECTOR, write.sectors * SECTOR);
        Ok(format!("write -s {} {offset} {bytes}", text(Path::new(&file))?))
    };
    writes.iter().enumerate().map(command).collect()
}

/// A sector that is written at the beginning, and once more before the end.
pub(super) const NEWEST: u64 = 8;
