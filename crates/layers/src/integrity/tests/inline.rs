//! Tags in the metadata of the device's blocks.

use super::*;
use crate::fault::{Effect, Fault, Faults, Kind, Rule};
use crate::integrity::{InlineError, JournalChoice, JournalKeys, JournalState, Lower, Recalculate};
use crate::memory::MemoryDevice;
use ::integrity::{Flags, Superblock};
use bio::{EventKind, IoErrorKind, Segments};
use checksum::{BlockTagger, Key};
use proptest::prelude::*;
use std::time::Duration;
use units::u64_of;

const SALT: [u8; 16] = *b"sixteen of salt.";

/// A disk with `tuple` bytes of metadata for each block.
fn disk(sectors: u64, block: u64, tuple: usize) -> Device {
    let block = BlockSize::from_bytes(block).unwrap();
    Device::new(MemoryDevice::with_metadata(sectors, block, tuple))
}

fn inline(block: u64, tag_size: u16) -> FormatOptions {
    let block = BlockSize::from_bytes(block).unwrap();
    FormatOptions { inline: true, ..FormatOptions::new(block, tag_size, SALT) }
}

async fn made_on(disk: &Device, tag_size: u16, wipe: Wipe) -> Superblock {
    let block = u64_of(disk.limits().logical_block.bytes());
    let new = NewVolume::new(inline(block, tag_size), Algorithm::Crc32c, wipe);
    create(disk.clone(), &new, |_, _| {}).await.unwrap().0
}

async fn open(disk: &Device, options: Options) -> Rc<Integrity> {
    Integrity::open(disk.clone(), options).await.unwrap()
}

/// A block of the device, its tuple behind it.
async fn raw(disk: &Device, sector: u64) -> Vec<u8> {
    let limits = disk.limits();
    let mut bio = Bio::read(Sector(sector), limits.logical_block.sectors())
        .tagged(Buf::alloc(limits.tag_size));
    disk.submit(&mut bio).await.unwrap();
    [bio.data.into_single().as_slice(), bio.tags.into_single().as_slice()].concat()
}

async fn put_raw(disk: &Device, sector: u64, bytes: &[u8]) {
    let (data, tuple) = bytes.split_at(disk.limits().logical_block.bytes());
    let mut bio = Bio::write(Sector(sector), Buf::copy_of(data)).tagged(Buf::copy_of(tuple));
    disk.submit(&mut bio).await.unwrap();
}

#[test]
fn every_algorithm_reads_back_what_it_wrote_and_lies_where_the_specification_says() {
    for &algorithm in Algorithm::ALL {
        for (block, tag_more, tuple_more) in [(512, 0, 0), (4096, 0, 56), (512, 4, 9), (2048, 0, 1)]
        {
            runtime::block_on(round_trip(algorithm, block, tag_more, tuple_more));
        }
    }
}

async fn round_trip(algorithm: Algorithm, block: u64, tag_more: usize, tuple_more: usize) {
    let tag = algorithm.digest_len() + tag_more;
    let disk = disk(1000, block, tag + tuple_more);
    let key = algorithm.is_keyed().then(|| Key::new(b"a key of some bytes".to_vec()).unwrap());
    let format = inline(block, u16::try_from(tag).unwrap());
    let new = NewVolume { key: key.clone(), ..NewVolume::new(format, algorithm, Wipe::Zeroes) };
    let (superblock, layout) = create(disk.clone(), &new, |_, _| {}).await.unwrap();
    assert_eq!((superblock.version, superblock.journal_sections), (6, 0));
    assert_eq!(superblock.flags, Flags::FIX_PADDING.with(Flags::FIX_HMAC).with(Flags::INLINE));
    assert_eq!((superblock.provided_sectors, layout.initial_sectors), (992, 8));

    let with_key =
        || Options { integrity_key: key.clone(), ..Options::new(algorithm, Events::none()) };
    let volume = open(&disk, with_key()).await;
    assert_eq!(*volume.journal_state(), JournalState::Absent);
    assert_holds(&volume.device(), 0, 992, 0).await;
    put(&volume.device(), 40, 400, 3).await.unwrap();
    put(&volume.device(), 984, 8, 4).await.unwrap();
    volume.close().await.unwrap();
    for options in
        [with_key().read_only(), with_key(), Options { mode: Some(Mode::Inline), ..with_key() }]
    {
        let volume = open(&disk, options).await;
        assert_holds(&volume.device(), 0, 40, 0).await;
        assert_holds(&volume.device(), 40, 400, 3).await;
        assert_holds(&volume.device(), 984, 8, 4).await;
    }

    let block_size = BlockSize::from_bytes(block).unwrap();
    let tagger = BlockTagger::new(algorithm, key.as_ref(), Some(SALT), block_size).unwrap();
    for sector in [0, 40, 80, 984] {
        let version = if sector == 0 { 0 } else { 3 + u64::from(sector == 984) };
        let mut expected = pattern(sector, block_size.sectors(), version);
        let mut digest = vec![0; algorithm.digest_len()];
        tagger.tags(sector, &expected, &mut digest);
        expected.extend(digest);
        expected.resize(usize_of(block) + tag + tuple_more, 0);
        assert!(raw(&disk, 8 + sector).await == expected, "{algorithm} {block} {sector}");
    }
}

