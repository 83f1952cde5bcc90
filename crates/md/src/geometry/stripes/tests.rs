use super::*;

/// The specification's example: zones of 3, 2 and 1 members.
const UNEVEN: [u64; 3] = [79_872, 112_640, 145_408];

fn slots(stripes: &Stripes, chunk: u64, count: u64) -> Vec<(usize, u64)> {
    let runs = (0..count).map(|index| stripes.locate(Sector(index * chunk)));
    runs.map(|run| (run.slot, run.member_sector.0 / chunk)).collect()
}

#[test]
fn zones_are_those_of_the_specification() {
    let stripes = Stripes::raid0(Some(LAYOUT_ORIGINAL), 128, &UNEVEN).unwrap();
    let ends: Vec<u64> = stripes.zones.iter().map(|zone| zone.end).collect();
    assert_eq!(ends, [239_616, 305_152, 337_920]);
    assert_eq!(stripes.run_lengths().collect::<Vec<_>>(), [128, 128, 32_768]);
    assert_eq!(stripes.array_sectors(), 337_920);
}

#[test]
fn layouts_differ_in_whose_turn_is_first_in_a_later_zone() {
    // Zone 0 has 15 chunks on three members, zone 1 two members: 15 mod 2 is 1.
    let members = [5 * 8, 6 * 8, 6 * 8];
    let original = Stripes::raid0(Some(LAYOUT_ORIGINAL), 8, &members).unwrap();
    let alternate = Stripes::raid0(Some(LAYOUT_ALTERNATE), 8, &members).unwrap();
    assert_eq!(slots(&original, 8, 17)[15..], [(2, 5), (1, 5)]);
    assert_eq!(slots(&alternate, 8, 17)[15..], [(1, 5), (2, 5)]);
    assert_eq!(slots(&original, 8, 15), slots(&alternate, 8, 15));
}

#[test]
fn the_picture_at_the_top_is_true() {
    let members = [16, 32, 24];
    let raid0 = Stripes::raid0(Some(LAYOUT_ORIGINAL), 8, &members).unwrap();
    let expected = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (1, 2), (2, 2), (1, 3)];
    assert_eq!(slots(&raid0, 8, 9), expected);
    let linear = Stripes::linear(8, &members).unwrap();
    let expected = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1), (2, 2)];
    assert_eq!(slots(&linear, 8, 9), expected);
}

#[test]
fn every_sector_has_one_place_and_every_place_one_sector() {
    for members in [vec![24], vec![40, 40, 40], vec![41, 17, 33, 17], vec![10, 100, 64, 65]] {
        for chunk in [8, 3] {
            let linear = Stripes::linear(chunk, &members).unwrap();
            let raid0 = [LAYOUT_ORIGINAL, LAYOUT_ALTERNATE]
                .map(|layout| Stripes::raid0(Some(layout), chunk, &members).unwrap());
            for stripes in [linear].iter().chain(&raid0) {
                let used = members.iter().map(|sectors| sectors / u64::from(chunk));
                assert_eq!(stripes.array_sectors(), used.sum::<u64>() * u64::from(chunk));
                let mut seen = std::collections::HashSet::new();
                for sector in (0..stripes.array_sectors()).map(Sector) {
                    let run = stripes.locate(sector);
                    assert!(seen.insert((run.slot, run.member_sector)), "{stripes:?} {sector}");
                    assert!(run.member_sector.0 < members[run.slot]);
                    let back = stripes.array_sector(run.slot, run.member_sector);
                    assert_eq!(back, Some(sector), "{stripes:?}");
                    if run.sectors > 1 {
                        let next = stripes.locate(sector + 1);
                        assert_eq!((next.slot, next.sectors), (run.slot, run.sectors - 1));
                        assert_eq!(next.member_sector, run.member_sector + 1);
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_beyond_the_whole_chunks_is_used_by_nobody() {
    let stripes = Stripes::raid0(None, 8, &[20, 20]).unwrap();
    assert_eq!(stripes.array_sector(0, Sector(16)), None);
    assert_eq!(stripes.array_sector(2, Sector(0)), None);
}

#[test]
fn only_zones_with_turns_need_a_layout() {
    assert_eq!(Stripes::raid0(None, 8, &[16, 24, 24]), Err(StripesError::Ambiguous { sector: 48 }));
    for members in [vec![16, 16], vec![16, 16, 24], vec![16, 23]] {
        assert!(Stripes::raid0(None, 8, &members).is_ok(), "{members:?}");
    }
}

#[test]
fn impossible_numbers_are_named() {
    assert_eq!(Stripes::raid0(Some(1), 0, &[16]), Err(StripesError::Chunk));
    assert_eq!(Stripes::raid0(Some(1), 8, &[]), Err(StripesError::NoMembers));
    assert_eq!(Stripes::raid0(Some(3), 8, &[16]), Err(StripesError::Layout { found: 3 }));
    let small = StripesError::Small { slot: 1, sectors: 7, chunk_sectors: 8 };
    assert_eq!(Stripes::raid0(Some(1), 8, &[16, 7]), Err(small));
    assert_eq!(Stripes::linear(8, &[16, 7]), Err(small));
    assert_eq!(Stripes::raid0(None, 8, &[u64::MAX, u64::MAX]), Err(StripesError::Size));
    assert_eq!(Stripes::linear(0, &[u64::MAX, 1]), Err(StripesError::Size));
}

#[test]
fn members_beyond_32_bits_of_sectors_are_addressed_exactly() {
    let stripes = Stripes::raid0(None, 1024, &[1 << 40, 1 << 40, 1 << 40]).unwrap();
    let run = stripes.locate(Sector(3 * (1 << 40) - 1));
    assert_eq!((run.slot, run.member_sector, run.sectors), (2, Sector((1 << 40) - 1), 1));
}
