use super::*;
use crate::array::Array;
use crate::array::testing::{BEHIND_LOGS, Entry, Rig, crashed};
use md::superblock::{Level, ResyncOffset};
use runtime::{block_on, sleep};

/// 32 chunks of 8 sectors.
const SECTORS: u64 = BEHIND_LOGS + 256;

fn rig() -> Rc<Rig> {
    Rc::new(Rig::with_bitmap(Level::Raid1, 2, SECTORS, 4096))
}

/// Writes one sector of the members' data under a guard, as a RAID layer does.
async fn write(array: &Rc<Array>, sector: u64, byte: u8) -> IoResult {
    let _guard = array.begin_write(sector..sector + 1).await?;
    for slot in 0..array.raid_disks() {
        let Some(member) = array.member(slot) else { continue };
        let data = Buf::copy_of(&[byte; 512]);
        if let Err(error) = member.data().write(Sector(sector), data).await {
            array.fail(&member, error).await?;
        }
    }
    Ok(())
}

/// The bitmap on a disk.
fn on_disk(rig: &Rig, disk: usize) -> Bitmap {
    rig.logs(disk).bitmap.unwrap().unwrap()
}

fn dirty(rig: &Rig, disk: usize) -> Vec<Range<u64>> {
    on_disk(rig, disk).dirty().collect()
}

fn writes(rig: &Rig, at: u64) -> usize {
    let log = rig.log.borrow();
    let hit = |entry: &&Entry| matches!(entry, Entry::Write { sector, .. } if sector.0 == at);
    log.iter().filter(hit).count()
}

#[test]
fn a_bit_is_on_every_member_before_the_data_and_then_costs_nothing() {
    let rig = rig();
    let held = Rc::clone(&rig);
    block_on(async move {
        let array = held.open(&[0, 1], false);
        write(&array, 17, 1).await.unwrap();
        assert_eq!((dirty(&held, 0), dirty(&held, 1)), (vec![2..3], vec![2..3]));
        let before = held.log.borrow().len();
        write(&array, 16, 2).await.unwrap();
        assert_eq!(held.log.borrow().len() - before, 2, "data on two members, and nothing else");
    });
    let log = rig.log.borrow();
    let data = log.iter().position(
        |entry| matches!(entry, Entry::Write { sector, .. } if sector.0 == BEHIND_LOGS + 17),
    );
    // Header and superblock on each member, then the bit on each, everything durable.
    assert_eq!(data, Some(6));
    assert!(log[..6].iter().all(|entry| matches!(entry, Entry::Write { fua: true, .. })));
}

#[test]
fn writers_that_come_together_share_one_write_of_their_bits() {
    let rig = rig();
    let held = Rc::clone(&rig);
    block_on(async move {
        let array = held.open(&[0, 1], false);
        let all = (0..32).map(|chunk| write(&array, chunk * 8, 1));
        for result in join_all(all).await {
            result.unwrap();
        }
    });
    // A header with the round, the first writer's bit, and all others at once; at most one more.
    assert!(writes(&rig, 16) <= 2 * 4, "{} writes", writes(&rig, 16));
    assert_eq!(dirty(&rig, 1), [0..32]);
}

#[test]
fn bits_go_when_their_chunk_was_left_alone_and_the_members_are_flushed() {
    let rig = rig();
    block_on(async move {
        let array = rig.open(&[0, 1], false);
        write(&array, 0, 1).await.unwrap();
        let guard = array.begin_write(80..81).await.unwrap();
        sleep(Duration::from_secs(20)).await;
        assert_eq!(dirty(&rig, 0), [10..11], "a guard keeps its bit");
        drop(guard);
        sleep(Duration::from_secs(20)).await;
        assert_eq!((dirty(&rig, 0), dirty(&rig, 1)), (vec![], vec![]));
        write(&array, 0, 2).await.unwrap();
        assert_eq!(dirty(&rig, 1), [0..1]);
        array.close().await.unwrap();
        assert_eq!((dirty(&rig, 0), dirty(&rig, 1)), (vec![], vec![]), "nothing is left");
    });
}

