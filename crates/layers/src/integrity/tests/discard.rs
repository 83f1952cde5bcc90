//! Discards that leave tags of their own.

use super::damage::{with_flags, written};
use super::disk::Step;
use super::*;
use ::integrity::Flags;
use bio::IoErrorKind;

const MODES: [Mode; 3] = [Mode::Journal, Mode::Direct, Mode::Bitmap];

fn allowing() -> Options {
    Options { allow_discards: true, ..options() }
}

/// In bitmap mode with regions of 64 blocks.
fn allowing_in(mode: Mode) -> Options {
    let log2_blocks_per_bitmap_bit = (mode == Mode::Bitmap).then_some(6);
    Options { mode: Some(mode), log2_blocks_per_bitmap_bit, ..allowing() }
}

async fn discard(volume: &Rc<Integrity>, sector: u64, sectors: u64) {
    volume.device().submit(&mut Bio::discard(Sector(sector), sectors)).await.unwrap();
}

#[test]
fn a_discarded_block_has_the_kernels_filler_and_is_read_only_where_that_is_allowed() {
    runtime::block_on(async {
        for (mode, block) in MODES.into_iter().flat_map(|mode| [(mode, 512), (mode, 4096)]) {
            let (disk, layout) = written(block).await;
            // What the journal still holds of the last opening must have been overwritten.
            let volume = Integrity::open(disk.device(), allowing_in(mode)).await.unwrap();
            discard(&volume, 800, 160).await;
            assert_holds(&volume.device(), 800, 160, 0).await;
            assert_holds(&volume.device(), 960, 400, 1).await;
            volume.close().await.unwrap();
            let run = layout.run(Sector(800), layout.block.sectors());
            let tag = usize_of(run.tag_byte);
            assert_eq!(disk.content()[tag..tag + layout.tag_bytes], [0xf6; 4]);
            let volume = Integrity::open(disk.device(), allowing().read_only()).await.unwrap();
            assert_holds(&volume.device(), 800, 160, 0).await;
            let volume = Integrity::open(disk.device(), in_mode(mode)).await.unwrap();
            let refused = volume.device().read(Sector(800), 160).await.map(drop);
            assert_eq!(refused, Err(IoErrorKind::Protection.at(Sector(800))));
            // Written again, it is like any other.
            put(&volume.device(), 800, 160, 3).await.unwrap();
            volume.close().await.unwrap();
            assert_holds(&opened(&disk).await.device(), 800, 160, 3).await;
        }
    });
}

#[test]
fn not_allowed_a_discard_leaves_zeroes_that_everybody_can_read() {
    runtime::block_on(async {
        let (disk, _) = written(512).await;
        let volume = opened(&disk).await;
        discard(&volume, 800, 160).await;
        volume.close().await.unwrap();
        assert_holds(&opened(&disk).await.device(), 800, 160, 0).await;
    });
}

#[test]
fn tags_are_durable_before_the_discard_goes_down() {
    for mode in MODES {
        runtime::block_on(async move {
            let (disk, layout) = written(512).await;
            let volume = Integrity::open(disk.device(), allowing_in(mode)).await.unwrap();
            disk.record(3);
            discard(&volume, 800, 100).await;
            let run = layout.run(Sector(800), 100);
            let (tags, data) = (usize_of(run.tag_byte / 4096 * 4096), usize_of(run.data.bytes()));
            let steps = disk.steps();
            let position = |wanted: &dyn Fn(&Step) -> bool| steps.iter().position(wanted).unwrap();
            let tags = position(&|step| matches!(step, Step::Write { at, .. } if *at == tags));
            let flush = tags + steps[tags..].iter().position(|s| matches!(s, Step::Flush)).unwrap();
            let data = position(&|step| matches!(step, Step::Write { at, .. } if *at == data));
            assert!(tags < flush && flush < data, "{tags} {flush} {data}");
            if mode == Mode::Bitmap {
                let Step::Write { at: 4096, forced: true, .. } = steps[0] else { panic!() };
            }
        });
    }
}

