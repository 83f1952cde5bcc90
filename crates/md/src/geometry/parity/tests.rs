use super::*;
use std::collections::HashSet;

/// Every layout of every level, over every small number of members.
fn every_geometry() -> impl Iterator<Item = (Geometry, u32)> {
    let layouts = [
        (ParityLevel::Raid4, vec![0]),
        (ParityLevel::Raid5, (0..6).collect::<Vec<u32>>()),
        (ParityLevel::Raid6, (0..6).chain(8..11).chain(16..21).collect()),
    ];
    layouts.into_iter().flat_map(|(level, layouts)| {
        layouts.into_iter().flat_map(move |layout| {
            let least = if level == ParityLevel::Raid6 { 4 } else { 2 };
            (least..9).map(move |n| (Geometry::new(level, layout, 8, n).unwrap(), layout))
        })
    })
}

/// The specification's table, transcribed row by row: P, Q and the slot of data strip `d`.
fn table(g: &Geometry, layout: u32, stripe: u64, d: usize) -> (usize, Option<usize>, usize) {
    let (n, data) = (g.raid_disks(), g.data_disks());
    let s = usize_of(stripe % u64_of(n));
    let s1 = usize_of(stripe % u64_of(n - 1));
    let next = usize_of((stripe + 1) % u64_of(n));
    let over = |p: usize| d + usize::from(d >= p);
    if g.level() == ParityLevel::Raid4 {
        return (data, None, d);
    }
    if g.level() == ParityLevel::Raid5 {
        let p = [data - s, s, data - s, s, 0, data][usize_of(u64::from(layout))];
        let slot = match layout {
            0 | 1 => over(p),
            2 | 3 => (p + 1 + d) % n,
            4 => d + 1,
            _ => d,
        };
        return (p, None, slot);
    }
    let asymmetric = |p: usize| match p {
        p if p == n - 1 => (p, Some(0), d + 1),
        p => (p, Some(p + 1), if d >= p { d + 2 } else { d }),
    };
    let symmetric = |p: usize| (p, Some((p + 1) % n), (p + 2 + d) % n);
    match layout {
        0 => asymmetric(n - 1 - s),
        1 | 8 => asymmetric(s),
        2 => symmetric(n - 1 - s),
        3 => symmetric(s),
        4 => (0, Some(1), d + 2),
        5 => (data, Some(data + 1), d),
        9 => asymmetric(n - 1 - next),
        10 => (n - 1 - s, Some((n - 1 - s + n - 1) % n), (n - 1 - s + 1 + d) % n),
        16 => (data - s1, Some(n - 1), over(data - s1)),
        17 => (s1, Some(n - 1), over(s1)),
        18 => (data - s1, Some(n - 1), (data - s1 + 1 + d) % (n - 1)),
        19 => (s1, Some(n - 1), (s1 + 1 + d) % (n - 1)),
        20 => (0, Some(n - 1), d + 1),
        _ => panic!("no row for {layout}"),
    }
}

#[test]
fn every_layout_is_the_row_of_the_specification() {
    for (g, layout) in every_geometry() {
        for stripe in (0..100).chain(u64::MAX / 8 - 20..u64::MAX / 8) {
            for d in 0..g.data_disks() {
                let ours = (g.p_slot(stripe), g.q_slot(stripe), g.data_slot(stripe, d));
                assert_eq!(ours, table(&g, layout, stripe, d), "{g:?} stripe {stripe} data {d}");
            }
        }
    }
}

#[test]
fn every_layout_fills_each_stripe_exactly() {
    for (g, _) in every_geometry() {
        for stripe in 0..100 {
            let mut slots: HashSet<usize> =
                (0..g.data_disks()).map(|d| g.data_slot(stripe, d)).collect();
            for d in 0..g.data_disks() {
                assert_eq!(g.strip(stripe, g.data_slot(stripe, d)), Strip::Data(d), "{g:?}");
            }
            assert_eq!(g.strip(stripe, g.p_slot(stripe)), Strip::P);
            slots.insert(g.p_slot(stripe));
            if let Some(q) = g.q_slot(stripe) {
                assert_eq!(g.strip(stripe, q), Strip::Q);
                slots.insert(q);
            }
            assert_eq!(slots, (0..g.raid_disks()).collect(), "{g:?} stripe {stripe}");
        }
    }
}

