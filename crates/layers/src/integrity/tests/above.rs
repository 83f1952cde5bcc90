//! Tags that the layer above gives: kept with their blocks, through everything.

use super::crash::leftovers;
use super::disk::Step;
use super::*;
use crate::integrity::source::TagSource;
use bio::{EventKind, IoErrorKind, Segments};
use dif::Profile;
use std::collections::BTreeMap;

const MODES: [Mode; 2] = [Mode::Journal, Mode::Direct];
const OPAQUE: &str = "opaque";
const TUPLES: &str = "t10-dif-type1-crc16";

fn source(name: &str) -> TagSource {
    name.parse().unwrap()
}

fn above(name: &str, mode: Mode) -> Options {
    Options { mode: Some(mode), ..Options::new(source(name), Events::none()) }
}

async fn made_above(name: &str, block: u64, journal: u64, sectors: u64) -> Rc<Disk> {
    let disk = Disk::new(sectors);
    let format = FormatOptions { tag_size: 8, ..format_options(block, journal) };
    let new = NewVolume::new(format, source(name), Wipe::Zeroes);
    create(disk.device(), &new, |_, _| {}).await.unwrap();
    disk
}

async fn open_above(disk: &Rc<Disk>, name: &str, mode: Mode) -> Rc<Integrity> {
    Integrity::open(disk.device(), above(name, mode)).await.unwrap()
}

/// Tags of eight bytes that name their block and the version of the data; of version 0 they are blank.
fn tags(device: &Device, sector: u64, sectors: u64, version: u64) -> Vec<u8> {
    let step = usize_of(device.limits().logical_block.sectors());
    (sector..sector + sectors)
        .step_by(step)
        .flat_map(|sector| match version {
            0 => [device.limits().blank_tag(); 8],
            _ => ((sector + 1) << 32 | version).to_be_bytes(),
        })
        .collect()
}

async fn put_tagged(device: &Device, sector: u64, sectors: u64, version: u64) -> IoResult {
    let tags = Buf::copy_of(&tags(device, sector, sectors, version));
    let data = Buf::copy_of(&pattern(sector, sectors, version));
    device.submit(&mut Bio::write(Sector(sector), data).tagged(tags)).await
}

async fn get(device: &Device, sector: u64, sectors: u64, bypass: bool) -> IoResult<Bio> {
    let blocks = sectors / device.limits().logical_block.sectors();
    let tags = Buf::alloc(usize_of(blocks) * device.limits().tag_size);
    let mut bio = Bio::read(Sector(sector), sectors).tagged(tags);
    bio.bypass = bypass;
    device.submit(&mut bio).await.map(|()| bio)
}

async fn assert_kept(device: &Device, sector: u64, sectors: u64, version: u64) {
    for bypass in [false, true] {
        let bio = get(device, sector, sectors, bypass).await.unwrap();
        let found = (bio.data.to_single(), bio.tags.to_single());
        assert!(found.0.as_slice() == pattern(sector, sectors, version), "{sector} v{version}");
        let expected = tags(device, sector, sectors, version);
        assert!(found.1.as_slice() == expected, "tags of {sector}+{sectors} v{version}");
    }
    assert_holds(device, sector, sectors, version).await;
}

#[test]
fn data_and_tags_come_back_as_they_were_given_at_once_and_in_every_mode() {
    for (mode, block, name) in MODES
        .into_iter()
        .flat_map(|mode| [512, 4096].map(move |block| (mode, block)))
        .flat_map(|(mode, block)| [OPAQUE, TUPLES].map(|name| (mode, block, name)))
    {
        runtime::block_on(async move {
            let disk = made_above(name, block, 900, 16384).await;
            let volume = open_above(&disk, name, mode).await;
            let device = volume.device();
            assert_eq!((device.limits().tag_size, device.limits().verified), (8, false));
            put_tagged(&device, 200, 3000, 1).await.unwrap();
            put_tagged(&device, 304, 8, 2).await.unwrap();
            // Without tags: nothing that is there may vouch for what is new.
            put(&device, 400, 16, 3).await.unwrap();
            device.submit(&mut Bio::write_zeroes(Sector(1000), 400, true)).await.unwrap();
            device.submit(&mut Bio::discard(Sector(2000), 8)).await.unwrap();
            let check = async |device: &Device| {
                assert_kept(device, 200, 104, 1).await;
                assert_kept(device, 304, 8, 2).await;
                assert_kept(device, 312, 88, 1).await;
                assert_kept(device, 416, 584, 1).await;
                assert_kept(device, 1000, 400, 0).await;
                assert_kept(device, 1400, 600, 1).await;
                assert_kept(device, 2000, 8, 0).await;
                assert_kept(device, 2008, 1192, 1).await;
                let untagged = get(device, 400, 16, true).await.unwrap();
                assert_eq!(untagged.data.to_single().as_slice(), pattern(400, 16, 3));
                let blank = tags(device, 400, 16, 0);
                assert_eq!(untagged.tags.to_single().as_slice(), blank);
            };
            check(&device).await;
            device.flush().await.unwrap();
            check(&device).await;
            volume.close().await.unwrap();
            for next in [Mode::Journal, mode] {
                // These tags are tuples of nobody: only the layer itself does not mind.
                let options = Options { sample: false, ..above(name, next) };
                let volume = Integrity::open(disk.device(), options).await.unwrap();
                check(&volume.device()).await;
                volume.close().await.unwrap();
            }
        });
    }
}

