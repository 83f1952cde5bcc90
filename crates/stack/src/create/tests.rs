use super::write::{Target, write};
use super::*;
use crate::test_device::TestDevice;
use crate::verdict::{Fault, Verdict};
use integrity::layout::DeviceSectors;
use md::superblock::{Minor, ResyncOffset, Superblock};
use std::path::Path;
use std::process::Command;
use units::{BlockSize, Sector, usize_of};

fn identity(members: u8) -> Identity {
    Identity {
        set_uuid: [0x5f; 16],
        device_uuids: (1..=members).map(|n| [n; 16]).collect(),
        salts: (1..=members).map(|n| [0xa0 + n; 16]).collect(),
        seconds: 1_700_000_000,
    }
}

fn options(level: CreateLevel, members: u8) -> CreateOptions {
    let member = |n: u8| Member::Path(format!("m{n}.img").into());
    CreateOptions::new((0..members).map(member).collect(), level)
}

/// Makes the volume on devices full of noise and gives their bytes.
fn make(options: &CreateOptions, sectors: u64) -> (Plan, Vec<Vec<u8>>) {
    let count = u8::try_from(options.devices().count()).unwrap();
    let sizes = vec![DeviceSectors::Interleaved(sectors); count.into()];
    let plan = plan(options, &sizes, &identity(count)).unwrap();
    let disks: Vec<TestDevice> = (0..count)
        .map(|n| {
            let noise = crate::test_device::noise(usize_of(sectors) * 512, u64::from(n));
            TestDevice::of(noise, BlockSize::B512)
        })
        .collect();
    let targets: Vec<Target> = disks
        .iter()
        .map(|disk| Target { device: disk.device(), blank: false, data: None })
        .collect();
    let cloned = plan.clone();
    let (last, total) = runtime::block_on(async move {
        let mut seen = CreateProgress { done: 0, total: 0 };
        write(&cloned, &targets, &mut |progress| seen = *progress).await.ok().unwrap();
        (seen.done, seen.total)
    });
    assert_eq!(last, total, "progress ends at its total");
    (plan, disks.iter().map(TestDevice::bytes).collect())
}

/// Every tag of the volume fits, and gives the content back.
fn content(image: &[u8]) -> Vec<u8> {
    let superblock = integrity::Superblock::decode(image).unwrap();
    let sectors = units::u64_of(image.len()) / 512;
    let layout = Layout::of(&superblock, DeviceSectors::Interleaved(sectors)).unwrap();
    let tagger = checksum::BlockTagger::new(
        checksum::Algorithm::Crc32c,
        None,
        superblock.hashed_salt(),
        superblock.block,
    )
    .unwrap()
    .with_tag_bytes(layout.tag_bytes);
    let mut content = Vec::new();
    for run in layout.runs(Sector::ZERO, layout.provided_sectors) {
        let data = &image[usize_of(run.data.bytes())..][..usize_of(run.sectors) * 512];
        let tags = usize_of(run.sectors / layout.block.sectors()) * layout.tag_bytes;
        let tags = &image[usize_of(run.tag_byte)..][..tags];
        assert_eq!(tagger.verify(run.sector.0, data, tags), None, "run at {}", run.sector);
        content.extend_from_slice(data);
    }
    content
}

use integrity::Layout;

#[test]
fn every_block_of_a_new_volume_has_the_tag_of_zeroes() {
    for (sector_size, tag_size, interleave) in
        [(512, None, None), (4096, None, None), (4096, Some(3), Some(1024)), (512, Some(8), None)]
    {
        let options = CreateOptions {
            sector_size,
            tag_size,
            interleave_sectors: interleave,
            ..options(CreateLevel::None, 1)
        };
        let (plan, images) = make(&options, 40_000);
        let content = content(&images[0]);
        assert_eq!(units::u64_of(content.len()), plan.sectors * 512);
        assert!(content.iter().all(|&byte| byte == 0));
    }
}

