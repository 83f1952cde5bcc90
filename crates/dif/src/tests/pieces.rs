//! Pieces of any length, down to single bytes: the bytes and verdicts of the oracle. And one flipped bit,
//! anywhere.

use super::*;
use crate::{Signer, Verifier};

/// Where a flipped bit is, and what has to be said of it.
#[derive(Clone, Copy, Debug)]
enum Flipped {
    /// The guard covers it, or is it.
    Guard,
    Tag(Tag),
    /// The owner's bytes behind a first tuple.
    Uncovered,
}

impl Oracle {
    /// What bit `at` of an interval with its metadata is.
    fn bit(&self, at: usize) -> Flipped {
        let guard = 8 * (self.interval + self.tuple_at());
        let application = guard + 8 * self.guard.bytes();
        let space = application + 16;
        let reference = space + usize::from(self.storage_bits);
        let end = guard + 8 * self.tuple_bytes();
        match at {
            _ if at < application => Flipped::Guard,
            _ if at < space => Flipped::Tag(Tag::Application),
            _ if at < reference => Flipped::Tag(Tag::Storage),
            _ if at < end => Flipped::Tag(Tag::Reference),
            _ => Flipped::Uncovered,
        }
    }

    /// The mismatch of interval `index` after bit `at` of it was flipped: tag, stored, expected.
    fn verdict(&self, index: u64, at: usize, block: &[u8]) -> Option<(Tag, u64, u64)> {
        let (data, metadata) = block.split_at(self.interval);
        let tuple = &metadata[self.tuple_at()..][..self.tuple_bytes()];
        let number =
            |bytes: &[u8]| bytes.iter().fold(0_u128, |all, byte| all << 8 | u128::from(*byte));
        let (guard, rest) = tuple.split_at(self.guard.bytes());
        let low = |number: u128| u64::try_from(number).unwrap();
        let application = low(number(&rest[..2]));
        let space = number(&rest[2..]);
        let reference = low(space & u128::from(ones(self.reference_bits())));
        let is_third = self.kind == ProtectionType::Three;
        if application == 0xffff && (!is_third || reference == ones(self.reference_bits())) {
            return None;
        }
        match self.bit(at) {
            Flipped::Guard => Some((Tag::Guard, low(number(guard)), self.guard_of(data, metadata))),
            Flipped::Tag(Tag::Application) => {
                Some((Tag::Application, application, self.application.into()))
            }
            Flipped::Tag(Tag::Storage) => {
                Some((Tag::Storage, low(space >> self.reference_bits()), self.storage))
            }
            Flipped::Tag(tag) => (!is_third).then(|| (tag, reference, self.reference_of(index))),
            Flipped::Uncovered => None,
        }
    }
}

