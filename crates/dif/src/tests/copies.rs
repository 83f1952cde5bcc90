//! Insert, strip, split, join, overwrite: the bytes of the oracle, verdicts of what was copied, and back.

use super::*;

/// Verdicts of an operation as others may know them.
fn told(run: impl FnOnce(&mut dyn FnMut(Mismatch))) -> Vec<(Tag, u64, u64, u64, u64)> {
    let mut told = Vec::new();
    run(&mut |mismatch| told.push(said(&mismatch)));
    told
}

proptest! {
    #[test]
    fn what_is_inserted_is_what_the_oracle_makes_and_stripped_it_is_the_data_again(
        oracle in any_oracle(),
        intervals in 0_usize..5,
        (data_cuts, block_cuts) in (any_cuts(), any_cuts()),
        seed in any::<u64>(),
    ) {
        let data = noise(intervals * oracle.interval, seed);
        let mut metadata = vec![0; intervals * oracle.metadata];
        oracle.sign(&data, &mut metadata);
        let protection = oracle.protection();
        let mut blocks = noise(data.len() + metadata.len(), !seed);
        protection.insert(cut(&data, &data_cuts), cut_mut(&mut blocks, &block_cuts));
        prop_assert_eq!(&blocks, &oracle.interleaved(&data, &metadata));

        let mut back = noise(data.len(), 1);
        protection.strip(cut(&blocks, &block_cuts), cut_mut(&mut back, &data_cuts), |found| {
            panic!("{found}")
        });
        prop_assert_eq!(back, data);
    }

    #[test]
    fn what_is_split_and_joined_is_what_it_was(
        oracle in any_oracle(),
        intervals in 0_usize..4,
        (data_cuts, metadata_cuts, block_cuts) in (any_cuts(), any_cuts(), any_cuts()),
        seed in any::<u64>(),
    ) {
        let (data, metadata) = oracle.filled(intervals, seed);
        let blocks = oracle.interleaved(&data, &metadata);
        let (mut data_out, mut metadata_out) = (vec![0; data.len()], vec![0; metadata.len()]);
        let protection = oracle.protection();
        protection.split(
            cut(&blocks, &block_cuts),
            cut_mut(&mut data_out, &data_cuts),
            cut_mut(&mut metadata_out, &metadata_cuts),
            |found| panic!("{found}"),
        );
        prop_assert_eq!((&data_out, &metadata_out), (&data, &metadata));

        let mut joined = vec![0; blocks.len()];
        protection.join(
            cut(&data, &data_cuts),
            cut(&metadata, &metadata_cuts),
            cut_mut(&mut joined, &block_cuts),
            |found| panic!("{found}"),
        );
        prop_assert_eq!(joined, blocks);
    }

    #[test]
    fn what_is_overwritten_has_new_tuples_and_the_owners_bytes(
        oracle in any_oracle(),
        intervals in 0_usize..4,
        (from, to) in (any_cuts(), any_cuts()),
        seed in any::<u64>(),
    ) {
        let (data, metadata) = oracle.filled(intervals, seed);
        let unsigned = oracle.interleaved(&data, &noise(metadata.len(), !seed));
        let mut target = noise(unsigned.len(), 9);
        oracle.protection().overwrite(cut(&unsigned, &from), cut_mut(&mut target, &to));
        prop_assert_eq!(target, oracle.interleaved(&data, &metadata));
    }

    #[test]
    fn what_is_wrong_is_told_by_every_way_and_copied_as_it_is(
        oracle in any_oracle(),
        intervals in 1_usize..4,
        at in any::<prop::sample::Index>(),
        flip in 1_u8..,
        (data_cuts, metadata_cuts, block_cuts) in (any_cuts(), any_cuts(), any_cuts()),
        seed in any::<u64>(),
    ) {
        let (data, metadata) = oracle.filled(intervals, seed);
        let mut blocks = oracle.interleaved(&data, &metadata);
        let at = at.index(blocks.len());
        blocks[at] ^= flip;
        let stride = oracle.interval + oracle.metadata;
        let (data, metadata): (Vec<_>, Vec<_>) =
            blocks.chunks(stride).map(|block| block.split_at(oracle.interval)).unzip();
        let (data, metadata) = (data.concat(), metadata.concat());

        let protection = oracle.protection();
        let expected: Vec<_> = found(&protection, &data, &metadata).iter().map(said).collect();
        let mut stripped = vec![0; data.len()];
        let ways = told(|found| {
            protection.strip(cut(&blocks, &block_cuts), cut_mut(&mut stripped, &data_cuts), found);
        });
        prop_assert_eq!((&ways, &stripped), (&expected, &data));

        let (mut data_out, mut metadata_out) = (vec![0; data.len()], vec![0; metadata.len()]);
        let ways = told(|found| {
            protection.split(
                cut(&blocks, &block_cuts),
                cut_mut(&mut data_out, &data_cuts),
                cut_mut(&mut metadata_out, &metadata_cuts),
                found,
            );
        });
        prop_assert_eq!((&ways, &data_out, &metadata_out), (&expected, &data, &metadata));

        let mut joined = vec![0; blocks.len()];
        let ways = told(|found| {
            protection.join(
                cut(&data, &data_cuts),
                cut(&metadata, &metadata_cuts),
                cut_mut(&mut joined, &block_cuts),
                found,
            );
        });
        prop_assert_eq!((&ways, &joined), (&expected, &blocks));
    }
}

#[test]
fn many_intervals_go_through_the_batches_of_strip_as_one_does() {
    // More than a batch of data, and more than a batch of metadata, each with an interval that is wrong.
    for (interval, metadata) in [(512, 8), (512, 64), (4096, 500), (4096, 513), (32768, 8)] {
        for first in [false, true] {
            let mut oracle = Oracle::new(Guard::Crc16, interval, ProtectionType::One);
            (oracle.metadata, oracle.first) = (metadata, first && metadata > 8);
            let intervals = 3 * (16 << 10) / interval.min(16 << 10) + 1;
            let (mut data, metadata) = oracle.filled(intervals, 4);
            data[interval * (intervals - 1)] ^= 1;
            let blocks = oracle.interleaved(&data, &metadata);
            let mut stripped = vec![0; data.len()];
            let ways =
                told(|found| oracle.protection().strip([&blocks[..]], [&mut stripped[..]], found));
            let expected: Vec<_> =
                found(&oracle.protection(), &data, &metadata).iter().map(said).collect();
            assert_eq!((ways.len(), ways), (1, expected));
            assert_eq!(stripped, data);
        }
    }
}