#[test]
fn the_worked_example_lies_where_the_specification_says() {
    let options = CreateOptions { sector_size: 512, ..options(CreateLevel::None, 1) };
    let (plan, images) = make(&options, 131_072);
    assert_eq!(plan.sectors, 129_160);
    let start = [0x69, 0x6e, 0x74, 0x65, 0x67, 0x72, 0x74, 0, 5, 15, 4, 0, 5, 0, 0, 0];
    assert_eq!(images[0][..16], start);
    assert!(images[0][64..4096].iter().all(|&byte| byte == 0));
    let journal = plan.writes().find(|write| write.kind == WriteKind::Journal).unwrap();
    assert_eq!((journal.byte, journal.bytes), (4096, 454_656 - 4096));
    let tags = plan.writes().find(|write| write.kind == WriteKind::ZeroTags).unwrap();
    assert_eq!((tags.byte, tags.bytes), (454_656, 129_160 * 4));
}

#[test]
fn an_array_over_integrity_is_clean_in_sync_and_verifies() {
    for level in [CreateLevel::Raid1, CreateLevel::Raid5, CreateLevel::Raid6] {
        let (plan, images) = make(&options(level, 4), 40_000);
        assert!(!plan.dirty);
        for (n, image) in images.iter().enumerate() {
            let inner = content(image);
            let sectors = units::u64_of(inner.len()) / 512;
            let superblock = Superblock::decode(&inner[4096..8192], Minor::V2, sectors).unwrap();
            superblock.validate(sectors).unwrap();
            assert_eq!(superblock.resync(), ResyncOffset::Clean);
            assert_eq!(usize_of(superblock.dev_number().into()), n);
            has_clean_bitmap(&superblock, &inner[8192..12288]);
            let rest = inner[..4096].iter().chain(&inner[12288..]);
            assert!(rest.copied().all(|byte| byte == 0), "nothing else is written");
        }
    }
}

#[test]
fn a_bare_array_is_a_superblock_and_zeroes() {
    let options = CreateOptions { integrity: None, ..options(CreateLevel::Raid5, 3) };
    let (plan, images) = make(&options, 40_000);
    assert_eq!(plan.sectors % 128, 0);
    for image in &images {
        let superblock = Superblock::decode(&image[4096..8192], Minor::V2, 40_000).unwrap();
        assert_eq!(superblock.chunk_sectors(), 128);
        has_clean_bitmap(&superblock, &image[8192..12288]);
        assert!(image[..4096].iter().chain(&image[12288..]).all(|&byte| byte == 0));
    }
}

/// By default, and behind the superblock.
fn has_clean_bitmap(superblock: &Superblock, area: &[u8]) {
    assert_eq!(superblock.bitmap_sector(), Some(Sector(16)));
    let bitmap = md::bitmap::Bitmap::decode(area.to_vec()).unwrap();
    assert_eq!((bitmap.header().believe(superblock), bitmap.dirty_count()), (Ok(()), 0));
}

#[test]
fn without_wiping_the_data_stays_and_a_mirror_is_dirty() {
    let options = CreateOptions { no_wipe: true, ..options(CreateLevel::Raid1, 2) };
    let (plan, images) = make(&options, 40_000);
    assert!(plan.dirty);
    let before = crate::test_device::noise(40_000 * 512, 0);
    let end = usize_of(39_000 * 512);
    assert!(images[0][end..end + 4096] == before[end..end + 4096]);

    let options = CreateOptions { no_wipe: true, ..options_raid(CreateLevel::Raid6) };
    let refused = plan_error(&options);
    assert!(matches!(refused, CreateError::NoWipeWithParity), "{refused}");
    assert_eq!(refused.verdict(), Verdict::Refused);
}

fn options_raid(level: CreateLevel) -> CreateOptions {
    options(level, 6)
}

fn plan_error(options: &CreateOptions) -> CreateError {
    let count = u8::try_from(options.devices().count()).unwrap();
    plan(options, &vec![DeviceSectors::Interleaved(40_000); usize::from(count)], &identity(count))
        .unwrap_err()
}

fn above(name: &str, options: CreateOptions) -> CreateOptions {
    CreateOptions { integrity: Some(name.parse().unwrap()), ..options }
}

fn journalled(options: CreateOptions) -> CreateOptions {
    let write_journal = Some(Member::Path("journal.img".into()));
    CreateOptions { write_journal, bitmap: CreateBitmap::None, ..options }
}