/// What was discarded may be anything until it is written again and flushed; everything else is what
/// it was.
#[test]
fn every_cut_leaves_what_was_not_discarded_and_what_was_written_and_flushed_since() {
    for (mode, block) in MODES.into_iter().flat_map(|mode| [(mode, 512), (mode, 4096)]) {
        runtime::block_on(async move {
            let (disk, _) = written(block).await;
            let base = disk.content();
            disk.record(block + 1);
            let volume = Integrity::open(disk.device(), allowing_in(mode)).await.unwrap();
            let device = volume.device();
            put(&device, 400, 80, 2).await.unwrap();
            device.flush().await.unwrap();
            disk.mark(1);
            discard(&volume, 440, 200).await;
            device.flush().await.unwrap();
            disk.mark(2);
            put(&device, 480, 80, 3).await.unwrap();
            device.flush().await.unwrap();
            disk.mark(3);
            volume.close().await.unwrap();
            let steps = disk.steps();
            let mut mark = 0;
            for cut in 0..=steps.len() {
                if let Some(Step::Mark(reached)) = cut.checked_sub(1).map(|last| &steps[last]) {
                    mark = *reached;
                }
                for image in super::crash::leftovers(&base, &steps, cut, 2) {
                    let crashed = Disk::holding(image);
                    let volume = Integrity::open(crashed.device(), allowing_in(mode)).await;
                    let device = volume.unwrap().device();
                    assert_holds(&device, 0, 400, 1).await;
                    assert_holds(&device, 640, 1000, 1).await;
                    if mark >= 1 {
                        assert_holds(&device, 400, 40, 2).await;
                    }
                    if mark == 2 {
                        assert_holds(&device, 560, 80, 0).await;
                    }
                    if mark == 3 {
                        assert_holds(&device, 440, 40, 0).await;
                        assert_holds(&device, 480, 80, 3).await;
                        assert_holds(&device, 560, 80, 0).await;
                    }
                }
            }
        });
    }
}

#[test]
fn no_crash_brings_back_from_the_journal_what_was_discarded_and_flushed() {
    runtime::block_on(async {
        let (disk, _) = written(512).await;
        let volume = Integrity::open(disk.device(), allowing()).await.unwrap();
        put(&volume.device(), 100, 50, 2).await.unwrap();
        volume.device().flush().await.unwrap();
        discard(&volume, 90, 70).await;
        volume.device().flush().await.unwrap();
        // The journal has the old copies, and, behind them, what became of them.
        let crashed = Disk::holding(disk.content());
        let volume = Integrity::open(crashed.device(), allowing()).await.unwrap();
        assert_holds(&volume.device(), 90, 70, 0).await;
        // Home by now, and still in the journal.
        discard(&volume, 100, 50).await;
        volume.device().flush().await.unwrap();
        let crashed = Disk::holding(crashed.content());
        let volume = Integrity::open(crashed.device(), allowing()).await.unwrap();
        assert_holds(&volume.device(), 90, 70, 0).await;
        assert_holds(&volume.device(), 160, 500, 1).await;
    });
}

#[test]
fn keyed_discards_are_read_with_the_key_alone_and_written_like_the_kernel_does() {
    for mode in MODES {
        runtime::block_on(async move { keyed_in(mode).await });
    }
}

async fn keyed_in(mode: Mode) {
    let key = checksum::Key::new([3; 32]).unwrap();
    let disk = Disk::new(16384);
    let format = ::integrity::FormatOptions { tag_size: 32, ..format_options(512, 900) };
    let mut new = NewVolume::new(format, Algorithm::HmacSha256, Wipe::Zeroes);
    new.key = Some(key.clone());
    let (made, layout) = create(disk.device(), &new, |_, _| {}).await.unwrap();
    with_flags(&disk, |superblock| {
        superblock.flags = superblock.flags.with(Flags::DISCARD_KEYED);
        superblock.version = 7;
    });
    let keyed = Options {
        integrity_key: Some(key.clone()),
        mode: Some(mode),
        ..Options::new(Algorithm::HmacSha256, Events::none())
    };
    let allowing = Options { allow_discards: true, ..keyed.clone() };
    let volume = Integrity::open(disk.device(), allowing).await.unwrap();
    put(&volume.device(), 0, 500, 1).await.unwrap();
    volume.device().flush().await.unwrap();
    discard(&volume, 1000, 100).await;
    volume.close().await.unwrap();
    // Section 5.1: H(salt || LE64(n)).
    let mac = checksum::Mac::new(Algorithm::HmacSha256, Some(&key)).unwrap();
    let expected = mac.digest(&[&made.salt, &1000_u64.to_le_bytes()]);
    let tag = usize_of(layout.run(Sector(1000), 1).tag_byte);
    assert_eq!(disk.content()[tag..tag + 32], *expected.as_bytes());
    // The key's owner wrote them: nobody has to allow them again.
    let volume = Integrity::open(disk.device(), keyed).await.unwrap();
    assert_holds(&volume.device(), 1000, 100, 0).await;
    // The filler, which anybody can write, is none of them.
    disk.set(layout.run(Sector(1100), 1).tag_byte, &[0xf6; 32]);
    let refused = read_past_cache(&volume.device(), 1100, 1).await.map(drop);
    assert_eq!(refused, Err(IoErrorKind::Protection.at(Sector(1100))));
}