#[test]
fn tags_stay_with_their_blocks_however_a_request_is_cut() {
    runtime::block_on(async {
        for (mode, cuts) in MODES.into_iter().flat_map(|mode| {
            [[100, 700, 3000], [4096, 8192, 8200], [1, 2, 3]].map(|cuts| (mode, cuts))
        }) {
            let disk = made_above(OPAQUE, 4096, 900, 16384).await;
            let volume = open_above(&disk, OPAQUE, mode).await;
            let device = volume.device();
            // Across the end of a run of 256 sectors.
            let (sector, sectors) = (200, 160);
            let cut = |bytes: &[u8], at: &[usize]| -> Segments {
                let ends = at.iter().copied().chain([bytes.len()]);
                let starts = [0].into_iter().chain(at.iter().copied());
                starts.zip(ends).map(|(start, end)| Buf::copy_of(&bytes[start..end])).collect()
            };
            let data = cut(&pattern(sector, sectors, 5), &cuts);
            let tags = cut(&tags(&device, sector, sectors, 5), &[1, 9, 33]);
            let mut write = Bio::write(Sector(sector), data).tagged(tags);
            device.submit(&mut write).await.unwrap();
            assert_kept(&device, sector, sectors, 5).await;
            device.flush().await.unwrap();
            let blank = vec![0; bytes(sectors)];
            let mut read = Bio::read_into(Sector(sector), cut(&blank, &cuts))
                .tagged(cut(&blank[..160], &[7, 50, 51]));
            device.submit(&mut read).await.unwrap();
            assert_eq!(read.data.to_single().as_slice(), pattern(sector, sectors, 5));
            assert_eq!(read.tags.to_single().as_slice(), write.tags.to_single().as_slice());
            volume.close().await.unwrap();
        }
    });
}

#[test]
fn readers_never_see_data_and_tags_of_two_writes() {
    for mode in MODES {
        runtime::block_on(async move {
            let disk = made_above(OPAQUE, 512, 600, 16384).await;
            disk.record(78);
            let options = Options { tag_cache_bytes: 8192, memory_bytes: 1, ..above(OPAQUE, mode) };
            let volume = Integrity::open(disk.device(), options).await.unwrap();
            let device = volume.device();
            let tasks: Vec<_> = (0..24_u64)
                .map(|task| {
                    let device = device.clone();
                    runtime::spawn(async move {
                        for round in 1..20 {
                            let at = (task * 37 + round * 11) % 12 * 250;
                            put_tagged(&device, at, 64, task * 100 + round).await.unwrap();
                            if round % 5 == 0 {
                                device.flush().await.unwrap();
                            }
                            for bypass in [false, true] {
                                let found = get(&device, at, 128, bypass).await.unwrap();
                                assert_each_of_one_write(&device, &found);
                            }
                        }
                    })
                })
                .collect();
            runtime::join_all(tasks).await;
            volume.close().await.unwrap();
        });
    }
}

/// Whatever its version: a block's data is that of which its tag is.
fn assert_each_of_one_write(device: &Device, found: &Bio) {
    for (sector, data, tag) in blocks(device, found) {
        let version = version_of(device, sector, &tag).expect("a tag of this block");
        let sectors = device.limits().logical_block.sectors();
        assert!(data == pattern(sector, sectors, version), "{sector}: tag of version {version}");
    }
}

