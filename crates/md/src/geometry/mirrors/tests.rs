use super::*;

const N2: u32 = 0x102;
const N3: u32 = 0x103;
const F2: u32 = 0x201;
const F3: u32 = 0x301;
const O2: u32 = 0x1_0201;
const O3: u32 = 0x1_0301;

fn new(layout: u32, raid_disks: u32, chunks: u64) -> Mirrors {
    Mirrors::new(layout, 8, raid_disks, chunks * 8).unwrap()
}

/// Slot and member chunk of each copy of `chunk`.
fn copies(mirrors: &Mirrors, chunk: u64) -> Vec<(usize, u64)> {
    let spots = (0..mirrors.copies()).map(|copy| mirrors.locate(Sector(chunk * 8), copy));
    spots.map(|spot| (spot.slot, spot.member_sector.0 / 8)).collect()
}

#[test]
fn the_pictures_at_the_top_are_true() {
    let near = new(N2, 4, 10);
    assert_eq!((copies(&near, 0), copies(&near, 3)), (vec![(0, 0), (1, 0)], vec![(2, 1), (3, 1)]));
    let far = new(F2, 4, 10);
    assert_eq!((copies(&far, 0), copies(&far, 3)), (vec![(0, 0), (1, 5)], vec![(3, 0), (0, 5)]));
    let offset = new(O2, 4, 10);
    assert_eq!(copies(&offset, 3), [(3, 0), (0, 1)]);
    assert_eq!(copies(&offset, 4), [(0, 2), (1, 3)]);
    let odd = new(N2, 3, 10);
    assert_eq!(copies(&odd, 1), [(2, 0), (0, 1)]);
    assert_eq!(copies(&odd, 2), [(1, 1), (2, 1)]);
}

/// The specification's section 8, step by step, for one sector.
fn specification(layout: u32, chunk: u64, n: u64, member: u64, s: u64) -> Vec<(u64, u64)> {
    let (nc, fc) = (u64::from(layout & 255), u64::from(layout >> 8 & 255));
    let (fo, variant) = (layout >> 16 & 1 == 1, layout >> 17);
    let fss = [n, n / fc, fc * nc][usize_of(variant.into())];
    let size_chunks = member / chunk / fc * n / nc;
    let per = (size_chunks * nc * fc).div_ceil(n);
    let stride = if fo { chunk } else { per / fc * chunk };
    let c = s / chunk * nc;
    let (mut row, mut dev) = (c / n, c % n);
    if fo {
        row *= fc;
    }
    let mut base = row * chunk + s % chunk;
    let mut emitted = Vec::new();
    for _ in 0..nc {
        emitted.push((dev, base));
        let last = (n / fss - 1) * fss;
        let (start, size) = if dev >= last { (last, n - last) } else { (dev / fss * fss, fss) };
        for f in 1..fc {
            emitted.push((start + (dev - start + nc * f) % size, base + f * stride));
        }
        dev += 1;
        if dev == n {
            dev = 0;
            base += chunk;
        }
    }
    emitted
}

/// Every layout that makes sense over small numbers of members, with odd remainders.
fn every() -> impl Iterator<Item = (u32, u32, u64, Mirrors)> {
    let sets = [0, 1 << 17, 2 << 17];
    let layouts = [N2, N3, F2, F3, O2, O3, 0x101, 0x202, 0x203, 0x302, 0x1_0202];
    let layouts = layouts.into_iter().flat_map(move |layout| sets.map(|set| layout | set));
    layouts.flat_map(|layout| {
        (1..12).flat_map(move |n| {
            [7, 24, 25].into_iter().filter_map(move |chunks| {
                let mirrors = Mirrors::new(layout, 8, n, chunks * 8 + 3).ok()?;
                Some((layout, n, chunks * 8 + 3, mirrors))
            })
        })
    })
}

#[test]
fn every_copy_is_where_the_specification_puts_it() {
    let mut shapes = 0;
    for (layout, n, member, mirrors) in every() {
        let (nc, fc) = (u64::from(layout & 255), u64::from(layout >> 8 & 255));
        assert_eq!(mirrors.array_sectors(), member / 8 / fc * u64::from(n) / nc * 8);
        for s in (0..mirrors.array_sectors()).step_by(3) {
            let ours: Vec<(u64, u64)> = (0..mirrors.copies())
                .map(|copy| mirrors.locate(Sector(s), copy))
                .map(|spot| (u64_of(spot.slot), spot.member_sector.0))
                .collect();
            let theirs = specification(layout, 8, n.into(), member, s);
            assert_eq!(ours, theirs, "layout {layout:#x}, {n} members, sector {s}");
        }
        shapes += 1;
    }
    assert!(shapes > 300, "{shapes} shapes");
}

