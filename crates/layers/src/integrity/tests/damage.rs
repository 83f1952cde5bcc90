//! What damage does, and what is refused.

use super::*;
use crate::integrity::{JournalState, Restriction};
use ::integrity::{Flags, PlanError, Superblock};
use bio::{EventKind, Finding, IoErrorKind, Scrub, ScrubMode};

/// A closed volume with version 1 in its first 2000 sectors.
pub(super) async fn written(block: u64) -> (Rc<Disk>, ::integrity::Layout) {
    let disk = made(16384, &format_options(block, 900)).await;
    let volume = opened(&disk).await;
    put(&volume.device(), 0, 2000, 1).await.unwrap();
    volume.close().await.unwrap();
    (disk, *volume.layout())
}

pub(super) fn with_flags(disk: &Disk, change: impl FnOnce(&mut Superblock)) {
    let mut superblock = Superblock::decode(&disk.content()[..4096]).unwrap();
    change(&mut superblock);
    disk.set(0, &superblock.encode());
}

#[test]
fn a_damaged_block_is_an_error_with_its_place_and_both_tags() {
    runtime::block_on(async {
        let (disk, layout) = written(512).await;
        let (options, heard) = listening();
        disk.flip(layout.run(Sector(700), 1).data.bytes() + 5, 0x10);
        disk.flip(layout.run(Sector(900), 1).tag_byte, 0x01);
        let volume = Integrity::open(disk.device(), options).await.unwrap();
        let device = volume.device();
        let protection = |sector| Err(IoErrorKind::Protection.at(Sector(sector)));
        assert_eq!(device.read(Sector(600), 400).await.map(drop), protection(700));
        assert_eq!(device.read(Sector(800), 400).await.map(drop), protection(900));
        assert_eq!(device.read(Sector(600), 400).await.map(drop), protection(700));
        let events = heard.take();
        assert_eq!(events.len(), 2, "{events:?}");
        let EventKind::Mismatch { stored, computed } = &events[1].kind else { panic!() };
        // The flipped bit of the tag is the only difference.
        let number = |tag: &str| u32::from_str_radix(tag, 16).unwrap();
        assert_eq!(number(stored) ^ number(computed), 0x0100_0000);
        assert_eq!((events[1].sector, events[1].sectors), (Sector(900), 1));
        // Written whole, it is readable again, and worth telling again.
        put(&device, 700, 1, 2).await.unwrap();
        assert_holds(&device, 700, 1, 2).await;
        volume.close().await.unwrap();
        let volume = opened(&disk).await;
        assert_holds(&volume.device(), 700, 1, 2).await;
    });
}

#[test]
fn a_transient_error_is_read_again_and_forgiven() {
    runtime::block_on(async {
        let (disk, layout) = written(512).await;
        // A tag that is bad when it comes into the cache, and right on the device from then on.
        let tag = layout.run(Sector(8), 1).tag_byte;
        disk.flip(tag, 1);
        let volume = opened(&disk).await;
        let device = volume.device();
        assert!(read(&device, 8, 1).await.is_err());
        disk.flip(tag, 1);
        assert_holds(&device, 8, 1, 1).await;
        assert_holds(&device, 0, 64, 1).await;
    });
}

#[test]
fn scrubbing_finds_every_bad_block_past_every_cache() {
    for block in [512, 4096] {
        runtime::block_on(async move {
            let (disk, layout) = written(block).await;
            let volume = opened(&disk).await;
            let device = volume.device();
            assert_holds(&device, 0, 2000, 1).await;
            let spb = block / 512;
            for sector in [0, 64, 72, 1992, 4096 + 128] {
                disk.flip(layout.run(Sector(sector), spb).data.bytes(), 0x40);
            }
            disk.bad.borrow_mut().insert(layout.run(Sector(4096), spb).data.0);
            let mut found = Vec::new();
            for step in 0..volume.steps() {
                let findings = volume.scrub(step, ScrubMode::Check).await;
                assert_eq!(findings.checked_sectors, volume.step_extent(step).sectors);
                for (finding, member, extent) in findings.found {
                    assert_eq!((finding, member), (Finding::Unreadable, None));
                    found.push((extent.sector.0, extent.sectors));
                }
            }
            let mut expected: Vec<(u64, u64)> =
                [0, 64, 72, 1992, 4096, 4096 + 128].map(|sector| (sector, spb)).into();
            if spb == 8 {
                expected.splice(1..3, [(64, 16)]);
            }
            assert_eq!(found, expected);
        });
    }
}

