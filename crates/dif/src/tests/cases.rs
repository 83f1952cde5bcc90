//! The cases of SPDK's unit tests for the same purpose, as `research/pi-anchors.md` lists them: the cases,
//! not the code.
//!
//! Not here because nothing here does it: its "guard seed" (a CRC that starts elsewhere is
//! [`guard::Running::seeded`], which no tuple of a standard has), its zeroes in tags that are not selected, its
//! digest over blocks without their metadata, and its lists of pieces for reading data into interleaved
//! memory (a [`crate::Verifier`] takes what comes).

use super::*;

/// Where pieces end within each interval with its metadata.
#[derive(Clone, Copy, Debug)]
enum Split {
    /// One piece.
    Single,
    /// A piece for each interval.
    Many,
    InData,
    AtMetadata,
    InGuard,
    InApplication,
    InReference,
    /// All of them.
    Complex,
}

impl Split {
    const ALL: [Self; 8] = [
        Self::Single,
        Self::Many,
        Self::InData,
        Self::AtMetadata,
        Self::InGuard,
        Self::InApplication,
        Self::InReference,
        Self::Complex,
    ];

    /// Lengths of pieces of `interval` bytes of data, if there are any, and metadata.
    fn cuts(self, oracle: &Oracle, interval: usize) -> Vec<usize> {
        let (stride, tuple) = (interval + oracle.metadata, interval + oracle.tuple_at());
        let application = tuple + oracle.guard.bytes();
        let (guard, reference) = (tuple + oracle.guard.bytes() / 2, application + 2 + 1);
        let ends = match self {
            Self::Single => return vec![usize::MAX],
            Self::Many => vec![],
            Self::InData => vec![interval / 2],
            Self::AtMetadata => vec![interval],
            Self::InGuard => vec![guard],
            Self::InApplication => vec![application + 1],
            Self::InReference => vec![reference],
            Self::Complex => {
                vec![interval / 3, interval, guard, application + 1, reference, reference + 2]
            }
        };
        let ends: Vec<_> = [0].into_iter().chain(ends).chain([stride]).collect();
        ends.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}

/// 512 + 8, 4096 + 128 at both ends, 4096 + 8 or 16 alone, of every guard that has them.
fn formats() -> Vec<Oracle> {
    let mut formats = Vec::new();
    for guard in Guard::ALL {
        let alone = Oracle::new(guard, 4096, ProtectionType::One);
        formats.push(alone);
        for first in [false, true] {
            formats.push(Oracle { metadata: 128, first, ..alone });
        }
        if guard.bytes() == 2 {
            formats.push(Oracle { interval: 512, ..alone });
        }
    }
    for format in &mut formats {
        (format.application, format.reference) = (0x88, 22);
    }
    formats
}

/// PRCHK 0, 1, 2, 4, 7.
fn checks() -> [Checks; 5] {
    let none = Checks::NONE;
    [
        none,
        Checks { reference: true, ..none },
        Checks { application: true, ..none },
        Checks { guard: true, ..none },
        Checks::ALL,
    ]
}

/// What is injected: reference, application, guard, data.
const INJECTED: [Option<Tag>; 4] =
    [Some(Tag::Reference), Some(Tag::Application), Some(Tag::Guard), None];

/// Turns a bit in interval `index`, and says which check finds it.
fn inject(
    oracle: &Oracle,
    index: usize,
    what: Option<Tag>,
    data: &mut [u8],
    metadata: &mut [u8],
) -> Tag {
    let tuple = index * oracle.metadata + oracle.tuple_at();
    let guard = oracle.guard.bytes();
    match what {
        Some(Tag::Reference) => metadata[tuple + oracle.tuple_bytes() - 1] ^= 1,
        Some(Tag::Application) => metadata[tuple + guard] ^= 0x10,
        Some(_) => metadata[tuple] ^= 0x80,
        None => data[index * oracle.interval + 77] ^= 0x08,
    }
    what.unwrap_or(Tag::Guard)
}

fn selected(checks: &Checks, tag: Tag) -> bool {
    match tag {
        Tag::Guard => checks.guard,
        Tag::Application => checks.application,
        Tag::Reference => checks.reference,
        Tag::Storage => checks.storage,
    }
}

#[test]
fn dif_and_dix_generated_and_verified_with_every_check_in_every_split_and_what_is_injected_is_named()
 {
    const INTERVALS: usize = 4;
    for (oracle, split) in
        formats().into_iter().flat_map(|oracle| Split::ALL.map(|split| (oracle, split)))
    {
        let (dif, dix) = (split.cuts(&oracle, oracle.interval), split.cuts(&oracle, 0));
        let data = noise(INTERVALS * oracle.interval, 5);
        let mut metadata = vec![0; INTERVALS * oracle.metadata];
        let mut blocks = vec![0; data.len() + metadata.len()];
        let plain = oracle.protection();
        plain.generate(cut(&data, &dif), cut_mut(&mut metadata, &dix));
        plain.insert([&data[..]], cut_mut(&mut blocks, &dif));
        assert_eq!(blocks, oracle.interleaved(&data, &metadata), "{oracle:?} {split:?}");

        for (checks, what) in
            checks().into_iter().flat_map(|checks| INJECTED.map(|what| (checks, what)))
        {
            let protection = plain.with_checks(checks);
            let mut told = Vec::new();
            protection
                .verify_each(cut(&data, &dif), cut(&metadata, &dix), |found| told.push(found));
            protection.verify_interleaved_each(cut(&blocks, &dif), |found| told.push(found));
            assert_eq!(told, []);

            let (mut data, mut metadata) = (data.clone(), metadata.clone());
            let tag = inject(&oracle, 2, what, &mut data, &mut metadata);
            let blocks = oracle.interleaved(&data, &metadata);
            let mut stripped = vec![0; data.len()];
            protection
                .verify_each(cut(&data, &dif), cut(&metadata, &dix), |found| told.push(found));
            protection.verify_interleaved_each(cut(&blocks, &dif), |found| told.push(found));
            protection.strip(cut(&blocks, &dif), [&mut stripped[..]], |found| told.push(found));
            let told: Vec<_> = told.iter().map(|found| (found.tag, found.address)).collect();
            let times = if selected(&checks, tag) { 3 } else { 0 };
            assert_eq!(told, vec![(tag, 24); times], "{oracle:?} {split:?} {checks:?}");
        }
    }
}

#[test]
fn bad_sizes_are_refused() {
    // sec_8_md_8, 512_md_0, 4096_md_0, 4096_md_8, 4100_md_128. SPDK also refuses 512 + 16 with a wide guard,
    // which Linux and QEMU make, and so do we.
    let made = |guard, interval, metadata| {
        Format::new(guard, interval).and_then(|format| format.with_metadata(metadata, Place::Last))
    };
    for (guard, interval, metadata) in [
        (Guard::Crc16, 8, 8),
        (Guard::Crc16, 512, 0),
        (Guard::Crc32c, 512, 8),
        (Guard::Crc64, 512, 8),
        (Guard::Crc32c, 4096, 0),
        (Guard::Crc64, 4096, 8),
        (Guard::Crc16, 4100, 128),
        (Guard::Crc64, 4100, 128),
    ] {
        assert!(made(guard, interval, metadata).is_err(), "{guard} {interval} + {metadata}");
    }
    for guard in Guard::ALL {
        assert!(made(guard, 512, 16).is_ok(), "{guard}");
    }
}

#[test]
fn checks_are_off_where_the_type_says_so() {
    // disable_check, and generate_and_verify_unmap: tuples of all ones pass whatever the data is.
    for kind in ProtectionType::ALL {
        for mut oracle in formats() {
            oracle.kind = kind;
            let (data, mut metadata) =
                (noise(2 * oracle.interval, 6), vec![0; 2 * oracle.metadata]);
            let third = kind == ProtectionType::Three;
            for (application, reference, passes) in
                [(0xffff, u64::MAX, true), (0xffff, 0, !third), (0, u64::MAX, false)]
            {
                let tuple = oracle.tuple(
                    ones(u8::try_from(8 * oracle.guard.bytes()).unwrap()),
                    application,
                    ones(oracle.storage_bits),
                    reference & ones(oracle.reference_bits()),
                );
                for place in metadata.chunks_mut(oracle.metadata) {
                    place[oracle.tuple_at()..][..tuple.len()].copy_from_slice(&tuple);
                }
                let verdict = oracle.protection().verify([&data[..]], [&metadata[..]]);
                assert_eq!(verdict.is_ok(), passes, "{oracle:?} {application:x} {reference:x}");
            }
        }
    }
}

#[test]
fn an_application_tag_is_compared_under_its_mask() {
    // apptag_mask: written 0x1256, expected 0x1234 under 0xFF00, then under 0xFFFF.
    for oracle in formats() {
        let oracle = Oracle { application: 0x1256, ..oracle };
        let (data, metadata) = oracle.filled(4, 7);
        for (mask, agrees) in [(0xff00, true), (0xffff, false), (0, true)] {
            let expected =
                Expected { application: 0x1234, application_mask: mask, ..Expected::at(22) };
            let protection = Protection::new(oracle.profile(), expected, Checks::ALL).unwrap();
            let verdict = protection.verify([&data[..]], [&metadata[..]]);
            assert_eq!(verdict.is_ok(), agrees);
        }
    }
}

#[test]
fn a_controller_that_makes_tuples_keeps_the_owners_metadata() {
    // nvme_pract: on write the tuples are made anew, on read they are checked and handed over.
    for oracle in formats() {
        let (data, metadata) = oracle.filled(4, 8);
        let host = oracle.interleaved(&data, &noise(metadata.len(), !8));
        for split in Split::ALL {
            let cuts = split.cuts(&oracle, oracle.interval);
            let mut medium = vec![0; host.len()];
            oracle.protection().overwrite(cut(&host, &cuts), cut_mut(&mut medium, &[4000]));
            assert_eq!(medium, oracle.interleaved(&data, &metadata), "{split:?}");
        }
    }
}

#[test]
fn a_request_in_parts_is_the_request() {
    // generate_split, verify_split, generate_stream, verify_stream_multi: ranges of bytes, one after the
    // other, that end where they like.
    for oracle in formats() {
        let (data, metadata) = oracle.filled(4, 9);
        let expected = oracle.interleaved(&data, &metadata);
        for parts in [vec![1000, 1, 3000], vec![513, 511], vec![5, 4097, 8], vec![1]] {
            let mut blocks = oracle.interleaved(&data, &noise(metadata.len(), !9));
            let mut signer = crate::Signer::new(&oracle.protection());
            for part in cut_mut(&mut blocks, &parts) {
                signer.interleaved(part);
            }
            assert_eq!(blocks, expected);
            let mut verifier = crate::Verifier::new(&oracle.protection());
            for part in cut(&blocks, &parts) {
                verifier.interleaved(part, |found| panic!("{found}"));
            }
        }
    }
}