#[test]
fn no_two_copies_share_a_place_or_a_member() {
    for (layout, n, member, mirrors) in every() {
        let mut seen = std::collections::HashMap::new();
        for chunk in 0..mirrors.array_sectors() / 8 {
            let spots = copies(&mirrors, chunk);
            for (index, spot) in spots.iter().enumerate() {
                assert!(spot.1 < member / 8, "{layout:#x} over {n}: within the member");
                assert_eq!(seen.insert(*spot, chunk), None, "{layout:#x} over {n}: {spot:?}");
                assert!(spots[..index].iter().all(|other| other.0 != spot.0));
            }
        }
        for slot in 0..usize_of(n.into()) {
            for at in 0..member / 8 {
                let found = mirrors.array_sector(slot, Sector(at * 8 + 5));
                let expected = seen.get(&(slot, at)).map(|chunk| Sector(chunk * 8 + 5));
                assert_eq!(found, expected, "{layout:#x} over {n}: slot {slot}, chunk {at}");
            }
        }
    }
}

#[test]
fn an_array_survives_what_leaves_a_copy_of_every_chunk() {
    for (layout, n, _, mirrors) in every().filter(|(_, n, ..)| *n < 8) {
        for lost in 0u32..1 << n {
            let missing = |slot: usize| lost >> slot & 1 == 1;
            let chunks = 0..mirrors.array_sectors() / 8;
            let left = chunks.map(|chunk| {
                copies(&mirrors, chunk).iter().filter(|(slot, _)| !missing(*slot)).count()
            });
            let least = left.min().unwrap();
            assert_eq!(mirrors.survives(missing), least > 0, "{layout:#x} over {n}: {lost:b}");
            assert_eq!(mirrors.spare_redundancy(missing), least.saturating_sub(1));
        }
    }
}

#[test]
fn which_members_are_missing_decides() {
    let near = new(N2, 4, 10);
    assert!(near.survives(|slot| slot == 0 || slot == 2));
    assert_eq!(near.first_lost(|slot| slot == 2 || slot == 3), Some(Sector(8)));
    let far = new(F2, 4, 10);
    assert!(far.survives(|slot| slot == 0 || slot == 2));
    assert!(!far.survives(|slot| slot == 1 || slot == 2));
}

#[test]
fn runs_end_with_the_chunk_unless_every_member_has_everything() {
    assert_eq!(new(N2, 4, 10).run_sectors(Sector(11)), 5);
    assert_eq!(new(N2, 2, 10).run_sectors(Sector(11)), 69);
    assert_eq!(new(F2, 2, 10).run_sectors(Sector(11)), 5);
}

#[test]
fn impossible_shapes_are_named() {
    let shape = |layout, chunk, disks, size| Mirrors::new(layout, chunk, disks, size).unwrap_err();
    for layout in [0, 0x100, 0x2, 3 << 17 | N2, 1 << 31 | N2] {
        assert_eq!(shape(layout, 8, 4, 800), MirrorsError::Layout { layout });
    }
    for found in [0, 4, 12] {
        assert_eq!(shape(N2, found, 4, 800), MirrorsError::Chunk { found });
    }
    let disks = MirrorsError::Disks { layout: F3, copies: 3, raid_disks: 2 };
    assert_eq!(shape(F3, 8, 2, 800), disks);
    assert_eq!(shape(N2, 8, 2000, 800), MirrorsError::DisksMax { found: 2000 });
    let set = MirrorsError::FarSet { set: 2, copies: 3 };
    assert_eq!(shape(F3 | 1 << 17, 8, 6, 800), set);
    let uneven = MirrorsError::Uneven { layout: 0x1_0202, raid_disks: 5 };
    assert_eq!(shape(0x1_0202, 8, 5, 800), uneven);
    assert_eq!(shape(N2, 8, 4, 7), MirrorsError::Size { member_sectors: 7 });
    assert_eq!(shape(N2, 8, 1920, u64::MAX), MirrorsError::Size { member_sectors: u64::MAX });
}

#[test]
fn members_beyond_32_bits_of_sectors_are_addressed_exactly() {
    let mirrors = Mirrors::new(F2, 1024, 4, 1 << 40).unwrap();
    let last = Sector(mirrors.array_sectors() - 1);
    let spot = mirrors.locate(last, 1);
    assert_eq!((spot.slot, spot.member_sector), (0, Sector((1 << 40) - 1)));
    assert_eq!(mirrors.array_sector(0, spot.member_sector), Some(last));
}