proptest! {
    #[test]
    fn tuples_generated_in_any_pieces_are_those_of_the_oracle(
        oracle in any_oracle(),
        intervals in 0_usize..5,
        (data_cuts, metadata_cuts, block_cuts) in (any_cuts(), any_cuts(), any_cuts()),
        seed in any::<u64>(),
    ) {
        let (data, metadata) = oracle.filled(intervals, seed);
        let protection = oracle.protection();
        let owner = noise(metadata.len(), !seed);
        let mut made = owner.clone();
        protection.generate(cut(&data, &data_cuts), cut_mut(&mut made, &metadata_cuts));
        prop_assert_eq!(&made, &metadata);

        let mut blocks = oracle.interleaved(&data, &owner);
        protection.generate_interleaved(cut_mut(&mut blocks, &block_cuts));
        prop_assert_eq!(&blocks, &oracle.interleaved(&data, &metadata));

        prop_assert_eq!(
            protection.verify(cut(&data, &data_cuts), cut(&metadata, &metadata_cuts)),
            Ok(())
        );
        prop_assert_eq!(protection.verify_interleaved(cut(&blocks, &block_cuts)), Ok(()));
    }

    #[test]
    fn one_flipped_bit_is_found_and_named_with_interval_address_and_values(
        oracle in any_oracle(),
        intervals in 1_usize..4,
        bit in any::<prop::sample::Index>(),
        in_metadata in any::<bool>(),
        (data_cuts, metadata_cuts, block_cuts) in (any_cuts(), any_cuts(), any_cuts()),
        seed in any::<u64>(),
        address in any::<u64>(),
    ) {
        let (data, metadata) = oracle.filled(intervals, seed);
        let mut blocks = oracle.interleaved(&data, &metadata);
        // Data is so much more that tags would hardly ever be met.
        let stride = oracle.interval + oracle.metadata;
        let at = if in_metadata {
            let at = bit.index(8 * metadata.len());
            at / (8 * oracle.metadata) * 8 * stride + 8 * oracle.interval + at % (8 * oracle.metadata)
        } else {
            bit.index(8 * blocks.len())
        };
        blocks[at / 8] ^= 0x80 >> (at % 8);
        let index = at / (8 * stride);
        let block = &blocks[index * stride..][..stride];
        let index = u64::try_from(index).unwrap();
        let verdict = oracle.verdict(index, at % (8 * stride), block);
        let expected: Vec<_> = verdict
            .iter()
            .map(|(tag, stored, ought)| (*tag, index, address.wrapping_add(index), *stored, *ought))
            .collect();

        let protection = oracle.protection().with_address(address);
        let mut told = Vec::new();
        protection.verify_interleaved_each(cut(&blocks, &block_cuts), |found| told.push(said(&found)));
        prop_assert_eq!(&told, &expected);

        let (data, metadata): (Vec<_>, Vec<_>) =
            blocks.chunks(stride).map(|block| block.split_at(oracle.interval)).unzip();
        let (data, metadata) = (data.concat(), metadata.concat());
        let mut told = Vec::new();
        protection.verify_each(
            cut(&data, &data_cuts),
            cut(&metadata, &metadata_cuts),
            |found| told.push(said(&found)),
        );
        prop_assert_eq!(&told, &expected);

        // The first is what the short form gives.
        let first = protection.verify_interleaved([&blocks[..]]).err();
        prop_assert_eq!(first.map(|found| said(&found)), expected.first().copied());
    }

    #[test]
    fn a_signer_stopped_anywhere_goes_on_from_there_as_often_as_it_is_asked(
        oracle in any_oracle(),
        intervals in 1_usize..4,
        at in any::<prop::sample::Index>(),
        seed in any::<u64>(),
    ) {
        let (data, metadata) = oracle.filled(intervals, seed);
        let expected = oracle.interleaved(&data, &metadata);
        let mut blocks = oracle.interleaved(&data, &noise(metadata.len(), !seed));
        let (begin, rest) = blocks.split_at_mut(at.index(expected.len()));
        let mut signer = Signer::new(&oracle.protection());
        signer.interleaved(begin);
        let mut again = signer;
        let mut other = rest.to_vec();
        signer.interleaved(rest);
        again.interleaved(&mut other);
        prop_assert_eq!(&blocks, &expected);
        prop_assert!(expected.ends_with(&other));
    }

    #[test]
    fn a_verifier_stopped_anywhere_goes_on_from_there_as_often_as_it_is_asked(
        oracle in any_oracle(),
        intervals in 1_usize..4,
        (at, wrong) in any::<(prop::sample::Index, prop::sample::Index)>(),
        seed in any::<u64>(),
    ) {
        let (data, metadata) = oracle.filled(intervals, seed);
        let mut blocks = oracle.interleaved(&data, &metadata);
        let wrong = wrong.index(data.len());
        let stride = oracle.interval + oracle.metadata;
        let index = wrong / oracle.interval;
        blocks[index * stride + wrong % oracle.interval] ^= 4;
        let (begin, rest) = blocks.split_at(at.index(blocks.len()));
        let (mut before, mut after, mut again) = (Vec::new(), Vec::new(), Vec::new());
        let mut verifier = Verifier::new(&oracle.protection());
        verifier.interleaved(begin, |found| before.push(found));
        let mut kept = verifier;
        verifier.interleaved(rest, |found| after.push(found));
        kept.interleaved(rest, |found| again.push(found));
        prop_assert_eq!(&after, &again);
        let all: Vec<_> = before.iter().chain(&after).map(|found| (found.tag, found.interval)).collect();
        prop_assert_eq!(all, [(Tag::Guard, u64::try_from(index).unwrap())]);
    }

    #[test]
    fn data_and_metadata_apart_are_asked_for_by_what_is_left(
        oracle in any_oracle(),
        cuts in any_cuts(),
        seed in any::<u64>(),
    ) {
        let (data, metadata) = oracle.filled(2, seed);
        let mut made = noise(metadata.len(), !seed);
        let mut signer = Signer::new(&oracle.protection());
        let mut verifier = Verifier::new(&oracle.protection());
        let each = data.chunks(oracle.interval).zip(made.chunks_mut(oracle.metadata));
        for (data, metadata) in each {
            prop_assert_eq!((signer.data_left(), signer.metadata_left()), (oracle.interval, 0));
            for piece in cut(data, &cuts) {
                signer.data(piece);
                verifier.data(piece);
                prop_assert_eq!(signer.data_left(), verifier.data_left());
            }
            prop_assert_eq!((signer.data_left(), signer.metadata_left()), (0, oracle.metadata));
            for piece in cut_mut(metadata, &cuts) {
                signer.metadata(piece);
                verifier.metadata(piece, |found| panic!("{found}"));
                prop_assert_eq!(signer.metadata_left(), verifier.metadata_left());
            }
        }
        prop_assert_eq!(made, metadata);
    }
}