#[test]
fn a_write_journal_is_blank_and_protected_as_the_members_are() {
    for integrity in [None, Some(TagSource::Hash(Algorithm::Crc32c))] {
        let options = CreateOptions { integrity, ..journalled(options(CreateLevel::Raid5, 3)) };
        let (plan, images) = make(&options, 40_000);
        let named: Vec<&str> = plan
            .writes()
            .filter(|write| write.kind == WriteKind::WriteJournal)
            .map(|write| write.member.as_str())
            .collect();
        assert_eq!(named, ["journal.img"]);
        let inner: Vec<Vec<u8>> = match integrity {
            None => images,
            Some(_) => images.iter().map(|image| content(image)).collect(),
        };
        let decode = |image: &Vec<u8>| {
            let sectors = units::u64_of(image.len()) / 512;
            Superblock::decode(&image[4096..8192], Minor::V2, sectors).unwrap()
        };
        let superblocks: Vec<Superblock> = inner.iter().map(decode).collect();
        let candidates = superblocks.iter().zip(&inner).map(|(superblock, image)| {
            let device_sectors = units::u64_of(image.len()) / 512;
            md::assemble::Candidate { superblock, device_sectors }
        });
        let candidates: Vec<md::assemble::Candidate<'_>> = candidates.collect();
        let assembly = md::assemble::assemble(&candidates).unwrap();
        assert_eq!((&assembly.journals[..], assembly.missing_count()), (&[3][..], 0));
        assert_eq!(assembly.cannot_start, []);
        let [.., journal] = &superblocks[..] else { panic!("four of them") };
        let ring = usize_of(journal.data_offset().bytes());
        let (first, rest) = inner[3][ring..].split_at(md::journal::BLOCK_BYTES);
        let seed = md::journal::Seed::of(journal.set_uuid());
        let block = md::journal::Block::decode(first, seed).unwrap();
        assert_eq!((block.position, block.payloads), (0, Vec::new()));
        assert!(rest.iter().all(|&byte| byte == 0), "nothing of another life follows it");
        let data = usize_of(superblocks[0].data_offset().bytes());
        assert!(inner[..3].iter().all(|image| image[data..].iter().all(|&byte| byte == 0)));
    }
}