fn blocks(device: &Device, found: &Bio) -> Vec<(u64, Vec<u8>, [u8; 8])> {
    let block = device.limits().logical_block;
    let (data, tags) = (found.data.to_single(), found.tags.to_single());
    let firsts = (found.sector.0..).step_by(usize_of(block.sectors()));
    let each = data.as_slice().chunks(block.bytes()).zip(tags.as_slice().chunks(8));
    firsts.zip(each).map(|(at, (data, tag))| (at, data.to_vec(), tag.try_into().unwrap())).collect()
}

fn version_of(device: &Device, sector: u64, tag: &[u8; 8]) -> Option<u64> {
    if *tag == [device.limits().blank_tag(); 8] {
        return Some(0);
    }
    let word = u64::from_be_bytes(*tag);
    (word >> 32 == sector + 1).then_some(word & 0xffff_ffff)
}

/// Writes, zeroes and flushes at random; every version that a block may have after a cut behind each
/// mark.
async fn history(disk: &Rc<Disk>, seed: u64) -> Vec<BTreeMap<u64, Vec<u64>>> {
    let volume = open_above(disk, OPAQUE, Mode::Journal).await;
    let device = volume.device();
    let spb = device.limits().logical_block.sectors();
    let mut legal: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut marks = Vec::new();
    let mut dice = seed;
    let mut roll = move |sides: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (dice >> 33) % sides
    };
    for version in 1..25 {
        let start = roll(30) * spb;
        let count = (1 + roll(12)) * spb;
        let kind = roll(6);
        let stored = if kind == 1 { 0 } else { version };
        if kind > 0 {
            for sector in (start..start + count).step_by(usize_of(spb)) {
                legal.entry(sector).or_insert_with(|| vec![0]).push(stored);
            }
        }
        marks.push(legal.clone());
        disk.mark(marks.len() - 1);
        match kind {
            0 => {
                device.flush().await.unwrap();
                legal.values_mut().for_each(|versions| drop(versions.drain(..versions.len() - 1)));
            }
            1 => {
                let mut zero = Bio::write_zeroes(Sector(start), count, version % 2 == 0);
                device.submit(&mut zero).await.unwrap();
            }
            _ => put_tagged(&device, start, count, version).await.unwrap(),
        }
    }
    marks.push(legal);
    disk.mark(marks.len() - 1);
    marks
}

#[test]
fn every_cut_leaves_data_and_tags_of_one_write_old_or_new() {
    for (block, journal, seed) in [(512, 600, 1), (512, 1, 2), (4096, 1600, 3), (4096, 1, 4)] {
        runtime::block_on(async move {
            let disk = made_above(OPAQUE, block, journal, journal + 900).await;
            let base = disk.content();
            disk.record(seed);
            let marks = history(&disk, seed).await;
            let (steps, mut mark) = (disk.steps(), 0);
            for cut in 0..=steps.len() {
                if let Some(Step::Mark(reached)) = cut.checked_sub(1).map(|last| &steps[last]) {
                    mark = *reached;
                    continue;
                }
                for image in leftovers(&base, &steps, cut, 2) {
                    let recovered = assert_one_of(&image, &marks[mark], cut).await;
                    let again = recovered.steps();
                    for second in (0..=again.len()).step_by(5) {
                        for image in leftovers(&image, &again, second, 1) {
                            assert_one_of(&image, &marks[mark], cut).await;
                        }
                    }
                }
            }
        });
    }
}

async fn assert_one_of(image: &[u8], legal: &BTreeMap<u64, Vec<u64>>, cut: usize) -> Rc<Disk> {
    let disk = Disk::holding(image.to_vec());
    for read_only in [true, false] {
        disk.record(1);
        let options = Options { read_only, ..above(OPAQUE, Mode::Journal) };
        let volume = Integrity::open(disk.device(), options).await.unwrap();
        let device = volume.device();
        let spb = device.limits().logical_block.sectors();
        let found = get(&device, 0, 42 * spb, false).await.unwrap();
        for (sector, data, tag) in blocks(&device, &found) {
            let version = version_of(&device, sector, &tag);
            let allowed = legal.get(&sector).map_or(&[0][..], Vec::as_slice);
            let is_legal = version.is_some_and(|version| {
                allowed.contains(&version) && data == pattern(sector, spb, version)
            });
            assert!(is_legal, "cut {cut}, sector {sector}: {version:?} of {allowed:?}");
        }
    }
    disk
}