#[test]
fn nothing_is_generated_and_verified_of_nothing() {
    let oracle = Oracle::new(Guard::Crc16, 512, ProtectionType::One);
    oracle.protection().generate([&[][..]], [&mut [][..]]);
    assert_eq!(oracle.protection().verify([], []), Ok(()));
    assert_eq!(oracle.protection().verify_interleaved([&[][..], &[]]), Ok(()));
}

/// Lengths that do not go together are a bug of who calls: no operation goes on with fewer.
mod lengths {
    use super::*;

    fn protection() -> Protection {
        Oracle::new(Guard::Crc16, 512, ProtectionType::One).protection()
    }

    #[test]
    #[should_panic = "the data is whole intervals"]
    fn data_that_ends_within_an_interval_is_not_signed() {
        protection().generate([&[0; 700][..]], [&mut [0; 16][..]]);
    }

    #[test]
    #[should_panic = "there is metadata for each interval"]
    fn metadata_that_is_too_short_is_not_signed() {
        protection().generate([&[0; 1024][..]], [&mut [0; 15][..]]);
    }

    #[test]
    #[should_panic = "there is metadata for each interval, and no more"]
    fn metadata_that_is_too_long_is_not_verified() {
        protection().verify_each([&[0; 512][..]], [&[0; 9][..]], |_| ());
    }

    #[test]
    #[should_panic = "the data is whole intervals"]
    fn blocks_that_end_within_a_tuple_are_not_verified() {
        protection().verify_interleaved_each([&[0; 519][..]], |_| ());
    }

    #[test]
    #[should_panic = "the data is whole intervals"]
    fn data_that_is_too_short_for_what_is_stripped_is_not_filled() {
        protection().strip([&[0; 1040][..]], [&mut [0; 1023][..]], |_| ());
    }

    #[test]
    #[should_panic = "there is metadata for each interval"]
    fn blocks_that_are_too_long_for_what_is_inserted_are_not_filled() {
        protection().insert([&[0; 512][..]], [&mut [0; 521][..]]);
    }

    #[test]
    #[should_panic = "there is metadata for each interval"]
    fn metadata_that_is_too_short_is_not_joined() {
        protection().join([&[0; 512][..]], [&[0; 7][..]], [&mut [0; 520][..]], |_| ());
    }

    #[test]
    #[should_panic = "data ends where its interval does"]
    fn a_verifier_takes_no_more_data_than_an_interval_has() {
        Verifier::new(&protection()).data(&[0; 513]);
    }

    #[test]
    #[should_panic = "metadata belongs to one interval"]
    fn a_signer_takes_no_metadata_before_the_data() {
        let mut signer = Signer::new(&protection());
        signer.data(&[0; 511]);
        signer.metadata(&mut [0]);
    }
}
