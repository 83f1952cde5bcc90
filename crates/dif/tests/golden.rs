//! What the kernel's driver and QEMU's NVMe controller wrote, verified here: guards, tags and layout of an
//! implementation that is not ours, and the blocks that were made wrong on purpose, by name.

#![allow(clippy::unwrap_used, reason = "a test")]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use steadfast_dif::{
    Checks, Format, Guard, Mismatch, Place, Profile, Protection, ProtectionType, Tag, Tuple,
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden")
}

/// A namespace with protection information, as its backing file has it.
struct Namespace {
    entry: Value,
    profile: Profile,
    blocks: usize,
    image: Vec<u8>,
}

/// An option of the device in the command that made it.
fn option(command: &str, name: &str) -> Option<usize> {
    let value =
        command.split([',', ' ']).find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.parse().unwrap())
}

fn entries() -> Vec<Value> {
    let text = std::fs::read_to_string(folder().join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let entries = manifest["entries"].as_array().unwrap().iter();
    entries.filter(|entry| entry["family"] == "nvme-pi").cloned().collect()
}

impl Namespace {
    /// None of a namespace without protection information.
    fn open(entry: Value) -> Option<Self> {
        let command = entry["format_cmd"].as_str().unwrap();
        let number = |name| option(command, name);
        let kind = ProtectionType::from_number(number("pi")?.try_into().unwrap())?;
        let guard = match number("pif").unwrap_or(0) {
            0 => Guard::Crc16,
            2 => Guard::Crc64,
            other => panic!("format {other}"),
        };
        let place = if number("pil").unwrap_or(0) == 1 { Place::First } else { Place::Last };
        let format = Format::new(guard, number("logical_block_size")?).unwrap();
        let format = format.with_metadata(number("ms")?, place).unwrap();
        let name = entry["files"][0]["file"].as_str().unwrap();
        let raw = Command::new("zstd").arg("-dcq").arg(folder().join(name)).output().unwrap();
        assert!(raw.status.success(), "zstd decompresses {name}");
        let blocks = raw.stdout.len() / format.stride();
        Some(Self { entry, profile: Profile { format, kind }, blocks, image: raw.stdout })
    }

    fn all() -> Vec<Self> {
        entries().into_iter().filter_map(Self::open).collect()
    }

    fn name(&self) -> &str {
        self.entry["name"].as_str().unwrap()
    }

    fn data(&self) -> &[u8] {
        &self.image[..self.blocks * self.profile.format.interval()]
    }

    fn metadata(&self) -> &[u8] {
        let (at, format) = (self.data().len(), &self.profile.format);
        &self.image[at..at + self.blocks * format.metadata()]
    }

    /// Data and metadata of block `index`.
    fn block(&self, index: usize) -> (&[u8], &[u8]) {
        let (interval, metadata) = (self.profile.format.interval(), self.profile.format.metadata());
        (
            &self.data()[index * interval..][..interval],
            &self.metadata()[index * metadata..][..metadata],
        )
    }

    fn tuple(&self, index: usize) -> Tuple {
        let format = &self.profile.format;
        let bytes = &self.block(index).1[format.tuple_offset()..][..format.tuple_bytes()];
        Tuple::decode(format, bytes)
    }

    fn is_untouched(&self, index: usize) -> bool {
        let (data, metadata) = self.block(index);
        data.iter().chain(metadata).all(|byte| *byte == 0)
    }

    /// What verifying the blocks that were written tells.
    fn told(&self) -> Vec<Mismatch> {
        let mut told = Vec::new();
        for index in (0..self.blocks).filter(|index| !self.is_untouched(*index)) {
            let (data, metadata) = self.block(index);
            let protection = Protection::at(self.profile, index.try_into().unwrap());
            // Nobody gave an application tag: the driver writes 0.
            let expected = protection.expected().with_application(0);
            let protection = Protection::new(self.profile, expected, Checks::ALL).unwrap();
            protection.verify_each([data], [metadata], |found| told.push(found));
        }
        told
    }
}

/// The generator `sm64` of the manifest with seed 1.
fn sm1(length: usize) -> Vec<u8> {
    let words = (1_u64..).take(length / 8).flat_map(|count| {
        let mut state = 1_u64.wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        state = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ state >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (state ^ state >> 31).to_le_bytes()
    });
    words.collect()
}

#[test]
fn there_are_namespaces_of_both_guards_and_of_types_one_and_three() {
    let namespaces = Namespace::all();
    let with = |guard, kind| {
        let is_one = |profile: &Profile| profile.format.guard() == guard && profile.kind == kind;
        namespaces.iter().filter(|namespace| is_one(&namespace.profile)).count()
    };
    assert_eq!(with(Guard::Crc16, ProtectionType::One), 3);
    assert_eq!(with(Guard::Crc16, ProtectionType::Three), 1);
    assert_eq!(with(Guard::Crc64, ProtectionType::One), 1);
}

#[test]
fn every_block_that_was_written_verifies_but_for_those_made_wrong_and_they_are_named() {
    for namespace in Namespace::all() {
        let mut expected = Vec::new();
        for wrong in namespace.entry["wrong"].as_array().unwrap() {
            let block = wrong["block"].as_u64().unwrap();
            let (tag, ought) = match wrong["tag"].as_str().unwrap() {
                "reference tag" => (Tag::Reference, wrong["expected"].as_u64().unwrap()),
                // The same data as block 0, whose guard the driver made.
                "guard tag" => (Tag::Guard, namespace.tuple(0).guard),
                other => panic!("{other}"),
            };
            expected.push((tag, block, wrong["stored"].as_u64().unwrap(), ought));
        }
        let told: Vec<_> = namespace
            .told()
            .iter()
            .map(|found| (found.tag, found.address, found.stored, found.expected))
            .collect();
        assert_eq!(told, expected, "{}", namespace.name());
    }
}

#[test]
fn what_was_written_is_where_it_was_written() {
    for namespace in Namespace::all() {
        let interval = namespace.profile.format.interval();
        let mut data = sm1(64 * 4096);
        let first = data[..interval].to_vec();
        for block in 100..103 {
            let at = block * interval;
            if namespace.is_untouched(block) {
                continue;
            }
            data.resize(data.len().max(at + interval), 0);
            data[at..at + interval].copy_from_slice(&first);
        }
        let (written, rest) = namespace.data().split_at(data.len());
        assert!(written == data, "{}", namespace.name());
        assert!(rest.iter().all(|byte| *byte == 0), "{}", namespace.name());
    }
}

#[test]
fn every_tuple_that_was_written_is_made_here_byte_for_byte() {
    for namespace in Namespace::all() {
        let format = &namespace.profile.format;
        let written = 64 * 4096 / format.interval();
        for index in (0..written).filter(|index| !(101..103).contains(index)) {
            let (data, metadata) = namespace.block(index);
            let mut made = metadata.to_vec();
            made[format.tuple_offset()..][..format.tuple_bytes()].fill(0);
            // The driver gives 0 as the reference of type 3; block 100 was given its address by hand.
            let is_counted = namespace.profile.kind.counts() || index == 100;
            let reference = if is_counted { index.try_into().unwrap() } else { 0 };
            Protection::at(namespace.profile, reference).generate([data], [&mut made[..]]);
            assert_eq!(made, metadata, "{} block {index}", namespace.name());
        }
    }
}

#[test]
fn blocks_that_were_never_written_hold_zeroes_which_are_no_escape() {
    // A controller answers for deallocated blocks with all ones, which pass; the image does not have those. Who reads
    // the image itself has to know that a block of zeroes with a tuple of zeroes was never written.
    for namespace in Namespace::all() {
        let last = namespace.blocks - 1;
        assert!(namespace.is_untouched(last), "{}", namespace.name());
        let (data, metadata) = namespace.block(last);
        let address = last.try_into().unwrap();
        let verdict = Protection::at(namespace.profile, address).verify([data], [metadata]);
        let tag = verdict.err().map(|found| found.tag);
        let expected = match (namespace.profile.format.guard(), namespace.profile.kind) {
            // The CRC of zeroes is 0: only the place tells, and type 3 has none.
            (Guard::Crc16, ProtectionType::Three) => None,
            (Guard::Crc16, _) => Some(Tag::Reference),
            _ => Some(Tag::Guard),
        };
        assert_eq!(tag, expected, "{}", namespace.name());
    }
}
