//! Published vectors of every algorithm, and what the tests of several modules need.

use crate::{Algorithm, Key, KeyError, Mac};
use units::BlockSize;

/// A key, if `algorithm` takes one.
pub(crate) fn any_key_for(algorithm: Algorithm) -> Option<Key> {
    algorithm.is_keyed().then(|| Key::new(*b"32 bytes of a key for a test....").unwrap())
}

pub(crate) fn block_of(log2_sectors: u8) -> BlockSize {
    BlockSize::from_log2_sectors(log2_sectors).unwrap()
}

fn digest(algorithm: Algorithm, key: Option<&[u8]>, message: &[u8]) -> String {
    let key = key.map(|key| Key::new(key).unwrap());
    format!("{:?}", Mac::new(algorithm, key.as_ref()).unwrap().digest(&[message]))
}

#[test]
fn published_vectors_of_hashes_hold() {
    let long = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    for (algorithm, message, expected) in [
        // The check value of CRC-32C in the CRC catalogue, in little-endian order.
        (Algorithm::Crc32c, b"123456789".as_slice(), "839206e3"),
        // FIPS 180-4's examples (NIST, SHA1.pdf, SHA256.pdf, SHA512.pdf).
        (Algorithm::Sha1, b"abc", "a9993e364706816aba3e25717850c26c9cd0d89d"),
        (Algorithm::Sha1, long, "84983e441c3bd26ebaae4aa1f95129e5e54670f1"),
        (
            Algorithm::Sha256,
            b"abc",
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ),
        (
            Algorithm::Sha256,
            long,
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
        (
            Algorithm::Sha512,
            b"abc",
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ),
        // The xxHash project's own check of its empty input, and `xxh64sum` of "abc".
        (Algorithm::Xxhash64, b"", "99e9d85137db46ef"),
        (Algorithm::Xxhash64, b"abc", "990977adf52cbc44"),
        // `b2sum -l 256` of GNU coreutils 9.1: RFC 7693 has BLAKE2b only with 512 bits.
        (
            Algorithm::Blake2b256,
            b"abc",
            "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319",
        ),
        // RFC 7693, appendix B, gives "abc" for BLAKE2s-256.
        (
            Algorithm::Blake2s256,
            b"abc",
            "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982",
        ),
    ] {
        assert_eq!(digest(algorithm, None, message), expected, "{algorithm}");
    }
}

#[test]
fn published_vectors_of_hmac_hold() {
    // RFC 2202, section 3, and RFC 4231, section 4: test cases 1 to 3, and 6, whose key is longer
    // than a block of the hash.
    let longest = b"Test Using Larger Than Block-Size Key - Hash Key First";
    let long = [0xAA; 131];
    for (algorithm, key, message, expected) in [
        (
            Algorithm::HmacSha1,
            [0x0B; 20].as_slice(),
            b"Hi There".as_slice(),
            "b617318655057264e28bc0b6fb378c8ef146be00",
        ),
        (
            Algorithm::HmacSha1,
            b"Jefe",
            b"what do ya want for nothing?",
            "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
        ),
        (Algorithm::HmacSha1, &long[..80], longest, "aa4ae5e15272d00e95705637ce8a3b55ed402112"),
        (
            Algorithm::HmacSha256,
            &[0x0B; 20],
            b"Hi There",
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        ),
        (
            Algorithm::HmacSha256,
            b"Jefe",
            b"what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (
            Algorithm::HmacSha256,
            &long,
            longest,
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
        (
            Algorithm::HmacSha512,
            &[0x0B; 20],
            b"Hi There",
            "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde\
             daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
        ),
        (
            Algorithm::HmacSha512,
            &long,
            longest,
            "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f352\
             6b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598",
        ),
    ] {
        assert_eq!(digest(algorithm, Some(key), message), expected, "{algorithm}");
    }
}

#[test]
fn every_digest_has_the_promised_length() {
    for &algorithm in Algorithm::ALL {
        let mac = Mac::new(algorithm, any_key_for(algorithm).as_ref()).unwrap();
        let digest = mac.digest(&[]);
        assert_eq!(digest.as_bytes().len(), algorithm.digest_len(), "{algorithm}");
        assert_eq!(mac.digest_len(), algorithm.digest_len(), "{algorithm}");
        assert_eq!(digest.padded()[..algorithm.digest_len()], *digest.as_bytes());
        assert!(digest.padded()[algorithm.digest_len()..].iter().all(|&byte| byte == 0));
    }
}

#[test]
fn a_message_may_come_in_pieces() {
    for &algorithm in Algorithm::ALL {
        let mac = Mac::new(algorithm, any_key_for(algorithm).as_ref()).unwrap();
        let whole = mac.digest(&[b"sections and superblocks"]);
        assert_eq!(mac.digest(&[b"sections", b"", b" and ", b"superblocks"]), whole);
    }
}

#[test]
fn a_key_is_neither_forgotten_nor_given_in_vain() {
    for &algorithm in Algorithm::ALL {
        let key = Key::new([1; 32]).unwrap();
        let (given, refusal) = match algorithm.is_keyed() {
            true => (None, KeyError::Missing { algorithm }),
            false => (Some(&key), KeyError::Unwanted { algorithm }),
        };
        assert_eq!(Mac::new(algorithm, given).unwrap_err(), refusal);
    }
}