#[test]
fn neighbours_whose_tags_were_lost_stay_unreadable_until_written() {
    runtime::block_on(async {
        let (disk, layout) = written(512).await;
        let (options, heard) = listening();
        // The sector with the tags of blocks 128..256.
        disk.bad.borrow_mut().insert(layout.run(Sector(128), 1).tag_byte / 512);
        let volume = Integrity::open(disk.device(), options).await.unwrap();
        let device = volume.device();
        assert_eq!(
            device.read(Sector(130), 1).await.map(drop),
            Err(IoErrorKind::Medium.at(Sector(130)))
        );
        assert_holds(&device, 0, 1, 1).await;
        put(&device, 130, 1, 2).await.unwrap();
        volume.close().await.unwrap();
        let lost = heard.take().iter().filter(|event| event.kind == EventKind::Lost).count();
        assert_eq!(lost, 127);
        let volume = opened(&disk).await;
        let device = volume.device();
        assert_holds(&device, 130, 1, 2).await;
        assert_holds(&device, 0, 128, 1).await;
        assert_holds(&device, 256, 500, 1).await;
        for sector in (128..256).filter(|&sector| sector != 130) {
            let expected = Err(IoErrorKind::Protection.at(Sector(sector)));
            assert_eq!(device.read(Sector(sector), 1).await.map(drop), expected);
        }
        put(&device, 128, 128, 3).await.unwrap();
        assert_holds(&device, 128, 128, 3).await;
    });
}

#[test]
fn a_full_disk_below_is_an_error_and_nothing_committed_is_lost() {
    runtime::block_on(async {
        let disk = made(16384, &format_options(512, 600)).await;
        let volume = opened(&disk).await;
        let device = volume.device();
        put(&device, 0, 100, 1).await.unwrap();
        device.flush().await.unwrap();
        disk.full_from.set(volume.layout().initial_sectors);
        let mut refused = None;
        for at in (1000..6000).step_by(100) {
            if let Err(error) = put(&device, at, 100, 2).await {
                refused = Some(error.kind);
                break;
            }
        }
        assert_eq!(refused, Some(IoErrorKind::NoSpace));
        assert_holds(&device, 0, 100, 1).await;
        disk.full_from.set(u64::MAX);
        runtime::sleep(std::time::Duration::from_secs(3)).await;
        put(&device, 6000, 100, 3).await.unwrap();
        volume.close().await.unwrap();
        let volume = opened(&disk).await;
        assert_holds(&volume.device(), 0, 100, 1).await;
        assert_holds(&volume.device(), 6000, 100, 3).await;
    });
}

#[test]
fn a_failed_flush_is_never_retried_as_success() {
    runtime::block_on(async {
        let disk = made(16384, &format_options(512, 600)).await;
        let volume = opened(&disk).await;
        let device = volume.device();
        put(&device, 0, 100, 1).await.unwrap();
        disk.fail_flush.set(true);
        let failed = Err(IoErrorKind::Medium.at(Sector(0)));
        assert_eq!(device.flush().await, failed);
        disk.fail_flush.set(false);
        assert_eq!(device.flush().await, failed);
        assert_eq!(put(&device, 0, 1, 2).await, failed);
        assert_eq!(volume.close().await, failed);
        assert_holds(&device, 0, 100, 1).await;
    });
}

#[test]
fn what_is_not_implemented_is_refused_by_name_and_read_where_it_can_be() {
    runtime::block_on(async {
        let cases: [(Flags, Restriction); 2] = [
            (Flags::DISCARD_KEYED, Restriction::DiscardKeyed),
            (Flags::JOURNAL_MAC, Restriction::JournalMac),
        ];
        for (flag, expected) in cases {
            let (disk, _) = written(4096).await;
            with_flags(&disk, |superblock| {
                superblock.flags = superblock.flags.with(flag);
            });
            let OpenError::ReadOnlyOnly(why) = refused(&disk, options()).await else { panic!() };
            assert_eq!(why, std::slice::from_ref(&expected));
            let volume = Integrity::open(disk.device(), options().read_only()).await.unwrap();
            assert_eq!(volume.restrictions(), [expected]);
            assert_holds(&volume.device(), 0, 2000, 1).await;
        }
        let names = [(Flags::INLINE, "inline"), (Flags(0x100), "0x100")];
        for (flag, name) in names {
            let (disk, _) = written(512).await;
            with_flags(&disk, |superblock| {
                superblock.flags = superblock.flags.with(flag);
                if flag == Flags::INLINE {
                    superblock.journal_sections = 0;
                }
            });
            let error = refused(&disk, options().read_only()).await;
            assert!(error.to_string().contains(name), "{error}");
        }
    });
}

