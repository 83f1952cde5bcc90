//! Protection information: what the kernel writes through its block layer `steadfast dif` finds right, what
//! we make the kernel reads, and both name the same blocks when bits flip.
//!
//! ```text
//!   block layer: makes and checks tuples
//!       |
//!       +-- nvme --------- qemu's namespaces ---------- a file of ours: data, then metadata
//!       |                  check every tuple as well; of extended ones they make them, too
//!       +-- sd -- tcm_loop -- the kernel's target ----- two files of the guest's
//!       |                     checks every tuple as well
//!       +-- sd -- scsi_debug -------------------------- memory of the guest's kernel
//!                 checks every tuple as well
//! ```

mod media;
mod passed;
mod tuples;

use super::{Case, Part, row};
use crate::content::{Content, Write, scattered};
use crate::disks::Disks;
use crate::lab::{Answer, Lab};
use anyhow::{Context, bail, ensure};
use media::Medium;
use std::collections::BTreeMap;
use tuples::{APPLICATION, Spot, Tuples};

/// Every case.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for ((tuples, buffers, part), number) in NAMESPACES.into_iter().zip(1..) {
        let medium = Medium::Nvme(number);
        let extended = if buffers == Buffers::One { "-extended" } else { "" };
        cases.push(row(
            part,
            format!("pi-nvme-{}{extended}", tuples.name()),
            "the kernel writes, we verify; we make, the kernel reads; both see the same flipped bits",
            move |lab| match buffers {
                Buffers::Two => {
                    exchanged(lab, medium, &tuples)?;
                    compared(lab, number, &tuples)
                }
                Buffers::One if tuples.is_bare() => exchanged(lab, medium, &tuples),
                Buffers::One => passed::exchanged(lab, number, &tuples),
            },
        ));
    }
    let media = [
        ("target", Medium::Target, TARGETS.as_slice()),
        ("scsi-debug", Medium::ScsiDebug, SCSI_DEBUG.as_slice()),
    ];
    for (name, medium, formats) in media {
        for &(tuples, part) in formats {
            cases.push(row(
                part,
                format!("pi-{name}-{}", tuples.name()),
                "the same through the kernel's SCSI disks: DIX between them, DIF behind",
                move |lab| exchanged(lab, medium, &tuples),
            ));
        }
    }
    cases
}

/// The namespaces that the cases need, as options of qemu's.
pub(super) fn namespaces() -> Vec<String> {
    let options =
        |(tuples, buffers, _): (Tuples, Buffers, Part)| tuples.namespace(buffers == Buffers::One);
    NAMESPACES.into_iter().map(options).collect()
}

/// Both directions, and then a bit of everything that can be hit.
///
/// # Errors
/// If one side does not take what the other made, or does not see what it should.
fn exchanged(lab: &mut Lab<'_>, medium: Medium, tuples: &Tuples) -> anyhow::Result<()> {
    let (layout, sectors) = (medium.layout(), medium.blocks(tuples) * tuples.sectors());
    let mut writes = vec![Write { generation: 7, sector: 0, sectors }];
    writes.extend(scattered(sectors, tuples.sectors(), 1));
    let script: String = writes.iter().map(|write| write.command("$DEV")).collect();
    let size = format!("[ $(sectors_of $DEV) = {sectors} ] || fail \"$(sectors_of $DEV)\"\n");
    let stored = medium.written(lab, tuples, &(size + &script))?;
    let mut content = Content::new(sectors);
    content.apply(&writes);
    content.must_be(&stored.data, "what the kernel wrote")?;
    // The kernel's block layer writes an application tag of zero.
    let bad = layout.verify(lab, tuples, &stored, Some("0"))?;
    ensure!(bad.is_empty(), "of what the kernel wrote we refuse {bad:?}");

    let ours = Content::of(&[Write { generation: 11, sector: 0, sectors }]);
    let made = layout.made(lab, tuples, ours.piece(0, sectors))?;
    let answer = medium.loaded(lab, tuples, &made, "give $DEV\n")?;
    ours.must_be(&lab.given(&answer)?, "what the kernel reads of ours")?;

    let faults = tuples.faults_from(FAULTY.0);
    let damaged = made.damaged(tuples, &faults);
    for (application, compared) in [(None, false), (Some(APPLICATION), true)] {
        let found = layout.verify(lab, tuples, &damaged, application)?;
        let expected = tuples.bad(&faults, compared);
        ensure!(found == expected, "after {faults:?} we see {found:?}, expected {expected:?}");
    }
    let [first, count] = [FAULTY.0, FAULTY.1].map(|blocks| blocks * tuples.sectors());
    let look = format!("errors_around $DEV {first} {count}\n");
    let answer = medium.loaded(lab, tuples, &damaged, &look)?;
    let found = unreadable(&answer, tuples)?;
    // It never compares application tags by itself.
    let expected: BTreeMap<u64, String> =
        tuples.bad(&faults, false).into_keys().map(|block| (block, "EILSEQ".to_owned())).collect();
    ensure!(found == expected, "after {faults:?} the kernel sees {found:?}, expected {expected:?}");
    Ok(())
}

