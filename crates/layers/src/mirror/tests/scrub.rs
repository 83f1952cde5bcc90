//! Reading every copy of everything, and what is made of what is found.

use super::*;

pub(super) fn scrubbed(rig: &Rc<Rig>, mode: ScrubMode) -> Findings {
    let held = Rc::clone(rig);
    block_on(async move {
        let raid = open(&held);
        let mut all = Findings::default();
        for step in 0..raid.steps() {
            all.merge(raid.scrub(step, mode).await);
        }
        raid.close().await.unwrap();
        all
    })
}

#[test]
fn a_scrub_lists_copies_that_differ_on_a_clean_array_and_rewrites_nothing() {
    let rig = rig(3);
    rig.disks[1].replace(DATA_OFFSET + 10, &[5; 1024]);
    let before = rig.images();
    let findings = scrubbed(&rig, ScrubMode::Repair);
    assert_eq!(findings.checked_sectors, 3 * DATA_SECTORS);
    let extent = bio::Extent { sector: Sector(10), sectors: 2 };
    assert_eq!(findings.found, [(Finding::Inconsistent, None, extent)]);
    assert_eq!(rig.images(), before);
    assert_eq!(events(&rig, |kind| *kind == EventKind::Inconsistent).len(), 1);
}

#[test]
fn most_of_three_copies_are_an_inference_and_written_only_if_asked() {
    let three = |tagged: bool, of: &[(usize, u8)]| {
        let rig = Rc::new(Rig::new(Level::Raid1, 3, tagged));
        of.iter().for_each(|&(disk, byte)| {
            rig.disks[disk].replace(DATA_OFFSET + 9, &[byte; 512]);
        });
        rig
    };
    let decide = |inferred, trust| ScrubMode::Decide(Decision { inferred, trust });
    let found = |rig: &Rc<Rig>, mode| {
        let found = scrubbed(rig, mode).found.into_iter();
        let found = found.map(|(finding, member, extent)| {
            (finding, member.map(|name| name.to_string()), extent.sector.0, extent.sectors)
        });
        found.collect::<Vec<_>>()
    };
    let at = |finding, disk: usize| (finding, Some(format!("disk{disk}")), DATA_OFFSET + 9, 1);
    let inconsistent = (Finding::Inconsistent, None, 9, 1);
    for odd in 0..3 {
        let rig = three(false, &[(odd, 7)]);
        let (before, sound) = (rig.images(), three(false, &[]).images());
        for mode in [ScrubMode::Check, ScrubMode::Repair, decide(false, None)] {
            assert_eq!(found(&rig, mode), [at(Finding::Inferred, odd)]);
            assert!(rig.images() == before);
        }
        assert_eq!(found(&rig, decide(true, None)), [at(Finding::Decided, odd)]);
        let data = |images: Vec<Vec<u8>>| {
            images.into_iter().map(|image| image[16 * 512..].to_vec()).collect::<Vec<_>>()
        };
        assert!(data(rig.images()) == data(sound));
        // Valid tags, or no majority: nobody knows.
        for rig in [three(true, &[(odd, 7)]), three(false, &[(odd, 7), ((odd + 1) % 3, 8)])] {
            let before = rig.images();
            assert_eq!(found(&rig, decide(true, None)), std::slice::from_ref(&inconsistent));
            assert!(rig.images() == before);
        }
        // An operator knows.
        let rig = three(true, &[(odd, 7)]);
        let others = [(odd + 1) % 3, (odd + 2) % 3];
        let wrong = decide(false, Some(Trust::AllBut(others[0])));
        assert_eq!(found(&rig, wrong), std::slice::from_ref(&inconsistent));
        let mut decided = found(&rig, decide(false, Some(Trust::Member(odd))));
        decided.sort_by_key(|(_, member, ..)| member.clone());
        let mut expected = others.map(|disk| at(Finding::Decided, disk));
        expected.sort_by_key(|(_, member, ..)| member.clone());
        assert_eq!(decided, expected);
        assert_eq!(found(&rig, ScrubMode::Check), []);
        assert_eq!(rig.disks[others[0]].sector(DATA_OFFSET + 9), [7; 512]);
        let rig = three(true, &[(odd, 7)]);
        let right = decide(false, Some(Trust::AllBut(odd)));
        assert_eq!(found(&rig, right), [at(Finding::Decided, odd)]);
        assert_eq!(rig.disks[odd].sector(DATA_OFFSET + 9), [0; 512]);
    }
}

#[test]
fn a_scrub_heals_damage_and_a_check_only_lists_it() {
    let rig = rig(2);
    rig.disks[0].flip(DATA_OFFSET + 2);
    rig.disks[1].flip_tag(DATA_OFFSET + 77);
    rig.disks[0].garble(DATA_OFFSET + 90);
    rig.disks[1].garble(DATA_OFFSET + 90);
    let before = rig.images();
    let kinds = |findings: &Findings| {
        let mut found: Vec<(Finding, u64)> =
            findings.found.iter().map(|(kind, _, extent)| (*kind, extent.sector.0)).collect();
        found.sort_by_key(|(_, sector)| *sector);
        found
    };
    let lost = (Finding::Unreadable, 90);
    let check = scrubbed(&rig, ScrubMode::Check);
    let healable = |at| (Finding::Healable, DATA_OFFSET + at);
    assert_eq!(kinds(&check), [healable(2), lost, healable(77)]);
    assert_eq!(rig.images(), before);
    let repair = scrubbed(&rig, ScrubMode::Repair);
    let healed = |at| (Finding::Healed, DATA_OFFSET + at);
    assert_eq!(kinds(&repair), [healed(2), lost, healed(77)]);
    assert_eq!(kinds(&scrubbed(&rig, ScrubMode::Repair)), [lost]);
    assert!(rig.disks[0].intact(DATA_OFFSET + 2) && rig.disks[1].intact(DATA_OFFSET + 77));
}

#[test]
fn a_scrub_of_an_unclean_array_makes_unfinished_writes_agree() {
    let rig = dirty(2, true);
    rig.disks[1].replace(DATA_OFFSET + 4, &[5; 512]);
    let check = scrubbed(&rig, ScrubMode::Check);
    assert_eq!(check.found[0].0, Finding::Healable);
    let repair = scrubbed(&rig, ScrubMode::Repair);
    assert_eq!(repair.found[0].0, Finding::Resynced);
    assert_eq!(rig.disks[1].sector(DATA_OFFSET + 4), [1; 512]);
}