#[test]
fn a_flipped_bit_in_data_or_tag_is_an_error_for_exactly_that_block_and_in_padding_none() {
    for (block, tag, tuple) in [(512, 8, 16), (4096, 4, 8)] {
        runtime::block_on(async move {
            let disk = disk(256, block, tuple);
            made_on(&disk, tag, Wipe::Zeroes).await;
            let spb = block / 512;
            let volume = open(&disk, options()).await;
            put(&volume.device(), 0, 10 * spb, 1).await.unwrap();
            let sound = raw(&disk, 8 + 4 * spb).await;
            // A CRC-32C has four bytes; whatever else the tag's size says is padding.
            let vouched = usize_of(block) + 4;
            for at in 0..sound.len() {
                let mut bytes = sound.clone();
                bytes[at] ^= 1 << (at % 8);
                put_raw(&disk, 8 + 4 * spb, &bytes).await;
                let damaged = Err(IoErrorKind::Protection.at(Sector(4 * spb)));
                let found = read(&volume.device(), 0, 10 * spb).await;
                if at < vouched {
                    assert_eq!(found.map(drop), damaged, "byte {at}");
                    assert_holds(&volume.device(), 0, 4 * spb, 1).await;
                    assert_holds(&volume.device(), 5 * spb, 5 * spb, 1).await;
                } else {
                    assert!(found == Ok(pattern(0, 10 * spb, 1)), "byte {at}");
                }
            }
        });
    }
}

