//! Disks that say that all is well and store a write elsewhere, or nowhere.

use super::*;
use crate::integrity::tags::TagCache;
use bio::{EventKind, IoErrorKind};

/// A volume of 1 KiB of tags and 3 KiB of padding in each run, and where tags that are to go home must
/// land so that their padding covers the data of block 2, whose tag is among them.
async fn padded() -> (Rc<Disk>, u64, u64) {
    let disk = made(16384, &format_options(512, 900)).await;
    let volume = opened(&disk).await;
    let place = volume.layout().run(Sector(2), 1);
    volume.close().await.unwrap();
    (disk, place.tag_byte / 4096 * 8, place.data.0 - 2)
}

fn notes(heard: &RefCell<Vec<Event>>) -> usize {
    heard.borrow().iter().filter(|event| event.kind == EventKind::Note).count()
}

#[test]
fn tags_that_landed_on_the_data_they_vouch_for_do_not_bring_zeroes_back() {
    runtime::block_on(async {
        let (disk, tags, landing) = padded().await;
        let (options, heard) = listening();
        let volume = Integrity::open(disk.device(), options).await.unwrap();
        disk.astray.set((tags, Some(landing), 1));
        put(&volume.device(), 2, 1, 1).await.unwrap();
        volume.close().await.unwrap();
        assert_eq!((disk.astray.get().2, notes(&heard)), (0, 1));
        let volume = opened(&disk).await;
        assert_holds(&volume.device(), 2, 1, 1).await;
        assert_holds(&volume.device(), 3, 200, 0).await;
    });
}

#[test]
fn replay_sees_to_it_that_its_tags_are_home() {
    runtime::block_on(async {
        let (disk, tags, landing) = padded().await;
        let volume = opened(&disk).await;
        put(&volume.device(), 2, 1, 1).await.unwrap();
        volume.device().flush().await.unwrap();
        drop(volume);
        disk.astray.set((tags, Some(landing), 1));
        let (options, heard) = listening();
        let volume = Integrity::open(disk.device(), options).await.unwrap();
        assert_eq!((disk.astray.get().2, notes(&heard)), (0, 1));
        volume.close().await.unwrap();
        let volume = opened(&disk).await;
        assert_holds(&volume.device(), 2, 1, 1).await;
    });
}

#[test]
fn a_device_that_never_stores_tags_keeps_the_journal_and_says_so() {
    runtime::block_on(async {
        let (disk, tags, _) = padded().await;
        let volume = opened(&disk).await;
        disk.astray.set((tags, None, usize::MAX));
        put(&volume.device(), 2, 1, 1).await.unwrap();
        volume.device().flush().await.unwrap();
        assert_eq!(volume.close().await, Err(IoErrorKind::Medium.at(Sector::ZERO)));
        disk.astray.set((tags, None, 0));
        let volume = opened(&disk).await;
        assert_holds(&volume.device(), 2, 1, 1).await;
    });
}

/// The section that re-initialising begins with holds entries of a lap that has the number of the
/// next one. Left as it was, it would be replayed behind that.
#[test]
fn a_lost_reinitialisation_does_not_bring_old_entries_back() {
    runtime::block_on(async {
        let disk = made(16384, &format_options(512, 900)).await;
        let volume = opened(&disk).await;
        let (device, journal) = (volume.device(), volume.layout().journal);
        assert_eq!(journal.sections, 5);
        let write = async |device: &Device, version| {
            put(device, 2, 1, version).await.unwrap();
            device.flush().await.unwrap();
        };
        // One section each: one lap, and two sections of the next.
        for version in 1..=7 {
            write(&device, version).await;
        }
        // Torn in the middle of the third.
        let section = |number: u32| journal.section_start(number).bytes();
        let half =
            usize_of(section(2))..usize_of(section(2)) + journal.section_bytes() / 1024 * 512;
        let older = disk.content()[half.clone()].to_vec();
        write(&device, 8).await;
        let mut image = disk.content();
        image[half].copy_from_slice(&older);
        drop(volume);

        let disk = Disk::holding(image);
        disk.astray.set((journal.section_start(3).0, None, 1));
        let volume = opened(&disk).await;
        assert_eq!(disk.astray.get().2, 0);
        for version in 9..=11 {
            write(&volume.device(), version).await;
        }
        let image = disk.content();
        drop(volume);
        let volume = opened(&Disk::holding(image)).await;
        assert_holds(&volume.device(), 2, 1, 11).await;
    });
}

fn random() -> [u8; 512] {
    std::array::from_fn(|at| (at * at * 31 + at / 3).to_le_bytes()[0])
}

#[test]
fn a_page_that_was_written_again_is_confirmed_as_it_was_last() {
    runtime::block_on(async {
        let disk = Disk::new(64);
        let cache = TagCache::new(disk.device(), 4096);
        let write = async |bytes: &[u8]| {
            let mut changing = cache.change(2..3).await.unwrap();
            changing.put(2 * 4096, bytes);
            cache.write(changing).await.unwrap();
        };
        write(&[1; 512]).await;
        write(&[2; 4096]).await;
        assert_eq!(cache.confirm().await, Ok(Vec::new()));
        // Zeroes, and tuples that nobody gave; what is as good as random is not looked at again.
        for (bytes, confirmed) in [([0; 512], true), ([0xff; 512], true), (random(), false)] {
            write(&[7, 9].repeat(2048)).await;
            write(&bytes).await;
            assert_eq!(cache.has_unconfirmed(), confirmed);
            disk.flip(2 * 4096 + 9, 1);
            let astray = if confirmed { vec![2 * 4096] } else { Vec::new() };
            assert_eq!(cache.confirm().await, Ok(astray));
            assert_eq!(cache.confirm().await, Ok(Vec::new()));
        }
    });
}