/// The namespace holds what [`exchanged`] left: a command that compares application tags, as only a
/// passthrough of the kernel's sends it, fails at the block whose tag was hit, and nowhere else.
///
/// # Errors
/// If it does not.
fn compared(lab: &mut Lab<'_>, number: usize, tuples: &Tuples) -> anyhow::Result<()> {
    let faults = tuples.faults_from(FAULTY.0);
    let block = |part| {
        let found = faults.iter().find(|(_, hit)| *hit == part);
        found.map(|(block, _)| *block).context("every format has such a tag")
    };
    let hit = block(Spot::Application)?;
    let others = [hit - 1, block(Spot::Guard)?];
    let mut script = format!("DEV=$(namespace {number})\n");
    for block in others.into_iter().chain([hit]) {
        let Tuples { block: bytes, metadata, .. } = tuples;
        script += &format!(
            "if nvme read $DEV -s {block} -c 0 -z {bytes} -d /tmp/data -y {metadata} -M /tmp/metadata \
               -p 2 -a {APPLICATION} -m 0xffff > /tmp/nvme 2>&1; then
               echo compared {block} equal
             else
               echo compared {block} $(cat /tmp/nvme)
             fi\n"
        );
    }
    let answer = lab.guest(&Disks::default(), &script)?;
    let said: Vec<&str> = answer.all("compared").collect();
    let [one, two, three] = said[..] else { bail!("{answer:?}") };
    ensure!(one.ends_with("equal") && two.ends_with("equal"), "{said:?}");
    // NVMe's status of an application tag that disagrees: 2/83h.
    ensure!(three.contains("283"), "{said:?}");
    Ok(())
}

/// The blocks that `errors` named, and the error of each.
fn unreadable(answer: &Answer, tuples: &Tuples) -> anyhow::Result<BTreeMap<u64, String>> {
    let mut found = BTreeMap::new();
    for line in answer.all("bad") {
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        let [sector, _, error] = words[..] else { bail!("bad {line}") };
        found.insert(sector.parse::<u64>()? / tuples.sectors(), error.to_owned());
    }
    Ok(found)
}

/// Where the metadata of a command is: in a buffer of its own, or behind each block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Buffers {
    Two,
    One,
}

const fn format(kind: u8, guard: &'static str, block: u64, metadata: u64, first: bool) -> Tuples {
    Tuples { kind, guard, block, metadata, first }
}

/// The first has the number 1.
const NAMESPACES: [(Tuples, Buffers, Part); 19] = [
    (format(1, "crc16", 512, 8, LAST), Buffers::Two, Part::Ci),
    (format(2, "crc16", 4096, 8, LAST), Buffers::Two, Part::All),
    (format(3, "crc16", 512, 8, LAST), Buffers::Two, Part::All),
    (format(1, "crc16", 512, 16, LAST), Buffers::Two, Part::All),
    (format(1, "crc16", 512, 64, FIRST), Buffers::Two, Part::All),
    (format(2, "crc16", 4096, 64, LAST), Buffers::Two, Part::All),
    (format(3, "crc16", 4096, 16, FIRST), Buffers::Two, Part::All),
    (format(1, "crc64", 4096, 16, LAST), Buffers::Two, Part::All),
    (format(1, "crc64", 4096, 64, FIRST), Buffers::Two, Part::All),
    (format(2, "crc64", 4096, 64, LAST), Buffers::Two, Part::Ci),
    (format(3, "crc64", 4096, 16, LAST), Buffers::Two, Part::All),
    (format(3, "crc64", 4096, 64, LAST), Buffers::Two, Part::All),
    (format(1, "crc16", 512, 8, LAST), Buffers::One, Part::All),
    (format(3, "crc16", 4096, 8, LAST), Buffers::One, Part::All),
    (format(2, "crc64", 4096, 16, LAST), Buffers::One, Part::All),
    (format(3, "crc64", 4096, 16, LAST), Buffers::One, Part::All),
    (format(1, "crc16", 512, 16, FIRST), Buffers::One, Part::All),
    (format(1, "crc64", 4096, 64, LAST), Buffers::One, Part::Ci),
    // The NVM command set has this guard over 4096 bytes and more: who makes it over less is asked.
    (format(1, "crc64", 512, 16, LAST), Buffers::Two, Part::All),
];

/// Its target knows no type 2, and no guard but this.
const TARGETS: [(Tuples, Part); 3] = [
    (format(1, "crc16", 512, 8, LAST), Part::Ci),
    (format(1, "crc16", 4096, 8, LAST), Part::All),
    (format(3, "crc16", 512, 8, LAST), Part::All),
];

/// Slow, for their memory comes in hexadecimal digits: none is in the part of the CI.
const SCSI_DEBUG: [(Tuples, Part); 8] = [
    (format(1, "crc16", 512, 8, LAST), Part::All),
    (format(1, "ip", 512, 8, LAST), Part::All),
    (format(2, "crc16", 512, 8, LAST), Part::All),
    (format(2, "ip", 512, 8, LAST), Part::All),
    (format(3, "crc16", 512, 8, LAST), Part::All),
    (format(3, "ip", 512, 8, LAST), Part::All),
    (format(1, "crc16", 4096, 8, LAST), Part::All),
    (format(2, "ip", 4096, 8, LAST), Part::All),
];

/// The blocks among which faults are: the first, and how many.
const FAULTY: (u64, u64) = (200, 12);
const FIRST: bool = true;
const LAST: bool = false;