#[test]
fn a_request_is_one_request_below() {
    runtime::block_on(async {
        let lower = disk(4096, 512, 8);
        made_on(&lower, 4, Wipe::Zeroes).await;
        let faults = Faults::default();
        let counted = Device::new(Fault::new(lower, &faults));
        let volume = open(&counted, options()).await;
        let device = volume.device();
        faults.add(Rule::always(Kind::Any, 0..4096, Effect::Delay(Duration::ZERO)));
        let mut expected = 0;
        for mut bio in [
            Bio::write(Sector(100), Buf::copy_of(&pattern(100, 1000, 1))),
            Bio::read(Sector(50), 1500),
            Bio::read(Sector(50), 1500).bypassing(),
            Bio::write_fua(Sector(7), Buf::copy_of(&pattern(7, 3, 1))),
            Bio::vouch(Sector(7), Buf::copy_of(&pattern(7, 3, 1))),
            Bio::write_zeroes(Sector(7), 3, true),
            Bio::flush(),
        ] {
            device.submit(&mut bio).await.unwrap();
            expected += 1;
            assert_eq!(faults.harmed(), expected, "{:?}", bio.op);
        }
    });
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    runtime::block_on(async {
        let cases = [
            (disk(256, 512, 3), InlineError::TooSmall { tag: 4, device: 3 }),
            (disk(256, 512, 2049), InlineError::TooLarge { device: 2049 }),
            (Device::new(MemoryDevice::new(256, BlockSize::B512)), InlineError::NoMetadata),
            (
                disk(256, 4096, 8),
                InlineError::Interval { block: BlockSize::B512, device: BlockSize::B4096 },
            ),
        ];
        let new = NewVolume::new(inline(512, 4), Algorithm::Crc32c, Wipe::Zeroes);
        let good = disk(256, 512, 8);
        let (superblock, _) = create(good.clone(), &new, |_, _| {}).await.unwrap();
        for (device, expected) in cases {
            let error = create(device.clone(), &new, |_, _| {}).await.unwrap_err();
            assert_eq!(error.to_string(), expected.to_string());
            assert!(device.read(Sector(0), 8).await.unwrap().as_slice().iter().all(|&b| b == 0));
            let mut area = vec![0; 4096];
            area[..64].copy_from_slice(&superblock.encode());
            device.write(Sector(0), Buf::copy_of(&area)).await.unwrap();
            for options in [options(), options().read_only(), in_mode(Mode::Recovery)] {
                let error = Integrity::open(device.clone(), options).await.map(drop).unwrap_err();
                assert_eq!(error.to_string(), expected.to_string());
            }
        }

        let cipher = (checksum_cipher(), Key::new(vec![7; 32]).unwrap());
        let journal = JournalKeys { cipher: Some(cipher), ..JournalKeys::default() };
        let mac = Some((Algorithm::Sha256, None));
        let cases = [
            (in_mode(Mode::Journal), "mode J"),
            (in_mode(Mode::Direct), "mode D"),
            (in_mode(Mode::Bitmap), "mode B"),
            (Options { allow_discards: true, ..options() }, "discarding"),
            (Options { damaged_journal: Some(JournalChoice::Replay), ..options() }, "mending"),
            (Options { journal: journal.clone(), ..options() }, "encrypted journal"),
            (
                Options { journal: JournalKeys { mac, ..JournalKeys::default() }, ..options() },
                "journal MAC",
            ),
        ];
        for (options, name) in cases {
            let error = Integrity::open(good.clone(), options).await.map(drop).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
            assert!(error.to_string().contains("inline"), "{error}");
        }
        let lower = Lower { metadata: good.clone(), data: Some(disk(256, 512, 8)) };
        let error = Integrity::open(lower.clone(), options()).await.map(drop).unwrap_err();
        assert!(error.to_string().contains("a metadata device"), "{error}");
        let error = create(lower, &new, |_, _| {}).await.unwrap_err();
        assert!(error.to_string().contains("a metadata device"), "{error}");
        let encrypted = NewVolume { journal, ..new };
        let error = create(good, &encrypted, |_, _| {}).await.unwrap_err();
        assert!(error.to_string().contains("an encrypted journal"), "{error}");

        // And the other way round.
        let plain = made(4096, &format_options(512, 300)).await;
        let error = refused(&plain, in_mode(Mode::Inline)).await;
        assert!(error.to_string().contains("does not have inline tags"), "{error}");
    });
}

fn checksum_cipher() -> ::integrity::CipherKind {
    "ctr-aes".parse().unwrap()
}

#[test]
fn zeroes_have_their_tags_and_discards_are_refused() {
    runtime::block_on(async {
        let disk = disk(8192, 512, 8);
        made_on(&disk, 4, Wipe::Zeroes).await;
        let volume = open(&disk, options()).await;
        let device = volume.device();
        assert_eq!((device.limits().discard, device.limits().tag_size), (false, 0));
        put(&device, 0, 6000, 1).await.unwrap();
        for unmap in [false, true] {
            device.submit(&mut Bio::write_zeroes(Sector(100), 3000, unmap)).await.unwrap();
            assert_holds(&device, 0, 100, 1).await;
            assert_holds(&device, 100, 3000, 0).await;
            assert_holds(&device, 3100, 2900, 1).await;
        }
        let refused = device.submit(&mut Bio::discard(Sector(0), 8)).await;
        assert_eq!(refused, Err(IoErrorKind::Unsupported.at(Sector(0))));
        assert!(device.allocation(Sector(0), 8184).await.unwrap().iter().all(|run| !run.hole));

        // A device that is told to zero a block forgets the tag: it is no block of zeroes.
        disk.submit(&mut Bio::write_zeroes(Sector(8 + 7), 1, true)).await.unwrap();
        assert_eq!(read(&device, 7, 1).await, Err(IoErrorKind::Protection.at(Sector(7))));
    });
}

