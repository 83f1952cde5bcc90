//! Tags against the specification's sentence, spelt with one-shot functions.

use super::*;
use crate::tests::{any_key_for, block_of};
use crate::{ZeroTags, crc32c};
use proptest::prelude::*;
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};

const SALT: [u8; SALT_BYTES] = *b"sixteen of salt.";

/// The specification's sentence, word by word.
fn by_definition(
    algorithm: Algorithm,
    salt: Option<[u8; SALT_BYTES]>,
    sector: u64,
    data: &[u8],
) -> Vec<u8> {
    let key = any_key_for(algorithm);
    let key = key.as_ref().map_or(&[][..], Key::as_bytes);
    let mut message = salt.map_or_else(Vec::new, Vec::from);
    message.extend(sector.to_le_bytes());
    message.extend(data);
    match algorithm {
        Algorithm::Crc32c => crc32c(&message).to_le_bytes().to_vec(),
        Algorithm::Crc32 => bitwise_crc32(&message).to_le_bytes().to_vec(),
        Algorithm::Xxhash64 => twox_hash::XxHash64::oneshot(0, &message).to_le_bytes().to_vec(),
        Algorithm::Sha1 => Sha1::digest(message).to_vec(),
        Algorithm::Sha256 => Sha256::digest(message).to_vec(),
        Algorithm::Sha512 => Sha512::digest(message).to_vec(),
        Algorithm::Blake2b256 => blake2::Blake2b256::digest(message).to_vec(),
        Algorithm::Blake2s256 => blake2::Blake2s256::digest(message).to_vec(),
        Algorithm::HmacSha1 => rfc_2104::<Sha1>(64, key, &message),
        Algorithm::HmacSha256 => rfc_2104::<Sha256>(64, key, &message),
        Algorithm::HmacSha512 => rfc_2104::<Sha512>(128, key, &message),
    }
}

/// Starts at zero, bit by bit, and no inversion anywhere.
fn bitwise_crc32(message: &[u8]) -> u32 {
    message.iter().fold(0, |register, &byte| {
        (0..8).fold(register ^ u32::from(byte), |register, _| {
            (register >> 1) ^ if register & 1 != 0 { 0xEDB8_8320 } else { 0 }
        })
    })
}

/// RFC 2104, section 2, for a key that is not longer than the hash's block.
fn rfc_2104<H: sha2::Digest>(block_bytes: usize, key: &[u8], message: &[u8]) -> Vec<u8> {
    let pad = |with: u8| {
        let mut block = vec![with; block_bytes];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = H::digest([pad(0x36).as_slice(), message].concat());
    H::digest([pad(0x5C).as_slice(), &inner].concat()).to_vec()
}

fn tagger(algorithm: Algorithm, salt: Option<[u8; SALT_BYTES]>, block: BlockSize) -> BlockTagger {
    BlockTagger::new(algorithm, any_key_for(algorithm).as_ref(), salt, block).unwrap()
}

fn any_algorithm() -> impl Strategy<Value = Algorithm> {
    proptest::sample::select(Algorithm::ALL)
}

fn any_block() -> impl Strategy<Value = BlockSize> {
    (0u8..4).prop_map(block_of)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i.wrapping_mul(0x9E37_79B9) >> 11).to_le_bytes()[0]).collect()
}