#[test]
fn array_sectors_and_data_sectors_are_in_bijection() {
    for (g, _) in every_geometry() {
        let member_sectors = 8 * 3 * u64_of(g.raid_disks());
        let total = g.array_sectors(member_sectors).unwrap();
        let mut seen = HashSet::new();
        for sector in (0..total).map(Sector) {
            let place = g.locate(sector);
            assert!(place.member_sector.0 < member_sectors);
            assert!(seen.insert((place.slot, place.member_sector)), "{g:?} {sector}");
            assert_eq!(place.member_sector.0 / 8, place.stripe);
            let offset = place.member_sector.0 % 8;
            assert_eq!(g.array_sector(place.stripe, place.data_index, offset), sector);
        }
        assert_eq!(u64_of(seen.len()), total);
    }
}

#[test]
fn exponents_of_a_stripe_are_the_walk_from_q() {
    for (g, _) in every_geometry().filter(|(g, _)| g.level() == ParityLevel::Raid6) {
        for stripe in 0..40 {
            let q = g.q_slot(stripe).unwrap();
            let walk = (1..g.raid_disks()).map(|step| (q + step) % g.raid_disks());
            let data = walk.filter_map(|slot| match g.strip(stripe, slot) {
                Strip::Data(d) => Some((slot, d)),
                Strip::P | Strip::Q => None,
            });
            for (counted, (slot, d)) in data.enumerate() {
                let expected = if g.layout.ddf { slot } else { counted };
                assert_eq!(g.q_exponent(stripe, d), expected, "{g:?} stripe {stripe} data {d}");
            }
        }
    }
}

#[test]
fn the_worked_examples_hold() {
    let g = Geometry::new(ParityLevel::Raid5, 2, 128, 4).unwrap();
    let slots: Vec<usize> = (0..6).map(|chunk| g.locate(Sector(chunk * 128)).slot).collect();
    assert_eq!((slots, g.p_slot(0), g.p_slot(1)), (vec![0, 1, 2, 3, 0, 1], 3, 2));

    let g = Geometry::new(ParityLevel::Raid6, 2, 128, 5).unwrap();
    let g = &g;
    let row = |stripe| (0..3).map(move |d| (g.data_slot(stripe, d), g.q_exponent(stripe, d)));
    assert_eq!((g.p_slot(0), g.q_slot(0)), (4, Some(0)));
    assert_eq!(row(0).collect::<Vec<_>>(), [(1, 0), (2, 1), (3, 2)]);
    assert_eq!((g.p_slot(1), g.q_slot(1)), (3, Some(4)));
    assert_eq!(row(1).collect::<Vec<_>>(), [(0, 0), (1, 1), (2, 2)]);
}

#[test]
fn numbers_that_md_refuses_are_refused() {
    use ParityLevel::{Raid5, Raid6};
    assert_eq!(
        Geometry::new(Raid5, 6, 128, 4),
        Err(GeometryError::Layout { level: Raid5, layout: 6 })
    );
    for layout in [6, 7, 11, 15, 21, u32::MAX] {
        assert!(Geometry::new(Raid6, layout, 128, 6).is_err());
    }
    for chunk in [0, 1, 4, 24, 100, u32::MAX] {
        assert_eq!(Geometry::new(Raid5, 2, chunk, 4), Err(GeometryError::Chunk { found: chunk }));
    }
    for (level, disks) in [(Raid5, 0), (Raid5, 1), (Raid6, 3), (Raid6, 256), (Raid5, u32::MAX)] {
        assert!(matches!(Geometry::new(level, 2, 8, disks), Err(GeometryError::Disks { .. })));
    }
}

#[test]
fn sizes_that_overflow_are_none() {
    let g = Geometry::new(ParityLevel::Raid5, 2, 8, 4).unwrap();
    assert_eq!(g.array_sectors(u64::MAX), None);
    assert_eq!(g.array_sectors(31), Some(3 * 24));
}
