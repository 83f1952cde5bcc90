//! Volumes that one side changes as a whole, by taking another size or by taking tags for data that
//! were there before, and that the other opens.

use super::exchange::{closed_cleanly, dumps_agree, read, size, write};
use super::made::{GROWN_BYTES, grow};
use crate::content::{Content, SECTOR, Write, scattered};
use crate::disks::Disks;
use crate::format::Format;
use crate::lab::{Lab, text};
use crate::subject::Subject;
use anyhow::{Context, ensure};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// We grow a volume, the kernel fills it, we cut it to what it was.
///
/// # Errors
/// If the kernel reads anything else than the old content and zeroes, or we not what it wrote.
pub(super) fn resized_by_us(lab: &mut Lab<'_>, format: &Format) -> anyhow::Result<()> {
    let subject = Subject::integrity(*format);
    let (members, small) = lab.create(&subject)?;
    let before = scattered(small, subject.block(), 0);
    lab.import(&members, &before)?;
    let mut content = Content::new(small);
    content.apply(&before);

    let sectors = resize(lab, &members, subject.member_bytes + GROWN_BYTES)?;
    ensure!(sectors > small, "{small} sectors before, {sectors} after it grew");
    content.resize(sectors);
    dumps_agree(lab, &subject, &members)?;
    // Behind the old end, and across it.
    let behind = [Write { generation: 2, sector: small - 64, sectors: (sectors - small) / 16 * 8 }];
    let script = [subject.open(), read(&subject), write(&subject, &behind), subject.close()];
    let answer = lab.guest(&members, &script.concat())?;
    content.must_be(&lab.given(&answer)?, "what the kernel reads of what we grew")?;
    content.apply(&behind);
    content.must_be(&lab.export(&members)?, "what we read after the kernel wrote")?;
    lab.must_be_sound(&members)?;

    let cut = resize(lab, &members, subject.member_bytes)?;
    ensure!(cut == small, "{small} sectors before, {cut} after it grew and was cut");
    content.resize(cut);
    dumps_agree(lab, &subject, &members)?;
    let answer =
        lab.guest(&members, &[subject.open(), read(&subject), subject.close()].concat())?;
    content.must_be(&lab.given(&answer)?, "what the kernel reads of what we cut")?;
    lab.must_be_sound(&members)
}

/// # Errors
/// If we do not read what the kernel grew, or it not what we wrote there.
pub(super) fn resized_by_kernel(lab: &mut Lab<'_>, format: &Format) -> anyhow::Result<()> {
    let subject = Subject::integrity(*format);
    let (members, mut content) = grow(lab, &subject)?;
    dumps_agree(lab, &subject, &members)?;
    content.must_be(&lab.export(&members)?, "what we read of what the kernel grew")?;
    let sectors = content.sectors();
    let ours = [Write { generation: 4, sector: sectors - 1024, sectors: 1024 }];
    lab.import(&members, &ours)?;
    content.apply(&ours);
    let answer =
        lab.guest(&members, &[subject.open(), read(&subject), subject.close()].concat())?;
    content.must_be(&lab.given(&answer)?, "what the kernel reads after we wrote")?;
    lab.must_be_sound(&members)
}

/// # Errors
/// If the kernel does not read every byte of the data that we adopted, or we not what it wrote.
pub(super) fn adopted(lab: &mut Lab<'_>, format: &Format) -> anyhow::Result<()> {
    let subject = Subject::integrity(*format);
    let members = Disks::named(lab.folder(), &subject)?;
    // No whole number of mebibytes; something else in every sector.
    let data = Write { generation: 1, sector: 0, sectors: subject.member_bytes / SECTOR - 24 };
    let mut content = Content::new(data.sectors);
    content.apply(&[data]);
    File::create_new(members.data(0))?.write_all_at(&data.bytes(), 0)?;
    let pair = format!("{}={}", text(members.data(0))?, text(members.metadata(0))?);
    let arguments = [text(members.data(0))?, "--metadata-device", &pair];
    let options = format.create_options();
    let options = options.iter().map(String::as_str);
    lab.program.run("adopt", arguments.into_iter().chain(options))?.ended(0)?;
    let untouched = std::fs::read(members.data(0))?;
    content.must_be(&untouched, "the data after they were adopted")?;
    dumps_agree(lab, &subject, &members)?;

    let theirs = scattered(data.sectors, subject.block(), 2);
    let open = [subject.open(), size(&subject), read(&subject)].concat();
    let script = [open, write(&subject, &theirs), subject.close()];
    let answer = lab.guest(&members, &script.concat())?;
    content.must_be(&lab.given(&answer)?, "what the kernel reads of what we adopted")?;
    content.apply(&theirs);
    content.must_be(&lab.export(&members)?, "what we read after the kernel wrote")?;
    closed_cleanly(lab, &subject, &members)?;
    lab.must_be_sound(&members)
}

/// `steadfast resize`: how many sectors the volume has then.
fn resize(lab: &Lab<'_>, members: &Disks, bytes: u64) -> anyhow::Result<u64> {
    let options = ["--yes", "--json", "--size", &bytes.to_string()];
    let resized = lab.steadfast("resize", members, &options)?.ended(0)?.object()?;
    resized["to_sectors"].as_u64().context("it has a size")
}
