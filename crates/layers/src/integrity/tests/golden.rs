//! Images of the real kernel, through the layer.

use super::*;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;

struct Golden {
    name: String,
    expected: String,
    algorithm: Algorithm,
    image: Vec<u8>,
}

fn images() -> Vec<Golden> {
    let names = [
        "crc32c-4k",
        "crc32c-4k-j1m",
        "crc32c-512",
        "crc32c-512+partreplayed",
        "crc32c-512-j1m",
        "crc32c-512-j1m+unreplayed",
        "crc32-512",
        "crc32c-512-bitmap",
        "crc32c-512-nojournal",
        "hmac-sha256-4k",
        "hmac-sha256-512-legacyhmac",
        "sha256-512+unreplayed",
        "xxhash64-512",
    ];
    names.into_iter().map(|name| image(name).0).collect()
}

/// An image with its entry of the manifest.
fn image(name: &str) -> (Golden, serde_json::Value) {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden");
    let text = std::fs::read_to_string(folder.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    let entries = manifest["entries"].as_array().unwrap();
    let entry = entries.iter().find(|entry| entry["name"] == name).unwrap();
    let file = folder.join(entry["files"][0]["file"].as_str().unwrap());
    let raw = Command::new("zstd").arg("-dcq").arg(file).output().unwrap();
    assert!(raw.status.success());
    let expected = entry["expect_sha256"].as_str().unwrap_or_default().to_owned();
    // An image's name holds that of its algorithm; that of crc32c holds crc32 too.
    let named = Algorithm::ALL.iter().filter(|algorithm| name.contains(algorithm.name()));
    let algorithm = *named.max_by_key(|algorithm| algorithm.name().len()).unwrap();
    let golden = Golden { name: name.to_owned(), expected, algorithm, image: raw.stdout };
    (golden, entry.clone())
}

impl Golden {
    fn options(&self) -> Options {
        // The manifest's `/k.hmac`.
        let key = self.algorithm.is_keyed().then(|| (0..32).collect::<Vec<u8>>());
        let integrity_key = key.map(|key| checksum::Key::new(key).unwrap());
        Options { integrity_key, ..Options::new(self.algorithm, Events::none()) }
    }
}

async fn digest_of(device: &Device) -> String {
    let mut hasher = Sha256::new();
    let total = device.limits().sectors;
    for at in (0..total).step_by(2048) {
        hasher.update(read(device, at, 2048.min(total - at)).await.unwrap());
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_read_only_volume_gives_the_kernels_content_and_touches_nothing() {
    for golden in images() {
        runtime::block_on(async move {
            let disk = Disk::holding(golden.image.clone());
            let options = golden.options().read_only();
            let volume = Integrity::open(disk.device(), options).await.unwrap();
            let device = volume.device();
            assert_eq!(digest_of(&device).await, golden.expected, "{}", golden.name);
            device.flush().await.unwrap();
            volume.close().await.unwrap();
            assert!(disk.content() == golden.image, "{} is untouched", golden.name);
        });
    }
}

#[test]
fn a_writable_volume_replays_and_gives_the_same_content() {
    for golden in images() {
        runtime::block_on(async move {
            let disk = Disk::holding(golden.image.clone());
            let volume = Integrity::open(disk.device(), golden.options()).await.unwrap();
            assert_eq!(digest_of(&volume.device()).await, golden.expected, "{}", golden.name);
            volume.close().await.unwrap();
            // Now everything is home: without the journal the content is the same.
            let options = golden.options().read_only();
            let volume = Integrity::open(disk.device(), options).await.unwrap();
            assert_eq!(digest_of(&volume.device()).await, golden.expected, "{}", golden.name);
        });
    }
}

#[test]
fn a_flipped_bit_makes_exactly_its_block_unreadable_as_for_the_kernel() {
    // The manifest's corruption tests: image byte and the plaintext bytes that are lost.
    let cases = [("crc32c-512", 227_940, 5, 1), ("crc32c-4k", 223_844, 0, 8)];
    for golden in images() {
        let Some(&(_, byte, bad, sectors)) = cases.iter().find(|case| case.0 == golden.name) else {
            continue;
        };
        runtime::block_on(async move {
            let disk = Disk::holding(golden.image);
            disk.flip(byte, 1);
            let (options, heard) = listening();
            let volume = Integrity::open(disk.device(), options).await.unwrap();
            let device = volume.device();
            let error = device.read(Sector(0), 64).await.unwrap_err();
            assert_eq!(error, bio::IoErrorKind::Protection.at(Sector(bad)));
            for at in (0..64).step_by(usize_of(sectors)) {
                assert_eq!(read(&device, at, sectors).await.is_err(), at == bad, "sector {at}");
            }
            assert_eq!(heard.borrow().len(), 1, "told once");
            assert_eq!(heard.borrow()[0].sector, Sector(bad));
        });
    }
}

#[test]
fn a_half_recalculated_volume_gives_what_the_kernel_gives_and_is_finished_when_asked() {
    runtime::block_on(async {
        let (golden, _) = image("recalc-half-crc32c");
        let disk = Disk::holding(golden.image.clone());
        let options = Options { unverified: true, ..golden.options() };
        let volume = Integrity::open(disk.device(), options.read_only()).await.unwrap();
        assert_eq!(volume.recalculated(), Some(Sector(98_304)));
        assert_eq!(digest_of(&volume.device()).await, golden.expected);
        let beyond = volume.layout().provided_sectors - 98_304;
        assert_eq!((volume.unverified(), volume.mismatches()), (beyond, 0));
        assert!(disk.content() == golden.image);
        // Nobody asked for what cannot be verified: it is an error, from there on.
        let volume = Integrity::open(disk.device(), golden.options()).await.unwrap();
        assert!(read(&volume.device(), 0, 98_304).await.is_ok());
        let refused = volume.device().read(Sector(98_304), 8).await.map(drop);
        assert_eq!(refused, Err(bio::IoErrorKind::Protection.at(Sector(98_304))));
        volume.close().await.unwrap();
        let recalculate = super::super::Recalculate::Continue;
        let options = Options { recalculate, ..golden.options() };
        let volume = Integrity::open(disk.device(), options).await.unwrap();
        volume.recalculation_done().await.unwrap();
        volume.close().await.unwrap();
        let volume = Integrity::open(disk.device(), golden.options()).await.unwrap();
        assert_eq!(digest_of(&volume.device()).await, golden.expected);
    });
}

#[test]
fn a_volume_that_was_not_wiped_is_readable_exactly_where_the_kernel_could_read_it() {
    runtime::block_on(async {
        let (golden, entry) = image("crc32c-512-nowipe");
        let disk = Disk::holding(golden.image.clone());
        let volume = Integrity::open(disk.device(), golden.options()).await.unwrap();
        let number = |text: &str| u64::from_str_radix(&text[2..], 16).unwrap() / 512;
        for line in entry["readable"].as_array().unwrap() {
            let words: Vec<&str> = line.as_str().unwrap().split_whitespace().collect();
            let (start, sectors, good) = (number(words[0]), number(words[1]), words[2] == "+");
            for sector in start..start + sectors {
                let found = volume.device().read(Sector(sector), 1).await;
                assert_eq!(found.is_ok(), good, "sector {sector}");
            }
        }
    });
}

#[test]
fn what_is_written_without_a_journal_is_closed_as_the_kernel_closes_it() {
    for (name, mode) in
        [("crc32c-512-bitmap", Mode::Bitmap), ("crc32c-512-nojournal", Mode::Direct)]
    {
        runtime::block_on(async move {
            let (golden, _) = image(name);
            let disk = Disk::holding(golden.image.clone());
            let volume = Integrity::open(disk.device(), in_mode(mode)).await.unwrap();
            let device = volume.device();
            assert_eq!(digest_of(&device).await, golden.expected, "{name}");
            put(&device, 5000, 400, 1).await.unwrap();
            let held = disk.content();
            // Section 7 of the specification: the flag at byte 24, the bits from byte 4096 on.
            assert_eq!(held[24] & 4 != 0, mode == Mode::Bitmap);
            assert_eq!(held[4096] == 1, mode == Mode::Bitmap);
            volume.close().await.unwrap();
            let end = usize_of(volume.layout().initial_sectors * 512);
            assert!(disk.content()[..end] == golden.image[..end], "{name}: superblock, journal");
            assert_holds(&opened(&disk).await.device(), 5000, 400, 1).await;
        });
    }
}

/// The blocks that the layer gives out, and for the others what lies there.
async fn with_what_lies_there(volume: &Rc<Integrity>, disk: &Disk) -> (String, Vec<u64>) {
    let (device, content) = (volume.device(), disk.content());
    let (mut hasher, mut unreadable) = (Sha256::new(), Vec::new());
    for sector in 0..device.limits().sectors {
        let place = usize_of(volume.layout().run(Sector(sector), 1).data.bytes());
        match read(&device, sector, 1).await {
            Ok(block) => hasher.update(block),
            Err(error) => {
                assert_eq!(error, bio::IoErrorKind::Protection.at(Sector(sector)));
                unreadable.push(sector);
                hasher.update(&content[place..place + 512]);
            }
        }
    }
    (hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect(), unreadable)
}

#[test]
fn a_crash_of_the_kernel_in_bitmap_mode_is_read_verified_and_never_blessed() {
    let (golden, _) = image("crc32c-512-bitmap+unclean");
    for mode in [Mode::Bitmap, Mode::Direct, Mode::Journal] {
        let golden = &golden;
        let (image, expected) = (golden.image.clone(), golden.expected.clone());
        runtime::block_on(async move {
            let disk = Disk::holding(image.clone());
            let only = in_mode(mode).read_only();
            let volume = Integrity::open(disk.device(), only).await.unwrap();
            assert_eq!(volume.journal_state(), &crate::integrity::JournalState::Bitmap);
            let (digest, unreadable) = with_what_lies_there(&volume, &disk).await;
            // The kernel takes what lies there for right; here it says what it is.
            assert_eq!(digest, expected);
            assert_eq!(volume.suspect(), [(Sector(0), 32328)]);
            assert!(disk.content() == image);

            let volume = Integrity::open(disk.device(), in_mode(mode)).await.unwrap();
            assert_eq!(with_what_lies_there(&volume, &disk).await.1, unreadable);
            assert_eq!(volume.suspect(), [(Sector(0), 32328)]);
            put(&volume.device(), 0, 32328, 3).await.unwrap();
            volume.close().await.unwrap();
            let volume = opened(&disk).await;
            assert_holds(&volume.device(), 0, 32328, 3).await;
            assert!(!unreadable.is_empty(), "the image shows what it is for");
        });
    }
}

#[test]
fn a_crash_of_the_kernel_without_a_journal_costs_what_it_costs_the_kernel() {
    runtime::block_on(async {
        let (golden, _) = image("crc32c-512-nojournal+unclean");
        let disk = Disk::holding(golden.image);
        let volume = Integrity::open(disk.device(), in_mode(Mode::Direct)).await.unwrap();
        let (_, unreadable) = with_what_lies_there(&volume, &disk).await;
        // The manifest's `unreadable_map`, in sectors.
        let lost = [16..48, 2080..2128];
        assert!(!unreadable.is_empty());
        assert!(unreadable.iter().all(|sector| lost.iter().any(|range| range.contains(sector))));
        volume.close().await.unwrap();
    });
}
