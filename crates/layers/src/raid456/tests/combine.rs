//! More damage than redundancy: what is accepted is right, whatever the damage.

use super::*;
use bio::{Finding, ScrubMode};
use proptest::prelude::*;

/// How a sector is hurt.
#[derive(Clone, Copy, Debug)]
enum Harm {
    /// One bit of the data.
    Bit(usize),
    /// More of the data.
    Bytes(u8),
    /// The tag alone.
    Tag,
    /// Data and tag.
    Both(u8),
    /// A medium error.
    Unreadable,
}

impl Bench {
    fn harm(&self, disk: usize, place: u64, harm: Harm) {
        let target = &self.rig.disks[disk];
        let at = usize_of(place) * 512;
        let garble = |seed: u8| {
            let mut bytes = target.bytes.borrow_mut();
            (1..)
                .zip(&mut bytes[at..at + 40])
                .for_each(|(n, byte)| *byte ^= seed.wrapping_mul(n) | 1);
        };
        match harm {
            Harm::Bit(bit) => target.bytes.borrow_mut()[at + bit / 8] ^= 1 << (bit % 8),
            Harm::Bytes(seed) => garble(seed),
            Harm::Tag => target.flip_tag(place),
            Harm::Both(seed) => {
                garble(seed);
                target.flip_tag(place);
            }
            Harm::Unreadable => drop(target.unreadable.borrow_mut().insert(place)),
        }
    }
}

/// One row of `bench` hurt, then read whole and scrubbed.
async fn all_of(bench: &Bench, harms: &[(usize, Harm)]) -> Result<(), String> {
    let content = bench.fill().await;
    let before = bench.rig.images();
    for &(disk, harm) in harms {
        bench.harm(disk, DATA_OFFSET, harm);
    }
    for sector in 0..bench.sectors() {
        let wanted = &content[usize_of(sector) * 512..][..512];
        match bench.read(sector, 1).await {
            Ok(found) if found == wanted => {}
            Ok(_) => panic!("sector {sector} is wrong: {harms:?}"),
            Err(error) => return Err(error.to_string()),
        }
    }
    let mut found = bio::Findings::default();
    for step in 0..bench.raid.steps() {
        found.merge(bench.raid.scrub(step, ScrubMode::Repair).await);
    }
    let healed = found.found.iter().all(|(finding, ..)| *finding == Finding::Healed);
    assert!(healed && bench.rig.images() == before, "{:?}", found.found);
    assert!((0..bench.rig.disks.len()).all(|disk| bench.rig.disks[disk].intact(DATA_OFFSET)));
    Ok(())
}

#[test]
fn a_strip_whose_tag_alone_rotted_stands_in_for_parity() {
    for (a, b) in [(0, 1), (1, 0), (2, 3), (3, 2), (0, 3), (3, 1)] {
        runtime::block_on(async move {
            let bench = Bench::raid5(true);
            all_of(&bench, &[(a, Harm::Tag), (b, Harm::Bytes(7))]).await.unwrap();
            assert_eq!(bench.count(|kind| *kind == EventKind::Lost), 0);
            let bench = Bench::raid5(true);
            all_of(&bench, &[(a, Harm::Tag), (b, Harm::Unreadable)]).await.unwrap();
            let bench = Bench::raid6(true);
            let both = [(a, Harm::Tag), (b, Harm::Unreadable), (4, Harm::Bytes(3))];
            all_of(&bench, &both).await.unwrap();
        });
    }
}

#[test]
fn a_turned_bit_is_turned_back_where_the_rest_agrees() {
    for (a, b) in [(0, 1), (2, 3), (3, 0)] {
        runtime::block_on(async move {
            let bench = Bench::raid5(true);
            all_of(&bench, &[(a, Harm::Bit(1000)), (b, Harm::Bytes(9))]).await.unwrap();
            assert_eq!(bench.healed(), [true, true]);
            // Two single bits: either is turned back and the other computed.
            let bench = Bench::raid5(true);
            all_of(&bench, &[(a, Harm::Bit(0)), (b, Harm::Bit(0))]).await.unwrap();
            let bench = Bench::raid6(true);
            let four = [
                (a, Harm::Bit(5)),
                (b, Harm::Bytes(1)),
                (4, Harm::Unreadable),
                (1, Harm::Bit(4000)),
            ];
            let of_four = if b == 1 { &four[..3] } else { &four };
            all_of(&bench, of_four).await.unwrap();
        });
    }
}

