//! Wrong bytes on plain members of RAID 6, where no checksum decides: what the syndromes locate is put right
//! when the operator says so, in every layout, and a sound array is left as it is. (The ideas of mdadm's tests
//! 19raid6check, 19raid6repair and 19repair-does-not-destroy; and of 01raid6integ, with each pair of members
//! missing.)

use super::exchange::{agrees_inside, read, size, write};
use super::levels::PARITY_6;
use super::{Case, Part, row};
use crate::content::{Content, scattered};
use crate::disks::Disks;
use crate::lab::Lab;
use crate::subject::Subject;
use anyhow::ensure;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;

pub(super) fn cases() -> Vec<Case> {
    let layouts = PARITY_6.iter().copied().chain(["left-symmetric"]);
    let each = layouts.map(|layout| {
        let subject = Subject { layout: Some(layout), ..Subject::md(6, 5) };
        let part = if layout == "ddf-zero-restart" { Part::Ci } else { Part::All };
        let what =
            "a chunk of each member is wrong; we locate and repair it; the kernel's check agrees";
        row(part, format!("located-raid6-{layout}"), what, move |lab| judge(lab, &subject))
    });
    each.collect()
}

/// # Errors
/// If a wrong chunk is not found or not put right, or something sound is touched.
fn judge(lab: &mut Lab<'_>, subject: &Subject) -> anyhow::Result<()> {
    let members = lab.blank(subject)?;
    let answer = lab.guest(&members, &[subject.make(), size(subject), subject.close()].concat())?;
    let mut content = Content::new(answer.number("sectors")?);
    let base = scattered(content.sectors(), subject.block(), 0);
    lab.guest(&members, &[subject.open(), write(subject, &base), subject.close()].concat())?;
    content.apply(&base);
    let found = lab.inspect(&members.member(0))?;
    let sound = lab.export(&members)?;
    content.must_be(&sound, "what we read of a sound array")?;
    each_pair_can_be_missing(lab, subject, &members, &content)?;

    // Every member is wrong once, in a stripe of its own.
    let chunk = u64::from(subject.chunk_kib) << 10;
    let data = data_offset(&found)? * 512;
    let before = bytes_of(&members)?;
    for member in 0..subject.members {
        let stripe = u64::try_from(member)? + 2;
        let wrong: Vec<u8> = (0..=250).cycle().take(usize::try_from(chunk)?).collect();
        let file = File::options().write(true).open(members.data(member))?;
        file.write_all_at(&wrong, data + stripe * chunk)?;
    }
    let seen = lab.steadfast("scrub", &members, &["--check", "--json"])?.ended(2)?.object()?;
    let inferred = u64::try_from(subject.members)? * chunk / 512;
    ensure!(seen["inferred"]["sectors"] == inferred, "{}", seen["inferred"]);
    ensure!(seen["inconsistent"]["sectors"] == 0, "{}", seen["inconsistent"]);
    lab.steadfast("scrub", &members, &["-q", "--repair", "inferred"])?.ended_within(&[0, 1])?;
    same_content(&before, &bytes_of(&members)?, data)?;
    lab.must_be_sound(&members)?;
    let answer = lab.guest(&members, &[subject.open(), read(subject), subject.close()].concat())?;
    content.must_be(&lab.given(&answer)?, "what the kernel reads of what we repaired")?;
    agrees_inside(subject, &answer)?;

    // Repairing what is sound changes nothing.
    let before = bytes_of(&members)?;
    lab.steadfast("scrub", &members, &["-q", "--repair", "inferred"])?.ended(0)?;
    same_content(&before, &bytes_of(&members)?, data)
}

/// Without any two members, everything is there.
fn each_pair_can_be_missing(
    lab: &Lab<'_>,
    subject: &Subject,
    members: &Disks,
    content: &Content,
) -> anyhow::Result<()> {
    for first in 0..subject.members {
        for second in first + 1..subject.members {
            let kept: Vec<_> =
                (0..subject.members).filter(|one| ![first, second].contains(one)).collect();
            let found = lab.salvage(&members.choose(&kept), &[], &[1])?;
            found.must_lack(&BTreeSet::new(), &format!("we, without {first} and {second}"))?;
            content.must_be(&found.bytes, &format!("what we read without {first} and {second}"))?;
        }
    }
    Ok(())
}

fn data_offset(found: &Value) -> anyhow::Result<u64> {
    let mut fields = found["md"]["fields"].as_array().into_iter().flatten();
    let offset = fields.rfind(|field| field["name"] == "data_offset");
    let text = offset.and_then(|field| field["value"].as_str()).unwrap_or_default();
    Ok(text.trim().parse()?)
}

fn bytes_of(members: &Disks) -> anyhow::Result<Vec<Vec<u8>>> {
    members.files().iter().map(|file| Ok(std::fs::read(file)?)).collect()
}

/// Behind the superblocks, which count openings, the members hold what they held.
fn same_content(before: &[Vec<u8>], after: &[Vec<u8>], data: u64) -> anyhow::Result<()> {
    let data = usize::try_from(data)?;
    for (member, (before, after)) in before.iter().zip(after).enumerate() {
        let first = before[data..].iter().zip(&after[data..]).position(|(a, b)| a != b);
        ensure!(first.is_none(), "member {member} differs at byte {first:?} of its data");
    }
    Ok(())
}
