//! Blocks with protection information: how either side is told of them, where a tag of one lies, and
//! what `steadfast dif` says of them.

use crate::content::{SECTOR, index};
use crate::lab::{Lab, text};
use crate::program::Said;
use anyhow::{Context, ensure};
use std::collections::BTreeMap;

/// A format of protected blocks, each of which is one interval.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuples {
    /// T10's type: 1, 2 or 3.
    pub(crate) kind: u8,
    /// The guard, by the program's name for it.
    pub(crate) guard: &'static str,
    /// Bytes of a block.
    pub(crate) block: u64,
    /// Bytes of metadata of a block.
    pub(crate) metadata: u64,
    /// Where metadata is larger, the tuple lies in front.
    pub(crate) first: bool,
}

/// What a fault hits, in a block or its metadata.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Spot {
    Data,
    /// The metadata beside the tuple.
    Owner,
    Guard,
    Application,
    Reference,
}

impl Tuples {
    /// Sectors of a block.
    pub(super) const fn sectors(&self) -> u64 {
        self.block / SECTOR
    }

    /// `type1-crc16-512+8`, the end of a case's name.
    pub(super) fn name(&self) -> String {
        let Self { kind, guard, block, metadata, first } = self;
        let first = if *first { "-first" } else { "" };
        format!("type{kind}-{guard}-{block}+{metadata}{first}")
    }

    /// The format as qemu's `nvme-ns` is told of it. Of blocks it wants to know two sizes, and the
    /// larger ones are none too large.
    pub(super) fn namespace(&self, extended: bool) -> String {
        let Self { kind, guard, block, metadata, first } = self;
        let guard = if *guard == "crc64" { 2 } else { 0 };
        let (first, extended) = (u8::from(*first), u8::from(extended));
        format!(
            "logical_block_size={block},physical_block_size=4096,ms={metadata},mset={extended},\
             pi={kind},pil={first},pif={guard}"
        )
    }

    /// The format as `steadfast dif` is told of it.
    fn arguments(&self) -> Vec<String> {
        let words = [
            ("--type", self.kind.to_string()),
            ("--guard", self.guard.to_owned()),
            ("--block-size", self.block.to_string()),
            ("--metadata-size", self.metadata.to_string()),
            ("--tuple", if self.first { "first" } else { "last" }.to_owned()),
        ];
        words.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
    }

    fn guard_bytes(&self) -> u64 {
        if self.guard == "crc64" { 8 } else { 2 }
    }

    /// Guard, application tag and reference tag.
    fn tuple_bytes(&self) -> u64 {
        if self.guard == "crc64" { 16 } else { 8 }
    }

    /// Metadata is a tuple and nothing else.
    pub(super) fn is_bare(&self) -> bool {
        self.metadata == self.tuple_bytes()
    }

    /// The byte of the metadata of a block that a fault hits; none where there is no such thing.
    fn byte(&self, part: Spot) -> Option<u64> {
        let tuple = if self.first { 0 } else { self.metadata - self.tuple_bytes() };
        match part {
            Spot::Data => None,
            Spot::Owner if self.is_bare() => None,
            Spot::Owner => Some(if self.first { self.tuple_bytes() } else { tuple - 1 }),
            Spot::Guard => Some(tuple),
            Spot::Application => Some(tuple + self.guard_bytes()),
            Spot::Reference => Some(tuple + self.tuple_bytes() - 1),
        }
    }

    /// Which tag disagrees after a fault, if application tags are compared or not.
    pub(super) fn noticed(&self, part: Spot, compared: bool) -> Option<&'static str> {
        match part {
            Spot::Data | Spot::Guard => Some("guard"),
            // The guard covers the metadata before the tuple, and never what is behind it.
            Spot::Owner => (!self.first).then_some("guard"),
            Spot::Application => compared.then_some("app"),
            Spot::Reference => (self.kind != 3).then_some("ref"),
        }
    }

    /// The blocks in which a tag disagrees after `faults`, and which one.
    pub(super) fn bad(&self, faults: &[(u64, Spot)], compared: bool) -> BTreeMap<u64, String> {
        let bad = faults
            .iter()
            .filter_map(|&(block, part)| Some((block, self.noticed(part, compared)?.to_owned())));
        bad.collect()
    }

    /// A fault of every kind that this format can have, each in a block of its own behind a good one,
    /// within twelve blocks from `first` on.
    pub(super) fn faults_from(&self, first: u64) -> Vec<(u64, Spot)> {
        let all = [Spot::Data, Spot::Owner, Spot::Guard, Spot::Application, Spot::Reference];
        let possible = all.into_iter().zip((first + 1..).step_by(2));
        possible
            .filter(|&(part, _)| part == Spot::Data || self.byte(part).is_some())
            .map(|(part, block)| (block, part))
            .collect()
    }
}