/// The same error in two strips cancels in P: what parity says of both together proves nothing.
#[test]
fn errors_that_cancel_in_parity_are_not_believed() {
    runtime::block_on(async {
        for third in [None, Some(Harm::Bytes(5)), Some(Harm::Tag)] {
            let bench = Bench::raid5(true);
            let mut harms = vec![(0, Harm::Bytes(3)), (1, Harm::Bytes(3))];
            harms.extend(third.map(|harm| (2, harm)));
            all_of(&bench, &harms).await.unwrap_err();
        }
    });
}

#[test]
fn without_a_witness_a_bit_is_not_turned() {
    runtime::block_on(async {
        // Degraded: parity has to stand in for the missing member, and is no witness.
        let bench = Bench::raid5(true);
        bench.fill().await;
        let bench = bench.reopen(&[0, 1, 2]).await;
        bench.harm(1, DATA_OFFSET, Harm::Bit(77));
        bench.read(0, bench.sectors()).await.unwrap_err();
        assert!(!bench.rig.disks[1].intact(DATA_OFFSET));
    });
}

#[test]
fn in_a_row_that_a_crash_may_have_caught_only_tags_count() {
    runtime::block_on(async {
        for (harm, comes_back) in [(Harm::Tag, false), (Harm::Bit(9), true)] {
            let bench = Bench::raid5(true);
            let content = bench.fill().await;
            bench.raid.array().set_unsynced(0..8);
            bench.harm(0, DATA_OFFSET, harm);
            bench.harm(1, DATA_OFFSET, Harm::Bytes(2));
            let found = bench.read(0, bench.sectors()).await;
            assert_eq!(found.ok() == Some(content), comes_back, "{harm:?}");
        }
    });
}

#[test]
fn a_write_beside_what_only_combinations_bring_back_keeps_it() {
    runtime::block_on(async {
        let bench = Bench::raid5(true);
        let mut content = bench.fill().await;
        let ((a, place), (b, _)) = (bench.place(2), bench.place(10));
        bench.harm(a, place, Harm::Tag);
        bench.harm(b, place, Harm::Bytes(4));
        let new = pattern(77, 18, 1);
        bench.write(18, &new).await.unwrap();
        bench.device.flush().await.unwrap();
        content[18 * 512..19 * 512].copy_from_slice(&new);
        assert_eq!(bench.read(0, bench.sectors()).await.unwrap(), content);
        assert!(bench.parity_is_true());
    });
}

#[test]
fn too_many_combinations_are_said_to_be() {
    runtime::block_on(async {
        let geometry = geometry(ParityLevel::Raid6, 8, 12);
        let rig = Rig::new(Level::Raid6, 12, true);
        let all: Vec<usize> = (0..12).collect();
        let bench = Bench::open(rig, &all, geometry, false);
        bench.fill().await;
        (0..10).for_each(|disk| bench.harm(disk, DATA_OFFSET, Harm::Both(1)));
        for _ in 0..2 {
            bench.read(0, bench.sectors()).await.unwrap_err();
        }
        let told = |event: &Event| event.detail.contains("more combinations");
        assert_eq!(bench.events().iter().filter(|event| told(event)).count(), 1);
    });
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        3 => (0usize..4096).prop_map(Harm::Bit),
        1 => Just(Harm::Bit(0)),
        2 => any::<u8>().prop_map(Harm::Bytes),
        1 => Just(Harm::Bytes(3)),
        3 => Just(Harm::Tag),
        1 => any::<u8>().prop_map(Harm::Both),
        1 => Just(Harm::Unreadable),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// `all_of` panics at the first wrong byte.
    #[test]
    fn whatever_is_damaged_each_sector_is_right_or_an_error(
        six: bool,
        harms in proptest::collection::vec((0usize..5, harm()), 1..7),
    ) {
        runtime::block_on(async move {
            let bench = if six { Bench::raid6(true) } else { Bench::raid5(true) };
            let disks = bench.rig.disks.len();
            let mut each = std::collections::BTreeMap::new();
            each.extend(harms.into_iter().map(|(disk, harm)| (disk % disks, harm)));
            let harms: Vec<_> = each.into_iter().collect();
            let _lost = all_of(&bench, &harms).await;
        });
    }
}
