//! The bad block log of md: what one side recorded, the other takes from elsewhere, or says that it cannot;
//! and what is written again is good again, for both.

use super::exchange::{agrees_inside, read, size, write};
use super::{Case, Part, row};
use crate::content::{Content, Found, Write, scattered};
use crate::disks::Disks;
use crate::format::Format;
use crate::lab::{Answer, Lab, flip};
use crate::subject::Subject;
use anyhow::{Context, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::File;

pub(super) fn cases() -> Vec<Case> {
    let theirs = [
        ("raid1", Subject::md(1, 2), Part::Ci),
        ("raid5", Subject::md(5, 3), Part::Ci),
        ("raid6", Subject::md(6, 4), Part::All),
        ("raid10", Subject::md(10, 4), Part::All),
    ];
    let theirs = theirs.into_iter().map(|(name, subject, part)| {
        let what =
            "the kernel records bad blocks; both lack the same without redundancy; our writes mend";
        row(part, format!("bad-blocks-theirs-{name}"), what, move |lab| by_kernel(lab, &subject))
    });
    let small = Format { journal_bytes: Some(1 << 20), ..Format::CRC32C_4096 };
    let ours = [
        ("raid1-crc32c", Subject::stacked(1, 2, small), Part::All),
        ("raid5-crc32c", Subject::stacked(5, 3, small), Part::Ci),
    ];
    let ours = ours.into_iter().map(|(name, subject, part)| {
        let what =
            "our rebuild records what nobody has; the kernel lacks the same; its writes mend";
        row(part, format!("bad-blocks-ours-{name}"), what, move |lab| by_us(lab, &subject))
    });
    theirs.chain(ours).collect()
}

/// Sectors of the data of member 1 that the kernel is told are bad: first, and how many.
const TOLD: &[(u64, u64)] = &[(1024, 16), (1299, 1), (5000, 40)];

/// # Errors
/// If we read what the kernel recorded as bad, or it does after we wrote it.
fn by_kernel(lab: &mut Lab<'_>, subject: &Subject) -> anyhow::Result<()> {
    let members = lab.blank(subject)?;
    let answer = lab.guest(&members, &[subject.make(), size(subject), subject.close()].concat())?;
    let mut content = Content::new(answer.number("sectors")?);
    let first = scattered(content.sectors(), subject.block(), 0);
    let last = Write { generation: 1, sector: 0, sectors: 8 };
    let told: String = TOLD
        .iter()
        .map(|(sector, count)| format!("echo $((offset + {sector})) {count} > $log/bad_blocks\n"))
        .collect();
    let script = [
        subject.open(),
        write(subject, &first),
        "log=/sys/block/md0/md/rd1\noffset=$(cat $log/offset)\necho offset $offset\n".into(),
        told,
        // Whoever writes also writes superblocks.
        write(subject, &[last]),
        subject.close(),
    ];
    let offset = lab.guest(&members, &script.concat())?.number("offset")?;
    content.apply(&first);
    content.apply(&[last]);
    let recorded = recorded(lab, &members.member(1))?;
    let expected: Vec<_> = TOLD.iter().map(|&(first, count)| (offset + first, count)).collect();
    ensure!(covered(&recorded) == covered(&expected), "{recorded:?}, but told {expected:?}");
    // Who believes these bytes gives back others.
    for &(sector, _) in &expected {
        flip(members.data(1), sector * 512 + 7)?;
    }
    let found = lab.salvage(&members, &[], &[0, 1])?;
    found.must_lack(&BTreeSet::new(), "we, with redundancy,")?;
    content.must_be(&found.bytes, "what we read beside bad blocks")?;
    same_is_lost(lab, subject, &members, &content)?;

    let all = [Write { generation: 2, sector: 0, sectors: content.sectors() }];
    lab.import(&members, &all)?;
    content.apply(&all);
    let left = self::recorded(lab, &members.member(1))?;
    ensure!(left.is_empty(), "bad after they were written: {left:?}");
    let script = [subject.open(), read(subject), BAD_THERE.to_owned(), subject.close()];
    let answer = lab.guest(&members, &script.concat())?;
    content.must_be(&lab.given(&answer)?, "what the kernel reads after we wrote")?;
    agrees_inside(subject, &answer)?;
    ensure!(there(&answer)?.is_empty(), "the kernel still has bad blocks: {answer:?}");
    let (less, without) = bare(subject, &members);
    let script = [less.open_degraded(), format!("give {}\n", less.device()), less.close()];
    let answer = lab.guest(&without.copies_as("alone")?, &script.concat())?;
    content.must_be(&lab.given(&answer)?, "what the kernel reads from what we mended")
}

/// Without redundancy, both sides lack the same sectors, some, and read the rest.
fn same_is_lost(
    lab: &mut Lab<'_>,
    subject: &Subject,
    members: &Disks,
    content: &Content,
) -> anyhow::Result<()> {
    let (less, without) = bare(subject, members);
    let ours = lab.salvage(&without.copies_as("ours")?, &[], &[2])?;
    ensure!(!ours.unreadable.is_empty(), "what is bad was read");
    ours.must_be(content, content, "what we read without redundancy")?;
    let script = [less.open_degraded(), format!("salvage {}\n", less.device()), less.close()];
    let answer = lab.guest(&without.copies_as("theirs")?, &script.concat())?;
    lack_the_same(&ours, &lost(&answer)?)
}

/// # Errors
/// If the kernel reads what we recorded as bad, or we do not after it wrote it.
fn by_us(lab: &mut Lab<'_>, subject: &Subject) -> anyhow::Result<()> {
    let (members, sectors) = lab.create(subject)?;
    let wide = Subject { members: subject.members + 1, ..*subject };
    let all = Disks::named(lab.folder(), &wide)?;
    File::create(all.metadata(subject.members))?.set_len(subject.member_bytes)?;
    let mut content = Content::new(sectors);
    let first = scattered(sectors, subject.block(), 0);
    lab.import(&members, &first)?;
    content.apply(&first);
    let kept: Vec<usize> = (0..subject.members).filter(|member| *member != 1).collect();
    // A block of the first member rots, and its tag, so that no bit can be found.
    let explained = lab.steadfast("explain", &members, &["--json", "--sector", "6016"])?;
    let places = explained.object()?["places"].clone();
    let rotten = places.as_array().context("places")?.iter().find(|place| place["slot"] == 0);
    let rotten = rotten.context("a place of the first member")?;
    for byte in [&rotten["data_byte"], &rotten["tag"]["tag_byte"]] {
        flip(members.data(0), byte.as_u64().context("a byte")?)?;
    }
    let path = all.metadata(subject.members).display().to_string();
    lab.steadfast("add", &all.choose(&kept), &["-q", "--new", &path])?.ended(2)?;
    let now = all.choose(&kept.iter().copied().chain([subject.members]).collect::<Vec<_>>());
    let new = now.members() - 1;
    let recorded = recorded(lab, &now.member(new))?;
    ensure!(!recorded.is_empty(), "what nobody has is not recorded");
    let ours = lab.salvage(&now, &[], &[2])?;
    ensure!(!ours.unreadable.is_empty(), "what nobody has was read");
    ours.must_be(&content, &content, "what we read after the rebuild")?;

    let copies = now.copies_as("read")?;
    let script = [
        subject.open(),
        BAD_THERE.to_owned(),
        format!("salvage {}\n", subject.device()),
        subject.close(),
    ];
    let answer = lab.guest(&copies, &script.concat())?;
    let theirs = there(&answer)?;
    ensure!(covered(&theirs) == covered(&recorded), "{theirs:?} there, {recorded:?} here");
    lack_the_same(&ours, &lost(&answer)?)?;

    let over = [Write { generation: 2, sector: 0, sectors }];
    content.apply(&over);
    let script = [
        subject.open(),
        write(subject, &over),
        read(subject),
        BAD_THERE.to_owned(),
        subject.close(),
    ];
    let answer = lab.guest(&now, &script.concat())?;
    content.must_be(&lab.given(&answer)?, "what the kernel reads after it wrote")?;
    agrees_inside(subject, &answer)?;
    ensure!(there(&answer)?.is_empty(), "bad after the kernel wrote them: {answer:?}");
    content.must_be(&lab.export(&now)?, "what we read after the kernel wrote")?;
    lab.must_be_sound(&now)
}

/// The kernel lacks what we lack; with parity it works in pages, and lacks the rest of their 4 KiB as well.
fn lack_the_same(ours: &Found, theirs: &BTreeSet<u64>) -> anyhow::Result<()> {
    let pages = |sectors: &BTreeSet<u64>| sectors.iter().map(|sector| sector / 8).collect();
    let (here, there): (BTreeSet<u64>, BTreeSet<u64>) = (pages(&ours.unreadable), pages(theirs));
    ensure!(here == there, "pages that we lack: {here:?}, that the kernel lacks: {there:?}");
    let more: Vec<_> = ours.unreadable.difference(theirs).collect();
    ensure!(more.is_empty(), "the kernel reads what we do not: {more:?}");
    Ok(())
}

/// Without redundancy, member 1 still there.
fn bare(subject: &Subject, members: &Disks) -> (Subject, Disks) {
    let away: &[usize] = if subject.level == Some(6) { &[0, 2] } else { &[0] };
    let kept: Vec<_> = (0..subject.members).filter(|member| !away.contains(member)).collect();
    (Subject { members: kept.len(), ..*subject }, members.choose(&kept))
}

/// The entries of a member's log, as `inspect` has them.
fn recorded(lab: &Lab<'_>, member: &Disks) -> anyhow::Result<Vec<(u64, u64)>> {
    let found = lab.inspect(member)?;
    let list = found["md"]["bad_blocks"].as_array().with_context(|| found.to_string())?;
    let number = |value: &Value| value.as_u64().context("a number");
    list.iter().map(|entry| Ok((number(&entry[0])?, number(&entry[1])?))).collect()
}

/// The guest tells what is recorded as bad on the member in slot 1.
const BAD_THERE: &str = "sed 's/^/recorded /' /sys/block/md0/md/rd1/bad_blocks\n";

/// What [`BAD_THERE`] told.
fn there(answer: &Answer) -> anyhow::Result<Vec<(u64, u64)>> {
    let mut entries = Vec::new();
    for line in answer.all("recorded") {
        let (sector, count) = line.split_once(' ').with_context(|| line.to_owned())?;
        entries.push((sector.parse()?, count.parse()?));
    }
    Ok(entries)
}

/// Each sector of these entries: they may be cut differently.
fn covered(entries: &[(u64, u64)]) -> BTreeSet<u64> {
    entries.iter().flat_map(|&(first, count)| first..first + count).collect()
}

/// The sectors that `salvage` in the guest could not read, whatever the error.
fn lost(answer: &Answer) -> anyhow::Result<BTreeSet<u64>> {
    let mut entries = Vec::new();
    for line in answer.all("bad") {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [sector, count, _] = words[..] else { anyhow::bail!("{line}") };
        entries.push((sector.parse()?, count.parse()?));
    }
    Ok(covered(&entries))
}
