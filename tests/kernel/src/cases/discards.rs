//! Blocks that one side discarded: they have tags of their own, which the other must honour exactly
//! where the opening allows it.

use super::exchange::{read, size, write};
use super::made::DISCARDED;
use crate::content::{Content, SECTOR, Write, scattered};
use crate::disks::Disks;
use crate::format::Format;
use crate::lab::Lab;
use crate::machine::boot::key;
use crate::subject::Subject;
use anyhow::{Context, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// One side discards in the middle of what it wrote, the other reads it, and discards somewhere else.
///
/// # Errors
/// If one side reads anything but zeroes there, or does so without having been asked.
pub(super) fn exchanged(lab: &mut Lab<'_>, format: &Format, ours: bool) -> anyhow::Result<()> {
    let allowing = Subject::integrity(Format { allow_discards: true, ..*format });
    let plain = Subject::integrity(Format { allow_discards: false, ..*format });
    let (members, sectors) = if ours {
        lab.create(&allowing)?
    } else {
        let members = lab.blank(&allowing)?;
        let script = [allowing.make(), size(&allowing), allowing.close()];
        let sectors = lab.guest(&members, &script.concat())?.number("sectors")?;
        (members, sectors)
    };
    let mut content = Content::new(sectors);
    let mut discarded = BTreeSet::new();
    for (we, generation, (sector, count)) in [(ours, 0, DISCARDED), (!ours, 2, LATER)] {
        let writes = scattered(sectors, plain.block(), generation);
        if we {
            lab.import(&members, &writes)?;
            discard(lab, &members, sector, count)?;
        } else {
            let device = allowing.device();
            let discard = blkdiscard(device, sector, count);
            let script =
                [allowing.open(), write(&allowing, &writes), discard, allowing.close()].concat();
            lab.guest(&members, &script)?;
        }
        content.apply(&writes);
        content.clear(sector, count);
        for write in writes {
            discarded.retain(|at| !(write.sector..write.sector + write.sectors).contains(at));
        }
        discarded.extend(sector..sector + count);

        content.must_be(&lab.export(&members)?, "what we read, discards allowed")?;
        lab.must_be_sound(&members)?;
        let script = [allowing.open(), read(&allowing), allowing.close()].concat();
        let answer = lab.guest(&members, &script)?;
        content.must_be(&lab.given(&answer)?, "what the kernel reads, discards allowed")?;
        // Without having been asked nobody believes such a tag.
        let found =
            lab.salvage(&members.run_as(&Format { allow_discards: false, ..*format }), &[], &[2])?;
        found.must_lack(&discarded, "we, discards not allowed")?;
        let look = format!("salvage {}\n", plain.device());
        let answer = lab.guest(&members, &[plain.open(), look, plain.close()].concat())?;
        lab.salvaged(&answer)?.must_lack(&discarded, "the kernel, discards not allowed")?;
    }
    Ok(())
}

/// Keyed tags of discarded blocks (flag 0x40), which no release of `integritysetup` makes: through
/// tables of the device mapper.
///
/// # Errors
/// If we read anything but zeroes where the kernel discarded, or it where we did; or if we write such
/// a volume without its key.
pub(super) fn keyed(lab: &mut Lab<'_>) -> anyhow::Result<()> {
    let format = Format { integrity: "hmac-sha256", ..Format::CRC32C_4096 };
    let subject = Subject::integrity(format);
    let members = lab.blank(&subject)?;
    lab.guest(&members, &format!("{}dmsetup remove t0\n", keyed_table("8")))?;
    let found = lab.inspect(&members)?;
    let sectors: u64 = field(&found, "provided_data_sectors")?.parse()?;
    ensure!(field(&found, "superblock_version")? == "7", "version 7: {found}");
    let open = keyed_table(&sectors.to_string());
    let close = "dmsetup remove t0\n";

    let mut writes = vec![Write { generation: 7, sector: 0, sectors }];
    writes.extend(scattered(sectors, subject.block(), 0));
    let mut content = Content::new(sectors);
    content.apply(&writes);
    let (sector, count) = DISCARDED;
    content.clear(sector, count);
    let discard_there = blkdiscard("/dev/mapper/t0", sector, count);
    let script = [&open, &write(&subject, &writes), &discard_there, close].concat();
    lab.guest(&members, &script)?;
    content.must_be(&lab.export(&members)?, "what we read of the kernel's keyed discards")?;
    lab.must_be_sound(&members)?;

    // Without the key nothing is written, nor read.
    let before = std::fs::read(members.data(0))?;
    let path = members.data(0).display().to_string();
    for verb in ["scrub", "status"] {
        lab.program.run(verb, [path.as_str()])?.ended(3)?;
    }
    ensure!(std::fs::read(members.data(0))? == before, "something was written without the key");

    let ours = scattered(sectors, subject.block(), 2);
    lab.import(&members, &ours)?;
    content.apply(&ours);
    let (sector, count) = LATER;
    let allowing = members.run_as(&Format { allow_discards: true, ..format });
    discard(lab, &allowing, sector, count)?;
    content.clear(sector, count);
    content.must_be(&lab.export(&members)?, "what we read of our keyed discards")?;
    let answer = lab.guest(&members, &[&open, &read(&subject), close].concat())?;
    content.must_be(&lab.given(&answer)?, "what the kernel reads of our keyed discards")
}

/// `dmsetup create` with keyed discards.
fn keyed_table(sectors: &str) -> String {
    let mut hex = String::new();
    for byte in key(0) {
        let _fits = write!(hex, "{byte:02x}");
    }
    format!(
        "dmsetup create t0 --table \"0 {sectors} integrity $D0 0 32 J 7 block_size:4096 \
         journal_sectors:2048 fix_padding fix_hmac {KEYED} internal_hash:hmac(sha256):{hex}\"\ndmsetup mknodes\n"
    )
}

/// Through a server of ours.
fn discard(lab: &Lab<'_>, members: &Disks, sector: u64, sectors: u64) -> anyhow::Result<()> {
    let server = lab.program.serve(members, &lab.path(""))?;
    let command = format!("discard {} {}", sector * SECTOR, sectors * SECTOR);
    server.qemu_io(&[command, "flush".into()], "writeback")?;
    server.stop()
}

fn blkdiscard(device: &str, sector: u64, sectors: u64) -> String {
    format!("blkdiscard -o {} -l {} {device}\n", sector * SECTOR, sectors * SECTOR)
}

fn field<'a>(found: &'a Value, name: &str) -> anyhow::Result<&'a str> {
    let fields = found["integrity"]["fields"].as_array().context("fields")?;
    let field = fields.iter().find(|field| field["name"] == name);
    field.and_then(|field| field["value"].as_str()).map(str::trim).with_context(|| name.to_owned())
}

/// What the other side discards: a part of it was discarded before.
const LATER: (u64, u64) = (6656, 1024);
/// The options of the kernel's target: that discards are allowed, and with which tags.
const KEYED: &str = "allow_discards allow_discards_keyed";
