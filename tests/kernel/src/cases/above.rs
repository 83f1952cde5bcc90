//! dm-integrity without a hash: its tags come from the layer above.
//!
//! No program can give a tag to this kernel, nor read one. dm-crypt can: with random initialisation
//! vectors it keeps each block's vector as its tag. In counter mode what it stores is what it was given,
//! combined with a stream that key and vector make. So it tells both ways: of tags that we stored, what
//! the kernel reads through it is our data combined with the stream of our tag, bit for bit; and of its
//! own, data and tag that lie on the disk give back what was written, if they are of one write.

use super::crash::{History, NEWEST, journal_is_full, killed_here};
use crate::content::{Content, SECTOR, Write, index, scattered};
use crate::disks::Disks;
use crate::format::Format;
use crate::lab::Lab;
use crate::subject::Subject;
use aes::Aes256;
use anyhow::{Context, ensure};
use ctr::cipher::{KeyIvInit, StreamCipher};

/// Tuples of sixteen bytes, as many as a vector has; one run of data.
const CRC64: Format = Format {
    integrity: "t10-dif-type1-crc64",
    journal_bytes: Some(4 << 20),
    ..Format::CRC32C_4096
};
const CRC16: Format = Format { integrity: "t10-dif-type1-crc16", sector_size: 512, ..CRC64 };
/// The same volume to whoever does not know its tags. (What is not wiped has to be named.)
const OPAQUE: Format = Format { integrity: "opaque", wipe: false, ..CRC64 };

const fn subject(format: Format) -> Subject {
    Subject { member_bytes: 14 << 20, ..Subject::integrity(format) }
}

/// The kernel reads the data and every tag of a volume of ours, and we what it wrote with tags.
///
/// # Errors
/// If it does not, or we do not.
pub(super) fn exchanged(lab: &mut Lab<'_>) -> anyhow::Result<()> {
    let subject = subject(CRC64);
    let (members, sectors) = lab.create(&subject)?;
    lab.import(&members, &scattered(sectors, subject.block(), 0))?;
    let ours = lab.export(&members)?;
    let at_home = Home::read(lab, &members, sectors)?;
    ensure!(at_home.data == ours, "one run of data, all of it home");

    let script = [&open(&CRC64, ""), PROFILE, "give $T\n", CLOSE].concat();
    let answer = lab.guest(&members, &script)?;
    let said = answer.fields();
    ensure!(said.get("format") == Some(&"nop"), "a profile without a checksum: {said:?}");
    ensure!(said.get("tag_size") == Some(&"16"), "of our tags: {said:?}");
    ensure!(lab.given(&answer)? == ours, "the kernel reads other data");
    let answer =
        lab.guest(&members, &[&open(&CRC64, ""), CRYPT, "give $C\n", UNCRYPT, CLOSE].concat())?;
    ensure!(lab.given(&answer)? == at_home.combined(), "the kernel reads other tags");

    let writes = scattered(sectors, subject.block(), 2);
    let commands: String = writes.iter().map(|write| write.command("$C")).collect();
    let script = [&open(&CRC64, ""), CRYPT, &commands, "sync_to $C\n", UNCRYPT, CLOSE].concat();
    lab.guest(&members, &script)?;
    let after = Home::read(lab, &members, sectors)?;
    let mut expected = Content::from(at_home.combined());
    expected.apply(&writes);
    expected.must_be(&after.combined(), "what the kernel wrote, by its tags")?;
    let opaque = Disks::named(lab.folder(), &self::subject(OPAQUE))?;
    ensure!(lab.export(&opaque)? == after.data, "what we read of it");
    Ok(())
}