#[test]
fn a_journal_device_that_is_too_small_is_named() {
    let options = journalled(CreateOptions { integrity: None, ..options_raid(CreateLevel::Raid6) });
    let mut sizes = vec![DeviceSectors::Interleaved(40_000); 7];
    sizes[6] = DeviceSectors::Interleaved(3000);
    let error = plan(&options, &sizes, &identity(7)).unwrap_err();
    assert_eq!(error.member(), Some("journal.img"));
    let expected = "journal.img: the journal device has 3000 sectors, expected at least 4096";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let base = options_raid(CreateLevel::Raid6);
    for (options, text) in [
        (CreateOptions { chunk_bytes: 2048, ..base.clone() }, "--chunk is 2048"),
        (CreateOptions { chunk_bytes: 2 << 20, ..base.clone() }, "--chunk is 2097152"),
        (CreateOptions { sector_size: 520, ..base.clone() }, "--sector-size is 520"),
        (CreateOptions { interleave_sectors: Some(4), ..base.clone() }, "--interleave-sectors"),
        (options(CreateLevel::None, 2), "only one"),
        (options(CreateLevel::Raid6, 3), "raid6 needs at least 4"),
        (CreateOptions { integrity: None, ..options(CreateLevel::None, 1) }, "makes nothing"),
        (CreateOptions { name: Some("x".repeat(33)), ..base.clone() }, "33 bytes"),
        (CreateOptions { tag_size: Some(0), ..base.clone() }, "tag of 0 bytes"),
        (CreateOptions { tag_size: Some(500), ..base.clone() }, "tag of 500 bytes"),
        (above("opaque", base.clone()), "--tag-size"),
        (
            above("t10-dif-type1-ip", CreateOptions { tag_size: Some(16), ..base.clone() }),
            "tuples of 8 bytes",
        ),
        (
            above("t10-dif-type1-ip", CreateOptions { inline: true, ..base.clone() }),
            "--mode inline",
        ),
        (journalled(options(CreateLevel::Raid1, 2)), "4, 5 and 6, not for raid1"),
        (journalled(options(CreateLevel::None, 1)), "not for no array"),
        (
            CreateOptions {
                bitmap: CreateBitmap::Internal { chunk_bytes: None },
                ..journalled(base.clone())
            },
            "or a write-intent bitmap, not both",
        ),
        (
            CreateOptions {
                bitmap: CreateBitmap::PartialParity,
                ..journalled(options(CreateLevel::Raid5, 3))
            },
            "or a partial parity log, not both",
        ),
        (above("t10-dif-type1-ip", journalled(base)), "or tuples beside each block, not both"),
    ] {
        let error = plan_error(&options).to_string();
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn too_small_members_are_named() {
    let options = options_raid(CreateLevel::Raid6);
    for sectors in [0, 1, 8, 100, 1000, 2500] {
        let mut sizes = vec![DeviceSectors::Interleaved(40_000); 6];
        sizes[4] = DeviceSectors::Interleaved(sectors);
        let error = plan(&options, &sizes, &identity(6)).unwrap_err();
        assert_eq!(error.member(), Some("m4.img"), "{sectors} sectors: {error}");
    }
}

#[test]
fn the_tools_of_the_format_accept_what_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("member.img");
    for (sector_size, interleave, tag_size) in
        [(512, None, None), (4096, None, None), (4096, Some(2048), Some(3))]
    {
        let options = CreateOptions {
            sector_size,
            interleave_sectors: interleave,
            tag_size,
            ..options(CreateLevel::None, 1)
        };
        let (_, images) = make(&options, 131_072);
        std::fs::write(&file, &images[0]).unwrap();
        let dump = run("integritysetup", "cryptsetup-bin", &["dump"], &file);
        let superblock = integrity::Superblock::decode(&images[0]).unwrap();
        let fields = integrity::explain::fields(&superblock);
        // The tool prints everything but the salt.
        for (name, value) in fields.into_iter().filter(|(name, _)| *name != "salt") {
            let line = dump.lines().find(|line| line.split_whitespace().next() == Some(name));
            let found = line.unwrap_or_else(|| panic!("{name} in {dump}"));
            assert_eq!(found[name.len()..].trim(), value.trim(), "{name}");
        }
    }
    for (level, name) in [
        (CreateLevel::Raid1, "raid1"),
        (CreateLevel::Raid5, "raid5"),
        (CreateLevel::Raid6, "raid6"),
    ] {
        let options =
            CreateOptions { integrity: None, name: Some("vault".into()), ..options(level, 4) };
        let (plan, images) = make(&options, 131_072);
        std::fs::write(&file, &images[2]).unwrap();
        let examined = run("mdadm", "mdadm", &["--examine"], &file);
        let uuid = plan.uuid.clone().unwrap();
        for (field, value) in [
            ("Version", "1.2"),
            ("Feature Map", "0x1"),
            ("Array UUID", uuid.as_str()),
            ("Name", "vault"),
            ("Raid Level", name),
            ("Raid Devices", "4"),
            ("State", "clean"),
            ("Super Offset", "8 sectors"),
            ("Events", "0"),
            ("Device Role", "Active device 2"),
            ("Array State", "AAAA ('A' == active, '.' == missing, 'R' == replacing)"),
        ] {
            let line = examined.lines().find_map(|line| {
                let (found, value) = line.split_once(" : ")?;
                (found.trim() == field).then(|| value.trim().to_owned())
            });
            assert_eq!(line.as_deref(), Some(value), "{field} in {examined}");
        }
        assert!(examined.contains("- correct"), "{examined}");
        if level != CreateLevel::Raid1 {
            assert!(examined.contains("left-symmetric"), "{examined}");
            assert!(examined.contains("Chunk Size : 64K"), "{examined}");
        }
    }
}

fn run(tool: &str, package: &str, arguments: &[&str], file: &Path) -> String {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(tool).env("PATH", path).args(arguments).arg(file).output();
    let output = output.unwrap_or_else(|error| {
        panic!("{tool}: {error}; install the Debian package {package}");
    });
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} refused it: {text}{errors}");
    text
}