#[test]
fn a_tag_vouches_for_its_own_block_only() {
    runtime::block_on(async {
        let disk = disk(256, 512, 8);
        made_on(&disk, 4, Wipe::Zeroes).await;
        let volume = open(&disk, options()).await;
        let device = volume.device();
        put(&device, 0, 20, 1).await.unwrap();
        let ask = async |sector: u64, bytes: &[u8]| {
            device.submit(&mut Bio::vouch(Sector(sector), Buf::copy_of(bytes))).await
        };
        assert_eq!(ask(2, &pattern(2, 10, 1)).await, Ok(()));
        let mut wrong = pattern(2, 10, 1);
        wrong[512 * 3] ^= 1;
        assert_eq!(ask(2, &wrong).await, Err(IoErrorKind::Protection.at(Sector(5))));

        // A block that lies elsewhere, with its tag, is not what belongs there.
        let elsewhere = raw(&disk, 8 + 2).await;
        put_raw(&disk, 8 + 3, &elsewhere).await;
        assert_eq!(read(&device, 3, 1).await, Err(IoErrorKind::Protection.at(Sector(3))));
    });
}

#[test]
fn damage_is_told_once_with_both_tags_and_a_new_write_heals_it() {
    runtime::block_on(async {
        let disk = disk(256, 512, 8);
        made_on(&disk, 4, Wipe::Zeroes).await;
        let (options, heard) = listening();
        let volume = open(&disk, options).await;
        let device = volume.device();
        put(&device, 0, 20, 1).await.unwrap();
        let mut bytes = raw(&disk, 8 + 3).await;
        bytes[512] ^= 1;
        put_raw(&disk, 8 + 3, &bytes).await;
        for _ in 0..3 {
            assert!(read(&device, 3, 1).await.is_err());
        }
        assert_eq!(volume.mismatches(), 3);
        let events = heard.take();
        let [event] = &events[..] else { panic!("{events:?}") };
        let EventKind::Mismatch { stored, computed } = &event.kind else { panic!("{event}") };
        assert_eq!((event.sector, stored.len(), computed.len()), (Sector(3), 8, 8));
        assert_eq!(stored[2..], computed[2..], "one byte of the tag was changed");
        put(&device, 3, 1, 2).await.unwrap();
        assert_holds(&device, 3, 1, 2).await;
    });
}

#[test]
fn an_error_of_the_device_is_one_of_the_block_it_names() {
    runtime::block_on(async {
        let lower = disk(512, 4096, 8);
        made_on(&lower, 4, Wipe::Zeroes).await;
        let faults = Faults::default();
        let volume = open(&Device::new(Fault::new(lower, &faults)), options()).await;
        let device = volume.device();
        faults.add(Rule::always(Kind::Read, 8 + 91..8 + 92, Effect::Fail(IoErrorKind::Medium)));
        let failed = Err(IoErrorKind::Medium.at(Sector(88)));
        assert_eq!(read(&device, 0, 160).await.map(drop), failed);
        assert_holds(&device, 0, 88, 0).await;
        assert_holds(&device, 96, 64, 0).await;
        assert_eq!(device.submit(&mut Bio::vouch(Sector(88), Buf::zeroed(4096))).await, failed);
    });
}

#[test]
fn a_failed_flush_is_final() {
    runtime::block_on(async {
        let lower = disk(512, 512, 8);
        made_on(&lower, 4, Wipe::Zeroes).await;
        let faults = Faults::default();
        let volume = open(&Device::new(Fault::new(lower, &faults)), options()).await;
        let device = volume.device();
        put(&device, 0, 100, 1).await.unwrap();
        faults.add(Rule::nth(0, Kind::Flush, 0..0, Effect::Fail(IoErrorKind::Medium)));
        let failed = Err(IoErrorKind::Medium.at(Sector(0)));
        assert_eq!(device.flush().await, failed);
        assert_eq!(device.flush().await, failed);
        assert_eq!(put(&device, 0, 1, 2).await, failed);
        assert_eq!(volume.close().await, failed);
        assert_holds(&device, 0, 100, 1).await;
    });
}

