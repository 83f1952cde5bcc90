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
    names.into_iter().map(image).collect()
}

fn image(name: &str) -> Golden {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden");
    let text = std::fs::read_to_string(folder.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    let entries = manifest["entries"].as_array().unwrap();
    let entry = entries.iter().find(|entry| entry["name"] == name).unwrap();
    let file = folder.join(entry["files"][0]["file"].as_str().unwrap());
    let raw = Command::new("zstd").arg("-dcq").arg(file).output().unwrap();
    assert!(raw.status.success());
    let expected = entry["expect_sha256"].as_str().unwrap_or_default().to_owned();
    // An image's name starts with that of its algorithm; crc32 starts crc32c too.
    let named = Algorithm::ALL.iter().filter(|algorithm| name.starts_with(algorithm.name()));
    let algorithm = *named.max_by_key(|algorithm| algorithm.name().len()).unwrap();
    Golden { name: name.to_owned(), expected, algorithm, image: raw.stdout }
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
fn what_is_written_without_a_journal_is_closed_as_the_kernel_closes_it() {
    for (name, mode) in
        [("crc32c-512-bitmap", Mode::Bitmap), ("crc32c-512-nojournal", Mode::Direct)]
    {
        runtime::block_on(async move {
            let golden = image(name);
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
    let golden = image("crc32c-512-bitmap+unclean");
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
            assert_eq!(unreadable.is_empty(), false, "the image shows what it is for");
        });
    }
}

#[test]
fn a_crash_of_the_kernel_without_a_journal_costs_what_it_costs_the_kernel() {
    runtime::block_on(async {
        let golden = image("crc32c-512-nojournal+unclean");
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