fn profile(volume: &Rc<Integrity>) -> Profile {
    volume.device().limits().protection.expect("tuples were named")
}

#[test]
fn a_new_volume_of_tuples_has_valid_ones_everywhere() {
    for name in ["t10-dif-type1-crc16", "t10-dif-type2-ip", "t10-dif-type3-crc16"] {
        runtime::block_on(async move {
            let disk = made_above(name, 512, 600, 16384).await;
            let volume = open_above(&disk, name, Mode::Journal).await;
            let whole = get(&volume.device(), 0, volume.layout().provided_sectors, true).await;
            let whole = whole.unwrap();
            assert_eq!(whole.verify(&profile(&volume), |_| {}), Ok(()), "{name}");
            let tags = whole.tags.to_single();
            assert!(tags.as_slice().chunks(8).all(|tag| tag[2..4] == [0, 0]), "no escapes");
            assert!(volume.inner.scrubbed_bad().await.is_empty());
        });
    }
}

impl crate::integrity::Inner {
    /// The first bad sector of each piece of 128 that has one.
    async fn scrubbed_bad(&self) -> Vec<u64> {
        let mut bad = Vec::new();
        for start in (0..self.layout.provided_sectors / 128 * 128).step_by(128) {
            let mut bio = Bio::read(Sector(start), 128).bypassing();
            bad.extend(self.read_judged(&mut bio).await.err().map(|error| error.sector.0));
        }
        bad
    }
}

#[test]
fn a_scrub_finds_what_tuples_do_not_vouch_for() {
    runtime::block_on(async {
        let disk = made_above(TUPLES, 512, 600, 16384).await;
        let heard = Rc::new(RefCell::new(Vec::new()));
        let sink = Rc::clone(&heard);
        let events = Events::new(move |event| sink.borrow_mut().push(event));
        let options = Options { events, ..above(TUPLES, Mode::Journal) };
        let volume = Integrity::open(disk.device(), options).await.unwrap();
        let at = |sector| volume.layout().run(Sector(sector), 1);
        disk.flip(at(700).data.bytes() + 9, 4);
        disk.flip(at(1500).tag_byte + 7, 1);
        disk.flip(at(2500).tag_byte, 0x80);
        assert_eq!(volume.inner.scrubbed_bad().await, [700, 1500, 2500]);
        let mismatches = heard.borrow();
        assert!(mismatches.iter().all(|e| matches!(e.kind, EventKind::Mismatch { .. })));
        assert_eq!(mismatches.len(), 3);
    });
}

#[test]
fn neighbours_of_a_tag_that_cannot_be_read_stay_unreadable_by_their_tuples() {
    for mode in MODES {
        runtime::block_on(async move {
            let disk = made_above(TUPLES, 512, 600, 16384).await;
            let volume = open_above(&disk, TUPLES, mode).await;
            let device = volume.device();
            let profile = profile(&volume);
            let mut whole = Bio::write(Sector(0), Buf::copy_of(&pattern(0, 128, 1)));
            whole.sign(&profile);
            device.submit(&mut whole).await.unwrap();
            volume.close().await.unwrap();
            // The tags of blocks 0 to 63 lie in one sector of the disk.
            disk.bad.borrow_mut().insert(volume.layout().run(Sector(0), 1).tag_byte / 512);
            let volume = open_above(&disk, TUPLES, mode).await;
            let device = volume.device();
            let mut one = Bio::write(Sector(3), Buf::copy_of(&pattern(3, 1, 2)));
            one.sign(&profile);
            device.submit(&mut one).await.unwrap();
            volume.close().await.unwrap();
            let volume = open_above(&disk, TUPLES, mode).await;
            let found = get(&volume.device(), 0, 128, true).await.unwrap();
            let mut bad = Vec::new();
            let _first = found.verify(&profile, |mismatch| bad.push(mismatch.address));
            assert_eq!(bad, (0..64).filter(|&block| block != 3).collect::<Vec<_>>());
        });
    }
}