#[test]
fn a_closed_volume_takes_no_writes_and_an_open_one_that_was_dropped_needs_nothing() {
    runtime::block_on(async {
        let disk = disk(512, 512, 8);
        made_on(&disk, 4, Wipe::Zeroes).await;
        let volume = open(&disk, options()).await;
        put(&volume.device(), 0, 100, 1).await.unwrap();
        volume.close().await.unwrap();
        volume.close().await.unwrap();
        let closed = Err(IoErrorKind::Unavailable.at(Sector(4)));
        assert_eq!(put(&volume.device(), 4, 1, 2).await, closed);
        assert_holds(&volume.device(), 0, 100, 1).await;
        let dropped = open(&disk, options()).await;
        put(&dropped.device(), 50, 100, 2).await.unwrap();
        drop(dropped);
        let volume = open(&disk, options()).await;
        assert_holds(&volume.device(), 0, 50, 1).await;
        assert_holds(&volume.device(), 50, 100, 2).await;
    });
}

#[test]
fn the_wrong_algorithm_is_noticed_before_anything_is_written() {
    runtime::block_on(async {
        let disk = disk(512, 512, 8);
        made_on(&disk, 4, Wipe::Zeroes).await;
        let wrong = Options::new(Algorithm::Crc32, Events::none());
        let error = Integrity::open(disk.clone(), wrong.clone()).await.map(drop).unwrap_err();
        assert!(matches!(error, OpenError::NothingVerifies { .. }), "{error}");
        assert!(Integrity::open(disk, wrong.read_only()).await.is_ok());
    });
}

#[test]
fn what_was_never_wiped_is_unreadable_until_written_and_recovery_gives_it_out_if_asked() {
    runtime::block_on(async {
        let disk = disk(1000, 512, 8);
        disk.write(Sector(8), Buf::copy_of(&pattern(0, 992, 7))).await.unwrap();
        made_on(&disk, 4, Wipe::Nothing).await;
        let volume = open(&disk, Options { sample: false, ..options() }).await;
        put(&volume.device(), 100, 50, 1).await.unwrap();
        assert_holds(&volume.device(), 100, 50, 1).await;
        assert_eq!(
            read(&volume.device(), 90, 50).await,
            Err(IoErrorKind::Protection.at(Sector(90)))
        );
        volume.close().await.unwrap();
        let volume = open(&disk, in_mode(Mode::Recovery)).await;
        assert!(read(&volume.device(), 90, 1).await.is_err());
        assert!(volume.device().limits().read_only);
        let volume = open(&disk, Options { unverified: true, ..in_mode(Mode::Recovery) }).await;
        assert_holds(&volume.device(), 0, 100, 7).await;
        assert_holds(&volume.device(), 100, 50, 1).await;
        assert_eq!(volume.unverified(), 100);
    });
}

#[test]
fn recalculation_blesses_what_lies_there_stops_anywhere_and_goes_on() {
    runtime::block_on(async {
        let sectors = 3 * 32768;
        let lower = disk(sectors, 512, 8);
        let provided = sectors - 8;
        lower.write(Sector(8), Buf::copy_of(&pattern(0, 2000, 7))).await.unwrap();
        made_on(&lower, 4, Wipe::Recalculate).await;
        let faults = Faults::default();
        let disk = Device::new(Fault::new(lower, &faults));
        // A block that cannot be read keeps whatever tag it has.
        faults.add(Rule::always(Kind::Read, 8 + 77..8 + 78, Effect::Fail(IoErrorKind::Medium)));
        let asked = || Options { recalculate: Recalculate::Continue, ..options() };

        let volume = open(&disk, asked()).await;
        put(&volume.device(), 500, 10, 1).await.unwrap();
        volume.close().await.unwrap();
        let stopped = volume.recalculated().unwrap();
        assert!(stopped.0 < provided, "closed before it had finished");
        let area = disk.read(Sector(0), 8).await.unwrap();
        let stored = Superblock::decode(area.as_slice()).unwrap();
        assert_eq!((stored.version, stored.recalc_sector), (6, stopped.0));

        let volume = open(&disk, asked()).await;
        volume.recalculation_done().await.unwrap();
        assert_eq!(volume.recalculated(), Some(Sector(provided)));
        assert_eq!(volume.recalculation_unreadable(), 1);
        volume.close().await.unwrap();

        faults.clear();
        let volume = open(&disk, options()).await;
        assert_holds(&volume.device(), 0, 77, 7).await;
        assert!(read(&volume.device(), 77, 1).await.is_err());
        assert_holds(&volume.device(), 78, 422, 7).await;
        assert_holds(&volume.device(), 500, 10, 1).await;
        assert_holds(&volume.device(), 510, 1490, 7).await;
        assert_holds(&volume.device(), 2000, provided - 2000, 0).await;
    });
}