proptest! {
    #[test]
    fn tags_are_what_the_specification_says(
        algorithm in any_algorithm(),
        salt in proptest::option::of(any::<[u8; SALT_BYTES]>()),
        block in any_block(),
        whole in any::<bool>(),
        tag_bytes in 1usize..70,
        first_sector in 0u64..1 << 60,
        count in 0usize..5,
    ) {
        let data = pattern(count * block.bytes());
        let tag_bytes = if whole { algorithm.digest_len() } else { tag_bytes };
        let tagger = tagger(algorithm, salt, block).with_tag_bytes(tag_bytes);
        let mut tags = vec![0xEE; count * tag_bytes];
        tagger.tags(first_sector, &data, &mut tags);
        prop_assert_eq!(tagger.verify(first_sector, &data, &tags), None);
        let mut sector = first_sector;
        for (data, stored) in data.chunks(block.bytes()).zip(tags.chunks(tag_bytes)) {
            let mut expected = by_definition(algorithm, salt, sector, data);
            let tag = tagger.tag(sector, data);
            prop_assert_eq!(tag.as_bytes(), &expected);
            expected.resize(tag_bytes, 0);
            prop_assert_eq!(stored, expected);
            sector += block.sectors();
        }
    }

    #[test]
    fn one_flipped_bit_is_caught_in_its_block(
        algorithm in any_algorithm(),
        block in any_block(),
        at in any::<proptest::sample::Index>(),
        bit in 0u8..8,
    ) {
        let mut data = pattern(4 * block.bytes());
        let tagger = tagger(algorithm, Some(SALT), block);
        let mut tags = vec![0; 4 * tagger.tag_bytes()];
        tagger.tags(64, &data, &mut tags);
        let at = at.index(data.len());
        data[at] ^= 1 << bit;
        prop_assert_eq!(tagger.verify(64, &data, &tags), Some(at / block.bytes()));
    }

    #[test]
    fn one_flipped_bit_of_a_tag_is_caught_padding_included(
        algorithm in any_algorithm(),
        tag_bytes in 1usize..70,
        at in any::<proptest::sample::Index>(),
        bit in 0u8..8,
    ) {
        let data = pattern(4 * 512);
        let tagger = tagger(algorithm, None, BlockSize::B512).with_tag_bytes(tag_bytes);
        let mut tags = vec![0; 4 * tag_bytes];
        tagger.tags(7, &data, &mut tags);
        let at = at.index(tags.len());
        tags[at] ^= 1 << bit;
        prop_assert_eq!(tagger.verify(7, &data, &tags), Some(at / tag_bytes));
    }
}

#[test]
fn the_kernel_stored_this_tag() {
    // Golden image crc32c-512 (Linux 6.12): its salt, and the tag of sector 2000, all zeros.
    let salt = 0xC1FF_7540_F896_7714_9306_4D0F_97CF_B84A_u128.to_be_bytes();
    let tagger = tagger(Algorithm::Crc32c, Some(salt), BlockSize::B512);
    let stored = [0xB2, 0x86, 0x47, 0xFB];
    assert_eq!(tagger.verify(2000, &[0; 512], &stored), None);
    let mut tag = [0; 4];
    ZeroTags::new(&tagger).fill(2000, &mut tag);
    assert_eq!(tag, stored);
}

#[test]
fn a_block_in_the_wrong_place_is_caught() {
    let data = pattern(512);
    for &algorithm in Algorithm::ALL {
        let tagger = tagger(algorithm, Some(SALT), BlockSize::B512);
        let mut tag = vec![0; tagger.tag_bytes()];
        tagger.tags(1000, &data, &mut tag);
        assert_eq!(tagger.verify(1001, &data, &tag), Some(0), "{algorithm}");
    }
}

#[test]
fn a_keyed_discard_tag_is_the_digest_without_the_data() {
    for &algorithm in Algorithm::ALL {
        for tag_bytes in [algorithm.digest_len(), 3, 70] {
            let tagger = tagger(algorithm, Some(SALT), BlockSize::B4096).with_tag_bytes(tag_bytes);
            let mut tags = vec![0xEE; 3 * tag_bytes];
            tagger.discard_tags(80, &mut tags);
            for (sector, tag) in [80, 88, 96].into_iter().zip(tags.chunks(tag_bytes)) {
                let mut expected = by_definition(algorithm, Some(SALT), sector, &[]);
                expected.resize(tag_bytes, 0);
                assert_eq!(tag, expected, "{algorithm}");
                assert!(tagger.is_discard_tag(sector, tag), "{algorithm}");
                assert!(!tagger.is_discard_tag(sector + 8, tag), "{algorithm}");
            }
        }
    }
}

#[test]
fn another_key_makes_other_tags_and_none_shows_itself() {
    for &algorithm in Algorithm::ALL.iter().filter(|algorithm| algorithm.is_keyed()) {
        let ours = tagger(algorithm, Some(SALT), BlockSize::B512);
        let key = Key::new([9; 32]).unwrap();
        let other = BlockTagger::new(algorithm, Some(&key), Some(SALT), BlockSize::B512).unwrap();
        assert_ne!(ours.tag(0, &[0; 512]), other.tag(0, &[0; 512]));
        let shown =
            format!("BlockTagger({algorithm}, blocks of 512, tags of {})", ours.tag_bytes());
        assert_eq!(format!("{ours:?}"), shown);
    }
}

#[test]
#[should_panic(expected = "one tag for each block")]
fn a_missing_tag_is_a_bug_of_the_caller() {
    tagger(Algorithm::Crc32c, None, BlockSize::B512).tags(0, &[0; 1024], &mut [0; 4]);
}