#[test]
fn a_finished_recalculation_is_written_like_any_other_volume() {
    runtime::block_on(async {
        let (disk, layout) = written(4096).await;
        with_flags(&disk, |superblock| {
            superblock.flags = superblock.flags.with(Flags::RECALCULATING);
            superblock.recalc_sector = layout.provided_sectors;
        });
        let volume = opened(&disk).await;
        put(&volume.device(), 0, 8, 2).await.unwrap();
        volume.close().await.unwrap();
    });
}

#[test]
fn a_damaged_salt_is_noticed_before_anything_is_written() {
    runtime::block_on(async {
        let (disk, _) = written(512).await;
        disk.flip(50, 1);
        let before = disk.content();
        let error = refused(&disk, options()).await;
        assert!(matches!(error, OpenError::NothingVerifies { .. }), "{error}");
        assert!(disk.content() == before);
        let careless = Options { sample: false, ..options() };
        assert!(Integrity::open(disk.device(), careless).await.is_ok());
    });
}

#[test]
fn a_volume_that_was_not_wiped_opens_and_each_block_is_unreadable_until_written() {
    runtime::block_on(async {
        let disk = Disk::new(16384);
        let new = NewVolume::new(format_options(512, 600), Algorithm::Crc32c, Wipe::Nothing);
        create(disk.device(), &new, |_, _| {}).await.unwrap();
        let volume = opened(&disk).await;
        let device = volume.device();
        assert!(read(&device, 100, 1).await.is_err());
        put(&device, 100, 1, 1).await.unwrap();
        assert_holds(&device, 100, 1, 1).await;
        volume.close().await.unwrap();
        let volume = opened(&disk).await;
        assert_holds(&volume.device(), 100, 1, 1).await;
        assert!(read(&volume.device(), 101, 1).await.is_err());
        // A hole below is no hole here: nobody may take it for zeroes.
        let found = volume.device().allocation(Sector(101), 8).await.unwrap();
        assert!(found.iter().all(|run| !run.hole));
    });
}

/// A disk whose journal holds version 2 of sectors 100..110, not home yet.
pub(super) async fn unreplayed() -> (Rc<Disk>, ::integrity::Layout) {
    let (disk, layout) = written(512).await;
    let volume = opened(&disk).await;
    put(&volume.device(), 100, 10, 2).await.unwrap();
    volume.device().flush().await.unwrap();
    (Disk::holding(disk.content()), layout)
}

#[test]
fn a_damaged_commit_id_refuses_writing_and_reads_only_what_is_certain() {
    runtime::block_on(async {
        let (disk, layout) = unreplayed().await;
        let volume = Integrity::open(disk.device(), options().read_only()).await.unwrap();
        assert_eq!(*volume.journal_state(), JournalState::Overlaid { entries: 10 });
        assert_holds(&volume.device(), 100, 10, 2).await;
        // The section with the ten entries, in one of its data sectors.
        let journal = layout.journal;
        let used = (0..journal.sections)
            .find(|&number| {
                let start = usize_of(journal.section_start(number).bytes());
                disk.content()[start + 7] == 0
            })
            .unwrap();
        disk.flip(journal.section_start(used).bytes() + 60 * 512 + 511, 0x08);
        let before = disk.content();
        let OpenError::ReadOnlyOnly(why) = refused(&disk, options()).await else { panic!() };
        let Restriction::Journal(PlanError::CommitId { section, sector: 60, sound, .. }) = &why[0]
        else {
            panic!("{why:?}")
        };
        assert_eq!(*section, used);
        assert_eq!(sound.len() + 1, usize_of(journal.sections.into()));
        let (mut listening, heard) = listening();
        listening.read_only = true;
        let volume = Integrity::open(disk.device(), listening).await.unwrap();
        assert!(matches!(volume.journal_state(), JournalState::Damaged(_)));
        let device = volume.device();
        assert_holds(&device, 0, 100, 1).await;
        assert_holds(&device, 110, 500, 1).await;
        for sector in 100..110 {
            let expected = Err(IoErrorKind::Protection.at(Sector(sector)));
            assert_eq!(device.read(Sector(sector), 1).await.map(drop), expected);
        }
        assert!(heard.borrow().iter().any(|event| event.kind == EventKind::Lost));
        assert!(disk.content() == before);
    });
}