#[test]
fn what_needs_a_hash_is_refused_by_name() {
    runtime::block_on(async {
        let disk = made_above(OPAQUE, 512, 600, 16384).await;
        let journal = || above(OPAQUE, Mode::Journal);
        let recalculate = crate::integrity::Recalculate::Reset;
        for (options, what) in [
            (above(OPAQUE, Mode::Bitmap), "bitmap mode needs"),
            (Options { recalculate, ..journal() }, "recalculation needs"),
            (Options { allow_discards: true, ..journal() }, "discarding needs"),
            (above("t10-dif-type1-crc16", Mode::Bitmap), "bitmap mode needs"),
            (above("t10-dif-type1-crc64", Mode::Journal), "tuples of 16 bytes"),
        ] {
            let refused = refused(&disk, options).await.to_string();
            assert!(refused.contains(what), "{refused}");
        }
        let format = FormatOptions { tag_size: 8, ..format_options(512, 600) };
        let new = NewVolume::new(format, source(TUPLES), Wipe::Recalculate);
        let refused = create(disk.device(), &new, |_, _| {}).await.unwrap_err();
        assert!(refused.to_string().contains("recalculation"), "{refused}");
    });
}

#[test]
fn tuples_of_another_guard_are_noticed_before_anything_is_written() {
    runtime::block_on(async {
        let disk = made_above(TUPLES, 512, 600, 16384).await;
        let before = disk.content();
        let other = refused(&disk, above("t10-dif-type1-ip", Mode::Journal)).await;
        assert!(matches!(other, OpenError::NothingVerifies { .. }), "{other}");
        assert!(disk.content() == before);
        // Reading is not refused; and nothing is known of tags that have no meaning here.
        let reading = above("t10-dif-type1-ip", Mode::Journal).read_only();
        assert!(Integrity::open(disk.device(), reading).await.is_ok());
        open_above(&disk, OPAQUE, Mode::Journal).await;
    });
}

#[test]
fn a_copy_in_a_damaged_journal_counts_only_if_data_and_tag_are_those_at_home() {
    runtime::block_on(async {
        let disk = made_above(OPAQUE, 512, 600, 16384).await;
        let volume = open_above(&disk, OPAQUE, Mode::Journal).await;
        put_tagged(&volume.device(), 0, 20, 1).await.unwrap();
        volume.close().await.unwrap();
        let options = Options { watermark: 100, ..above(OPAQUE, Mode::Journal) };
        let volume = Integrity::open(disk.device(), options).await.unwrap();
        let (device, journal) = (volume.device(), volume.layout().journal);
        // Block 5 as it is, 6 with another tag, 7 with other data, too.
        put_tagged(&device, 5, 1, 1).await.unwrap();
        let data = Buf::copy_of(&pattern(6, 1, 1));
        let mut tag = Bio::write(Sector(6), data).tagged(Buf::copy_of(&[9; 8]));
        device.submit(&mut tag).await.unwrap();
        put_tagged(&device, 7, 1, 2).await.unwrap();
        device.flush().await.unwrap();
        let disk = Disk::holding(disk.content());
        drop(volume);
        let starts = (0..journal.sections).map(|number| journal.section_start(number).bytes());
        let mut used = starts.filter(|&start| disk.content()[usize_of(start) + 7] == 0);
        disk.flip(used.next().unwrap() + 60 * 512 + 511, 0x08);

        let reading = above(OPAQUE, Mode::Journal).read_only();
        let volume = Integrity::open(disk.device(), reading).await.unwrap();
        let device = volume.device();
        assert_kept(&device, 0, 6, 1).await;
        assert_kept(&device, 8, 12, 1).await;
        assert_holds(&device, 6, 1, 1).await;
        let refused = |sector| Some(IoErrorKind::Protection.at(Sector(sector)));
        assert_eq!(get(&device, 0, 20, false).await.err(), refused(6));
        assert_eq!(read(&device, 0, 20).await.err(), refused(7));
    });
}

#[test]
fn a_failed_read_is_an_error_of_the_block() {
    runtime::block_on(async {
        let disk = made_above(OPAQUE, 4096, 900, 16384).await;
        let volume = open_above(&disk, OPAQUE, Mode::Journal).await;
        let device = volume.device();
        put_tagged(&device, 0, 800, 1).await.unwrap();
        volume.close().await.unwrap();
        let volume = open_above(&disk, OPAQUE, Mode::Journal).await;
        let device = volume.device();
        disk.bad.borrow_mut().insert(volume.layout().run(Sector(400), 8).data.0 + 3);
        let failed = get(&device, 320, 160, false).await.unwrap_err();
        assert_eq!(failed, IoErrorKind::Medium.at(Sector(400)));
        assert_kept(&device, 320, 80, 1).await;
        assert_kept(&device, 408, 72, 1).await;
    });
}