#[test]
fn every_address_is_of_64_bits() {
    runtime::block_on(async {
        let sectors = 1_u64 << 45;
        let disk = disk(sectors, 4096, 8);
        let superblock = made_on(&disk, 4, Wipe::Nothing).await;
        assert_eq!(superblock.provided_sectors, sectors - 8);
        let volume = open(&disk, Options { sample: false, ..options() }).await;
        for sector in [0, (1 << 32) - 8, (1 << 41) + 8, sectors - 24] {
            put(&volume.device(), sector, 16, 1).await.unwrap();
            assert_holds(&volume.device(), sector, 16, 1).await;
            assert!(raw(&disk, sector + 8).await[..4096] == pattern(sector, 8, 1));
        }
        volume.close().await.unwrap();
    });
}

#[test]
fn readers_see_one_write_or_the_other() {
    runtime::block_on(async {
        let disk = disk(512, 512, 8);
        made_on(&disk, 4, Wipe::Zeroes).await;
        let volume = open(&disk, options()).await;
        let writing = volume.device();
        let writer = runtime::spawn(async move {
            for version in 1..100 {
                put(&writing, 100, 20, version).await.unwrap();
            }
        });
        for _ in 0..100 {
            assert!(read(&volume.device(), 90, 40).await.is_ok());
            runtime::yield_now().await;
        }
        writer.await;
        assert_eq!(volume.mismatches(), 0);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn it_behaves_like_an_array_of_sectors(
        steps in prop::collection::vec((0u8..6, 0u64..120, 1u64..60, 1u64..250, 0usize..40_000), 1..60),
        large in any::<bool>(),
    ) {
        runtime::block_on(async move {
            let (block, spb) = if large { (4096, 8) } else { (512, 1) };
            let disk = disk(8 + 120 * spb, block, 13);
            made_on(&disk, 8, Wipe::Zeroes).await;
            let mut volume = open(&disk, options()).await;
            let mut model = vec![0_u8; usize_of(120 * block)];
            for (what, block, count, version, cut) in steps {
                let (sector, sectors) = (block * spb, count.min(120 - block) * spb);
                let range = usize_of(sector * 512)..usize_of((sector + sectors) * 512);
                let device = volume.device();
                match what {
                    0 | 1 => {
                        let bytes = pattern(sector, sectors, version);
                        model[range].copy_from_slice(&bytes);
                        // Cut anywhere, as a socket delivers.
                        let mut data = Segments::from(Buf::copy_of(&bytes));
                        let tail = data.split_off(cut.min(bytes.len()));
                        let pieces: Vec<Buf> = data.into_iter().chain(tail).collect();
                        let mut bio = Bio::write(Sector(sector), pieces);
                        bio.op = bio::Op::Write { fua: what == 1 };
                        device.submit(&mut bio).await.unwrap();
                    }
                    2 => {
                        model[range].fill(0);
                        let mut bio = Bio::write_zeroes(Sector(sector), sectors, cut % 2 == 0);
                        device.submit(&mut bio).await.unwrap();
                    }
                    3 => {
                        volume.close().await.unwrap();
                        volume = open(&disk, options()).await;
                    }
                    4 => device.flush().await.unwrap(),
                    _ => {
                        let pieces = vec![Buf::alloc(cut % range.len()), Buf::alloc(range.len() - cut % range.len())];
                        let mut bio = Bio::read_into(Sector(sector), pieces);
                        device.submit(&mut bio).await.unwrap();
                        assert!(bio.data.to_single().as_slice() == &model[range]);
                    }
                }
            }
            assert!(read(&volume.device(), 0, 120 * spb).await.unwrap() == model);
        });
    }
}