/// What lies on a medium.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Stored {
    pub(super) data: Vec<u8>,
    pub(super) metadata: Vec<u8>,
}

impl Stored {
    /// Data and metadata of `blocks` blocks, one behind the other; behind them there may be more.
    pub(super) fn split(mut bytes: Vec<u8>, tuples: &Tuples, blocks: u64) -> anyhow::Result<Self> {
        let (data, metadata) = (index(blocks * tuples.block), index(blocks * tuples.metadata));
        ensure!(bytes.len() >= data + metadata, "{} bytes are too few", bytes.len());
        bytes.truncate(data + metadata);
        let metadata = bytes.split_off(data);
        Ok(Self { data: bytes, metadata })
    }

    /// Each block with its metadata behind it.
    pub(super) fn interleaved(&self, tuples: &Tuples) -> Vec<u8> {
        let blocks = self.data.chunks(index(tuples.block));
        let each = blocks.zip(self.metadata.chunks(index(tuples.metadata)));
        each.flat_map(|(block, metadata)| [block, metadata].concat()).collect()
    }

    /// The same back.
    pub(super) fn of_interleaved(bytes: &[u8], tuples: &Tuples) -> Self {
        let mut stored = Self { data: Vec::new(), metadata: Vec::new() };
        for block in bytes.chunks(index(tuples.block + tuples.metadata)) {
            let (data, metadata) = block.split_at(index(tuples.block));
            stored.data.extend(data);
            stored.metadata.extend(metadata);
        }
        stored
    }

    /// One behind the other.
    pub(super) fn joined(&self) -> Vec<u8> {
        [self.data.as_slice(), &self.metadata].concat()
    }

    /// The same with a bit flipped for every fault.
    pub(super) fn damaged(&self, tuples: &Tuples, faults: &[(u64, Spot)]) -> Self {
        let mut damaged = self.clone();
        for &(block, part) in faults {
            match tuples.byte(part) {
                Some(byte) => damaged.metadata[index(block * tuples.metadata + byte)] ^= 0x10,
                None => damaged.data[index(block * tuples.block + 99)] ^= 0x10,
            }
        }
        damaged
    }
}

/// How the bytes lie in files for `steadfast dif`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Layout {
    /// As qemu keeps a namespace.
    Nvme,
    /// In two files.
    Separate,
    /// Each block with its metadata behind it.
    Interleaved,
}

impl Layout {
    /// Writes `stored` to files, and names them.
    fn save(self, lab: &Lab<'_>, tuples: &Tuples, stored: &Stored) -> anyhow::Result<Vec<String>> {
        let (image, metadata) = (lab.path("image"), lab.path("metadata"));
        let words = match self {
            Self::Nvme => {
                std::fs::write(&image, stored.joined())?;
                vec![text(&image)?.to_owned(), "--layout".into(), "nvme-qemu".into()]
            }
            Self::Interleaved => {
                std::fs::write(&image, stored.interleaved(tuples))?;
                vec![text(&image)?.to_owned()]
            }
            Self::Separate => {
                std::fs::write(&image, &stored.data)?;
                std::fs::write(&metadata, &stored.metadata)?;
                let names = [text(&image)?, "--metadata-file", text(&metadata)?];
                names.map(str::to_owned).into()
            }
        };
        Ok(words)
    }

    /// `steadfast dif verify`: the blocks that it names, and which tag disagrees. Escapes are faults:
    /// all of it was written.
    ///
    /// # Errors
    /// If it does not look at every block, or ends otherwise than it says.
    pub(super) fn verify(
        self,
        lab: &Lab<'_>,
        tuples: &Tuples,
        stored: &Stored,
        application: Option<&str>,
    ) -> anyhow::Result<BTreeMap<u64, String>> {
        let mut words = self.save(lab, tuples, stored)?;
        words.extend(["--no-escapes", "--json"].map(str::to_owned));
        words.extend(application.iter().flat_map(|tag| ["--app-tag".into(), (*tag).to_owned()]));
        let said = dif(lab, "verify", tuples, &words)?.ended_within(&[0, 2])?;
        let object = said.object()?;
        let blocks = stored.data.len() / index(tuples.block);
        ensure!(object["checked"].as_u64() == u64::try_from(blocks).ok(), "{object}");
        let mut bad = BTreeMap::new();
        for finding in object["bad"].as_array().context("a list of bad intervals")? {
            let block = finding["block"].as_u64().with_context(|| finding.to_string())?;
            bad.insert(block, finding["tag"].as_str().unwrap_or("unreadable").to_owned());
        }
        said.ended(if bad.is_empty() { 0 } else { 2 })?;
        Ok(bad)
    }