#[test]
fn while_a_member_is_missing_bits_stay_and_its_epoch_too() {
    let rig = rig();
    block_on(async move {
        let array = rig.open(&[0, 1], false);
        write(&array, 0, 1).await.unwrap();
        sleep(Duration::from_secs(20)).await;
        rig.disks[1].gone.set(true);
        write(&array, 8, 2).await.unwrap();
        write(&array, 160, 2).await.unwrap();
        sleep(Duration::from_secs(60)).await;
        array.close().await.unwrap();
        assert_eq!(dirty(&rig, 0), [1..2, 20..21]);
        let left = rig.superblock(1).events();
        let header = *on_disk(&rig, 0).header();
        // The member that left may come back with what the bits say.
        assert!(header.events_cleared() <= left && header.events() > left);
        let array = rig.open(&[0], false);
        write(&array, 232, 3).await.unwrap();
        array.close().await.unwrap();
        assert_eq!(dirty(&rig, 0), [1..2, 20..21, 29..30]);
        assert!(on_disk(&rig, 0).header().events_cleared() <= left);
    });
}

/// Writes here and there, pausing, and closes.
#[test]
fn after_a_crash_members_differ_only_where_the_bitmap_says_so() {
    let rig = rig();
    let start = rig.images();
    let held = Rc::clone(&rig);
    block_on(async move {
        let array = held.open(&[0, 1], false);
        for round in 1..4u8 {
            for sector in [3, 4, 100, 239] {
                write(&array, sector, round).await.unwrap();
            }
            sleep(Duration::from_secs(if round == 2 { 20 } else { 1 })).await;
        }
        array.close().await.unwrap();
    });
    crashes(&rig, &start);
}