#[test]
fn a_rotten_journal_entry_makes_its_block_unreadable_unless_home_is_that_version() {
    runtime::block_on(async {
        let (disk, layout) = unreplayed().await;
        let journal = layout.journal;
        let section = (0..journal.sections)
            .find(|&n| disk.content()[usize_of(journal.section_start(n).bytes()) + 7] == 0)
            .unwrap();
        let data =
            |entry| journal.section_start(section).bytes() + journal.data_offset(entry) as u64;
        disk.flip(data(3) + 17, 0x20);
        disk.flip(data(5) + 17, 0x20);
        // Sector 105 was written home before the crash.
        let place = layout.run(Sector(105), 1);
        disk.set(place.data.bytes(), &pattern(105, 1, 2));
        let mut tag = [0; 4];
        let salt = Some(*b"sixteen of salt.");
        let tagger =
            checksum::BlockTagger::new(Algorithm::Crc32c, None, salt, layout.block).unwrap();
        tagger.tags(105, &pattern(105, 1, 2), &mut tag);
        disk.set(place.tag_byte, &tag);
        let volume = opened(&disk).await;
        let device = volume.device();
        let expected = Err(IoErrorKind::Protection.at(Sector(103)));
        assert_eq!(device.read(Sector(100), 10).await.map(drop), expected);
        assert_holds(&device, 100, 3, 2).await;
        assert_holds(&device, 104, 6, 2).await;
        // The tag that went home is that of the lost version: it can vouch for a reconstruction.
        let lost = Buf::copy_of(&pattern(103, 1, 2));
        assert_eq!(device.submit(&mut Bio::vouch(Sector(103), lost)).await, Ok(()));
    });
}

#[test]
fn no_superblock_a_truncated_one_and_a_short_device_are_told_apart() {
    runtime::block_on(async {
        let text = |error: OpenError| error.to_string();
        assert!(text(refused(&Disk::new(100), options()).await).contains("the area is zero"));
        let (disk, _) = written(512).await;
        let mut short = disk.content();
        short.truncate(16000 * 512);
        let error = text(refused(&Disk::holding(short), options()).await);
        assert!(error.contains("needs a device of"), "{error}");
        disk.set(0, b"LVM2 001");
        assert!(text(refused(&disk, options()).await).contains("no dm-integrity superblock"));
    });
}

#[test]
fn one_flipped_bit_of_a_sector_number_in_the_journal_is_seen_through() {
    for bit in [0, 3, 12, 30, 54] {
        runtime::block_on(async move {
            let (disk, layout) = unreplayed().await;
            let journal = layout.journal;
            let section = (0..journal.sections)
                .find(|&n| disk.content()[usize_of(journal.section_start(n).bytes()) + 7] == 0)
                .unwrap();
            // Entry 4, sector 104: in metadata sector 4.
            let field = (journal.section_start(section) + 4).bytes();
            disk.flip(field + bit / 8, 1 << (bit % 8));
            let volume = Integrity::open(disk.device(), options().read_only()).await.unwrap();
            assert_holds(&volume.device(), 100, 10, 2).await;
            assert_holds(&volume.device(), 0, 100, 1).await;
            let volume = opened(&disk).await;
            assert_holds(&volume.device(), 100, 10, 2).await;
            assert_holds(&volume.device(), 110, 1000, 1).await;
        });
    }
}

#[test]
fn a_peek_gives_what_lies_there_and_mends_one_bit_of_a_block() {
    for block in [512, 4096] {
        runtime::block_on(async move {
            let (disk, layout) = written(block).await;
            let spb = block / 512;
            let at = |sector: u64| layout.run(Sector(sector), spb).data.bytes();
            let sound = pattern(512, spb, 1);
            let (options, heard) = listening();
            let volume = Integrity::open(disk.device(), options).await.unwrap();
            let device = volume.device();
            let peek = |sector: u64, mend: bool| {
                let device = device.clone();
                async move {
                    let mut bio = Bio::peek(Sector(sector), spb, mend);
                    let result = device.submit(&mut bio).await;
                    result.map(|()| bio.data.into_single().as_slice().to_vec())
                }
            };
            let protection = |sector| Err(IoErrorKind::Protection.at(Sector(sector)));
            assert_eq!(peek(512, true).await.unwrap(), sound);
            disk.flip(at(512) + 300, 0x20);
            let mut lies = sound.clone();
            lies[300] ^= 0x20;
            assert_eq!(peek(512, false).await.unwrap(), lies);
            assert_eq!(peek(512, true).await.unwrap(), sound);
            disk.flip(at(512) + 301, 0x01);
            assert_eq!(peek(512, true).await, protection(512));
            // A damaged tag: the data is right where it lies.
            disk.flip(layout.run(Sector(1024), spb).tag_byte, 0x01);
            assert_eq!(peek(1024, false).await.unwrap(), pattern(1024, spb, 1));
            assert_eq!(peek(1024, true).await, protection(1024));
            // What was just written is what lies there.
            put(&device, 512, spb, 2).await.unwrap();
            assert_eq!(peek(512, true).await.unwrap(), pattern(512, spb, 2));
            // Nobody is told of what nobody was given.
            assert!(heard.take().is_empty());
            volume.close().await.unwrap();
        });
    }
}