    /// `data` with tuples of ours: by `steadfast dif insert`; then its metadata is overwritten, and its
    /// tuples are made anew by `generate`, which keeps what lies beside them.
    ///
    /// # Errors
    /// If one of them fails, or they disagree.
    pub(super) fn made(
        self,
        lab: &Lab<'_>,
        tuples: &Tuples,
        data: &[u8],
    ) -> anyhow::Result<Stored> {
        let (from, out, metadata) = (lab.path("data"), lab.path("out"), lab.path("out-metadata"));
        let (from, out, metadata) = (text(&from)?, text(&out)?, text(&metadata)?);
        std::fs::write(from, data)?;
        let common = ["--yes", "--app-tag", APPLICATION, "--out", out];
        let layout = match self {
            Self::Nvme => ["--layout", "nvme-qemu"],
            Self::Interleaved => ["--layout", "interleaved"],
            Self::Separate => ["--metadata-file", metadata],
        };
        let words = [[from].as_slice(), &layout, &common].concat();
        dif(lab, "insert", tuples, &words)?.ended(0)?;
        let blocks = u64::try_from(data.len())? / tuples.block;
        let load = || -> anyhow::Result<Stored> {
            match self {
                Self::Nvme => Stored::split(std::fs::read(out)?, tuples, blocks),
                Self::Interleaved => Ok(Stored::of_interleaved(&std::fs::read(out)?, tuples)),
                Self::Separate => {
                    Ok(Stored { data: std::fs::read(out)?, metadata: std::fs::read(metadata)? })
                }
            }
        };
        let inserted = load()?;
        ensure!(inserted.data == data, "insert changed the data");
        let mut other = inserted.clone();
        for (byte, at) in other.metadata.iter_mut().zip((0_u8..=250).cycle()) {
            *byte ^= at | 1;
        }
        let mut words = self.save(lab, tuples, &other)?;
        words.extend(common.map(str::to_owned));
        dif(lab, "generate", tuples, &words)?.ended(0)?;
        let generated = match self {
            Self::Nvme | Self::Interleaved => load()?,
            // Of separate files the metadata is all that is written.
            Self::Separate => Stored { data: data.to_vec(), metadata: std::fs::read(out)? },
        };
        ensure!(
            !tuples.is_bare() || generated == inserted,
            "insert and generate make other tuples"
        );
        ensure!(generated.data == data, "generate changed the data");
        Ok(generated)
    }
}

/// `steadfast dif VERB`.
fn dif(
    lab: &Lab<'_>,
    verb: &str,
    tuples: &Tuples,
    words: &[impl AsRef<str>],
) -> anyhow::Result<Said> {
    let format = tuples.arguments();
    let words = words.iter().map(AsRef::as_ref).chain(format.iter().map(String::as_str));
    lab.program.run("dif", std::iter::once(verb).chain(words))
}

/// The application tag of what we make.
pub(super) const APPLICATION: &str = "0x1234";

#[cfg(test)]
mod tests {
    use super::*;

    const SPOTS: [Spot; 4] = [Spot::Owner, Spot::Guard, Spot::Application, Spot::Reference];

    #[test]
    fn tags_lie_where_the_layouts_of_the_specification_have_them() {
        let last = Tuples { kind: 1, guard: "crc64", block: 4096, metadata: 64, first: false };
        let bytes = |tuples: Tuples| SPOTS.map(|spot| tuples.byte(spot));
        assert_eq!(bytes(last), [Some(47), Some(48), Some(56), Some(63)]);
        assert_eq!(bytes(Tuples { first: true, ..last }), [Some(16), Some(0), Some(8), Some(15)]);
        let bare = Tuples { guard: "ip", block: 512, metadata: 8, ..last };
        assert_eq!(bytes(bare), [None, Some(0), Some(2), Some(7)]);
    }

    #[test]
    fn nobody_vouches_for_bytes_behind_a_tuple_nor_for_tags_of_reference_of_type_3() {
        let tuples = Tuples { kind: 3, guard: "crc16", block: 512, metadata: 16, first: true };
        let faults = tuples.faults_from(0);
        assert_eq!(faults.len(), 5);
        let bad = |compared| tuples.bad(&faults, compared).into_values().collect::<Vec<_>>();
        assert_eq!(bad(false), ["guard", "guard"]);
        assert_eq!(bad(true), ["guard", "guard", "app"]);
    }

    #[test]
    fn interleaved_blocks_come_apart_again() {
        let tuples = Tuples { kind: 1, guard: "crc16", block: 512, metadata: 8, first: false };
        let stored = Stored { data: vec![1; 1024], metadata: (0..16).collect() };
        let bytes = stored.interleaved(&tuples);
        assert_eq!((bytes.len(), &bytes[512..520]), (1040, &[0, 1, 2, 3, 4, 5, 6, 7][..]));
        assert_eq!(Stored::of_interleaved(&bytes, &tuples), stored);
    }
}