/// Never idle, so that the superblocks stay dirty: only the bitmap is cleared, here and there.
#[test]
fn bits_that_were_cleared_while_others_were_written_are_of_data_on_the_media() {
    let rig = rig();
    let start = rig.images();
    let held = Rc::clone(&rig);
    block_on(async move {
        let array = held.open(&[0, 1], false);
        write(&array, 3, 1).await.unwrap();
        write(&array, 100, 1).await.unwrap();
        for _ in 0..130 {
            write(&array, 239, 1).await.unwrap();
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(dirty(&held, 0), [29..30]);
    });
    rig.log.borrow_mut().retain(
        |entry| !matches!(entry, Entry::Write { sector, .. } if sector.0 == BEHIND_LOGS + 239),
    );
    crashes(&rig, &start);
}

/// The power fails after every entry of the log, with each disk keeping what was not durable, or not,
/// or some of it.
fn crashes(rig: &Rig, start: &[Vec<u8>]) {
    let log = rig.log.borrow().clone();
    let mut some_were_in_sync = false;
    for length in 0..=log.len() {
        for pattern in 0..8u64 {
            let keep = |disk: u64| {
                move |at: usize| match pattern {
                    0 => false,
                    1 => true,
                    seed => ((u64_of(at) * 2 + disk) * seed * 0x9E37_79B9) >> 7 & 1 == 1,
                }
            };
            let images =
                [0, 1].map(|disk| crashed(&start[disk], &log, length, disk, keep(u64_of(disk))));
            let (a, b) = (images[0].clone(), images[1].clone());
            let after = Rig::of_images(images.to_vec(), false);
            let array = block_on(async move { after.open(&[0, 1], false) });
            for sector in 0..256 {
                let at = usize_of(Sector(BEHIND_LOGS + sector).bytes());
                let differs = a[at..at + 512] != b[at..at + 512];
                let in_sync = array.in_sync(&(sector..sector + 1));
                some_were_in_sync |= in_sync && array.synced() != ResyncOffset::Clean;
                assert!(!differs || !in_sync, "{length} {pattern}: sector {sector}");
            }
        }
    }
    assert!(some_were_in_sync, "the bitmap was never of use");
}

#[test]
fn a_bitmap_that_is_not_believed_means_everything_and_is_made_anew_bits_first() {
    // More bits than the header's block holds, all of them clear and of another array; and dirty.
    let sectors = BEHIND_LOGS + 8 * 2112;
    let new = Rig::with_bitmap(Level::Raid1, 2, sectors, 4096);
    let mut images = new.images();
    for (disk, image) in images.iter_mut().enumerate() {
        let mut superblock = new.superblock(disk);
        superblock.set_resync(ResyncOffset::Below(Sector::ZERO));
        image[4096..8192].copy_from_slice(&superblock.encode());
        image[8192 + 8] ^= 1;
    }
    let rig = Rc::new(Rig::of_images(images.clone(), false));
    let held = Rc::clone(&rig);
    block_on(async move {
        let array = held.open(&[0, 1], false);
        write(&array, 0, 1).await.unwrap();
    });
    let events = rig.events.borrow();
    let told = events.iter().filter(|event| event.detail.contains("belongs to array"));
    assert_eq!(told.count(), 1);
    assert_eq!(dirty(&rig, 0), [0..2112]);
    let log = rig.log.borrow().clone();
    for length in 0..=log.len() {
        for keep in [false, true] {
            let crashed = [0, 1].map(|disk| crashed(&images[disk], &log, length, disk, |_| keep));
            let after = Rig::of_images(crashed.to_vec(), false);
            let array = block_on(async move { after.open(&[0, 1], false) });
            for chunk in 0..2112 {
                assert!(!array.in_sync(&(chunk * 8..chunk * 8 + 1)), "{length} {keep}: {chunk}");
            }
        }
    }
}

#[test]
fn copies_that_differ_are_put_together_and_made_equal_before_the_first_write() {
    let rig = rig();
    let start = rig.images();
    block_on(async move {
        let array = rig.open(&[0, 1], false);
        write(&array, 0, 1).await.unwrap();
        write(&array, 80, 1).await.unwrap();
        // The last bit is on one member only.
        let mut images = rig.images();
        images[1][8192 + 256..8192 + 512].copy_from_slice(&start[1][8192 + 256..8192 + 512]);
        let rig = Rig::of_images(images, false);
        let array = rig.open(&[0, 1], false);
        assert!(!array.in_sync(&(80..81)));
        write(&array, 80, 2).await.unwrap();
        assert_eq!((dirty(&rig, 0), dirty(&rig, 1)), (vec![0..1, 10..11], vec![0..1, 10..11]));
    });
}

#[test]
fn who_left_before_a_bit_was_cleared_is_older_than_what_the_header_names() {
    let rig = rig();
    let start = rig.images();
    block_on(async move {
        // It is not known here that anybody was missing: the header names an old event.
        let mut images = start.clone();
        for image in &mut images {
            let mut bitmap = Bitmap::decode(image[8192..8192 + 512].to_vec()).unwrap();
            let mut superblock = rig.superblock(0);
            superblock.set_events(50);
            bitmap.set_events(50);
            bitmap.set(4..5);
            image[8192..8192 + 512].copy_from_slice(&bitmap.encode(0..512));
        }
        for (disk, image) in images.iter_mut().enumerate() {
            let mut superblock = rig.superblock(disk);
            superblock.set_events(50);
            image[4096..8192].copy_from_slice(&superblock.encode());
        }
        let rig = Rig::of_images(images, false);
        let array = rig.open(&[0, 1], false);
        assert_eq!(array.synced(), ResyncOffset::Clean);
        array.close().await.unwrap();
        assert_eq!((dirty(&rig, 0), on_disk(&rig, 0).header().events_cleared()), (vec![], 50));
        // The header first, durably; then a flush was not needed, and the bits.
        let log = rig.log.borrow();
        let first = log.iter().find_map(|entry| match entry {
            Entry::Write { sector: Sector(16), bytes, fua, .. } => Some((bytes.clone(), *fua)),
            _ => None,
        });
        let (bytes, fua) = first.unwrap();
        let written = Bitmap::decode(bytes).unwrap();
        assert!(fua && written.dirty_count() == 1 && written.header().events_cleared() == 50);
    });
}