/// The kernel's machine dies with data and tags in its journal; we replay it.
///
/// # Errors
/// If what was synced is not there, or a block and its tag are not of one write.
pub(super) fn power_cut(lab: &mut Lab<'_>) -> anyhow::Result<()> {
    let subject = subject(CRC64);
    let (_, sectors) = lab.create(&subject)?;
    let members = Disks::named(lab.folder(), &self::subject(OPAQUE))?;
    let history = History::new(sectors, &subject);
    let commands =
        |writes: &[Write]| writes.iter().map(|one| one.command("$C")).collect::<String>();
    let base = commands(&history.base);
    let zero = "dd if=/dev/zero of=$C bs=1M oflag=direct conv=notrunc 2>/dev/null || true\n";
    let script = [&open(&CRC64, ""), CRYPT, zero, &base, "sync_to $C\n", UNCRYPT, CLOSE].concat();
    lab.guest(&members, &script)?;
    let before = Home::read(lab, &members, sectors)?.combined();
    let patient = open(&CRC64, " commit_time:60000 journal_watermark:95");
    let (synced, loose) = (commands(&history.synced), commands(&history.loose));
    let ending = "sync_to $C\n";
    let script = [&patient, CRYPT, &synced, ending, &loose, "echo now\nsleep 1000\n"].concat();
    lab.cut_power(&members, "now", &script)?;
    let same = members.copies()?;

    let home = Home::read(lab, &members, sectors)?.combined();
    let newest = index(NEWEST * SECTOR);
    ensure!(home[newest..newest + 512] == before[newest..newest + 512], "the newest is home");
    lab.steadfast("scrub", &members, &["-q"])?.ended(0)?;
    let ours = Home::read(lab, &members, sectors)?.combined();
    history.must_hold(&ours, "what we recover, data and tags")?;
    for (disks, what) in [(&members, "after us"), (&same, "by itself")] {
        let script = [&open(&CRC64, ""), CRYPT, "give $C\n", UNCRYPT, CLOSE].concat();
        let answer = lab.guest(disks, &script)?;
        history.must_hold(&lab.given(&answer)?, what)?;
    }
    Ok(())
}

/// Our server is killed with data and tuples in its journal; the kernel replays it, and every tuple
/// vouches for its block.
///
/// # Errors
/// If what was flushed is not there, or a tuple does not fit.
pub(super) fn killed(lab: &mut Lab<'_>) -> anyhow::Result<()> {
    let subject = subject(CRC16);
    let (members, history) = killed_here(lab, &subject, true)?;
    journal_is_full(lab, &subject, &members)?;
    let script = [&open(&CRC16, ""), "give $T\n", CLOSE].concat();
    let answer = lab.guest(&members, &script)?;
    let kernel = lab.given(&answer)?;
    history.must_hold(&kernel, "what the kernel recovers")?;
    Content::from(kernel).must_be(&lab.export(&members)?, "what we read after the kernel")?;
    lab.must_be_sound(&members)
}

/// Data and tags of a volume as they lie there.
struct Home {
    data: Vec<u8>,
    tags: Vec<u8>,
}

impl Home {
    fn read(lab: &Lab<'_>, members: &Disks, sectors: u64) -> anyhow::Result<Self> {
        let place = lab.place(members, 0)?;
        let file = std::fs::read(members.data(0))?;
        let part = |from: u64, length: u64| {
            file.get(index(from)..index(from + length)).map(<[u8]>::to_vec).context("a short file")
        };
        let blocks = sectors * SECTOR / CRC64.sector_size;
        let (data, tags) = (part(place.data, sectors * SECTOR)?, part(place.tag, blocks * 16)?);
        Ok(Self { data, tags })
    }

    /// Every block, combined with the stream of its tag.
    fn combined(&self) -> Vec<u8> {
        let mut combined = self.data.clone();
        let key: [u8; 32] = std::array::from_fn(|at| u8::try_from(at).unwrap_or(0));
        for (block, tag) in combined.chunks_mut(4096).zip(self.tags.chunks_exact(16)) {
            let tag: &[u8; 16] = tag.try_into().expect("sixteen bytes each");
            ctr::Ctr128BE::<Aes256>::new(&key.into(), tag.into()).apply_keystream(block);
        }
        combined
    }
}

/// The guest opens the first disk as `$T`: what `integritysetup` cannot say.
fn open(format: &Format, options: &str) -> String {
    let tag = if format.sector_size == 512 { 8 } else { 16 };
    let count = 1 + options.split_whitespace().count();
    let block = format.sector_size;
    format!(
        "P=$(dd if=$D0 bs=8 skip=2 count=1 2>/dev/null | od -An -t u8 | tr -d ' ')
         echo \"0 $P integrity $D0 0 {tag} J {count} block_size:{block}{options}\" | dmsetup create t0
         T=/dev/$(dmsetup info -c --noheadings -o blkdevname t0)\n"
    )
}

const CLOSE: &str = "dmsetup remove t0\n";
/// What keeps its vectors as tags, over `$T`, is `$C`; its key is the bytes 0 to 31.
const CRYPT: &str = "KEY=$(seq 0 31 | while read -r n; do printf %02x \"$n\"; done)
    echo \"0 $P crypt aes-ctr-random $KEY 0 $T 0 2 integrity:16:none sector_size:4096\" \
      | dmsetup create c0
    C=/dev/$(dmsetup info -c --noheadings -o blkdevname c0)\n";
const UNCRYPT: &str = "dmsetup remove c0\n";
const PROFILE: &str = "for name in format tag_size; do
      echo $name $(cat /sys/block/${T##*/}/integrity/$name)
    done\n";
