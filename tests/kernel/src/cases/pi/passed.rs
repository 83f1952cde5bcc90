//! Extended blocks whose metadata is larger than a tuple: the block layer gives them no capacity, so they go
//! through the kernel's passthrough, where the controller alone checks them.

use super::tuples::{APPLICATION, Layout, Stored, Tuples};
use crate::content::{Write, index};
use crate::disks::Disks;
use crate::lab::Lab;
use anyhow::{Context, ensure};

/// The controller takes our tuples, makes tuples that we find right, and both see the same flipped bits.
///
/// # Errors
/// If it does not.
pub(super) fn exchanged(lab: &mut Lab<'_>, number: usize, tuples: &Tuples) -> anyhow::Result<()> {
    let stride = tuples.block + tuples.metadata;
    let bytes = BLOCKS * stride;
    let open = format!(
        "DEV=$(namespace {number})\n[ $(sectors_of $DEV) = 0 ] || fail \"it has a capacity\"\n"
    );
    let command = |verb: &str, file: &str, checks: u8| {
        format!(
            "nvme {verb} $DEV -s 0 -c {} -z {bytes} -d {file} -r 0 -p {checks} > /tmp/nvme 2>&1 \
             || {{ cat /tmp/nvme; fail {verb} {checks}; }}\n",
            BLOCKS - 1
        )
    };
    let give = format!(
        "dd if=/tmp/data of=$OUT bs={bytes} conv=notrunc 2>/dev/null\nsync_to $OUT\n\
         echo sectors {}\n",
        bytes.div_ceil(512)
    );
    let read = command("read", "/tmp/data", CHECKED) + &give;

    let data = Write { generation: 5, sector: 0, sectors: BLOCKS * tuples.sectors() }.bytes();
    let made = Layout::Interleaved.made(lab, tuples, &data)?;
    let disk = lab.path("disk.img");
    let given = |lab: &mut Lab<'_>, stored: &Stored, script: &str| {
        std::fs::write(&disk, padded(stored.interleaved(tuples)))?;
        let script = format!("{open}{script}");
        let answer = lab.guest(&Disks::of(disk.clone()), &script)?;
        let mut bytes_given = match answer.all("sectors").next() {
            Some(_) => lab.given(&answer)?,
            None => Vec::new(),
        };
        bytes_given.truncate(index(bytes));
        anyhow::Ok((answer, bytes_given))
    };
    let (_, found) = given(lab, &made, &(command("write", "$D0", CHECKED) + &read))?;
    ensure!(found == made.interleaved(tuples), "it gives other bytes than it took");

    // Over tuples that are wrong, it makes its own.
    let faults = tuples.faults_from(0);
    let damaged = made.damaged(tuples, &faults);
    let (_, found) = given(lab, &damaged, &(command("write", "$D0", MAKE) + &read))?;
    let theirs = Stored::of_interleaved(&found, tuples);
    ensure!(theirs.data == damaged.data, "it changed the data");
    let bad = Layout::Interleaved.verify(lab, tuples, &theirs, Some("0"))?;
    ensure!(bad.is_empty(), "of what it made we refuse {bad:?}");

    let mut look = command("write", "$D0", 0);
    for (block, _) in &faults {
        for checks in [CHECKED, COMPARED] {
            look += &format!(
                "nvme read $DEV -s {block} -c 0 -z {stride} -d /tmp/data -r {block} -p {checks} \
                   -a {APPLICATION} -m 0xffff > /tmp/nvme 2>&1 || true\n\
                 echo read {block} {checks} $(cat /tmp/nvme)\n"
            );
        }
    }
    let (answer, _) = given(lab, &damaged, &look)?;
    let mut said = answer.all("read");
    for &(block, spot) in &faults {
        for compared in [false, true] {
            let line = said.next().context("it answers every command")?;
            let expected = match tuples.noticed(spot, compared) {
                Some("app") => "(0x283)",
                // The other two are asked for in the other command.
                Some(_) if compared => "Success",
                Some("guard") => "(0x282)",
                Some(_) => "(0x284)",
                None => "Success",
            };
            ensure!(line.contains(expected), "{spot:?}: {line}, expected {expected}");
        }
        let found = Layout::Interleaved.verify(lab, tuples, &damaged, Some(APPLICATION))?;
        let expected = tuples.noticed(spot, true);
        ensure!(found.get(&block).map(String::as_str) == expected, "{spot:?}: we see {found:?}");
    }
    Ok(())
}

/// Up to a whole sector.
fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// Blocks of a command.
const BLOCKS: u64 = 16;
/// What a command asks for (PRINFO): to check guard and reference tag, to check the application tag, or
/// to make the tuples.
const CHECKED: u8 = 5;
const COMPARED: u8 = 2;
const MAKE: u8 = 8;
