//! More damage than redundancy where members keep protection information: what is accepted is right, data
//! and tags.

use super::*;
use crate::array::testing::{BEFORE, Model, Protected, on_member, profiles};
use bio::{Finding, ScrubMode};
use dif::{Profile, Tuple};
use proptest::prelude::*;

/// Sectors of each member.
const SECTORS: u64 = 64;

/// How a block is hurt. (An application tag alone that rotted is nothing that a member could notice.)
#[derive(Clone, Copy, Debug)]
enum Harm {
    /// Some of the data.
    Data(u8),
    Guard,
    Place,
    /// All of the tuple.
    Tuple,
    /// Data and tuple.
    Both(u8),
}

/// A level over members in memory, filled.
struct Row {
    rig: Protected,
    raid: Rc<Raid456>,
    model: Model,
    profile: Profile,
}

type Strips = Vec<(Vec<u8>, Vec<u8>)>;

impl Row {
    async fn new(profile: Profile, level: ParityLevel, count: u8) -> Self {
        let rig = Protected::new(profile, count.into(), SECTORS, true);
        let raid = Self::open(&rig, level, count, &ALL[..count.into()]);
        let mut model = Model::new(Device::shared(Rc::clone(&raid)));
        model.fill().await;
        Self { rig, raid, model, profile }
    }

    fn open(rig: &Protected, level: ParityLevel, count: u8, present: &[usize]) -> Rc<Raid456> {
        let (geometry, cache_bytes) = (geometry(level, 8, count), 64 << 10);
        let options = Options { geometry, member_sectors: SECTORS, force: false, cache_bytes };
        Rc::new(Raid456::new(&rig.open(present), &options).ok().unwrap())
    }

    /// What lies in the first row of blocks.
    async fn strips(&self) -> Strips {
        let mut strips = Strips::new();
        for member in &self.rig.members {
            strips.push(on_member(member, Sector(BEFORE)).await);
        }
        strips
    }

    async fn put(&self, slot: usize, (data, tags): &(Vec<u8>, Vec<u8>)) {
        let write = Bio::write(Sector(BEFORE), Buf::copy_of(data));
        self.rig.members[slot].submit(&mut write.tagged(Buf::copy_of(tags))).await.unwrap();
    }

    async fn harm(&self, slot: usize, harm: Harm) {
        let (mut data, mut tags) = on_member(&self.rig.members[slot], Sector(BEFORE)).await;
        let garble = |bytes: &mut [u8], seed: u8| {
            (1..).zip(bytes).for_each(|(n, byte)| *byte ^= seed.wrapping_mul(n) | 1);
        };
        let format = self.profile.format;
        let place = format.tuple_offset()..format.tuple_offset() + format.tuple_bytes();
        let mut tuple = Tuple::decode(&format, &tags[place.clone()]);
        match harm {
            Harm::Data(seed) => garble(&mut data[..40], seed),
            Harm::Guard => tuple.guard ^= 0x10,
            Harm::Place => tuple.reference ^= 1,
            Harm::Tuple | Harm::Both(_) => {
                tuple.guard ^= 0x22;
                tuple.application ^= 0x0305;
            }
        }
        if let Harm::Both(seed) = harm {
            garble(&mut data[..40], seed);
        }
        tuple.encode(&format, &mut tags[place]);
        self.put(slot, &(data, tags)).await;
    }

    /// Nobody may check `slot` any more.
    async fn escape(&self, slot: usize) {
        let (data, mut tags) = on_member(&self.rig.members[slot], Sector(BEFORE)).await;
        let format = self.profile.format;
        let place = format.tuple_offset()..format.tuple_offset() + format.tuple_bytes();
        let mut tuple = Tuple::decode(&format, &tags[place.clone()]);
        tuple.application = 0xffff;
        tuple.encode(&format, &mut tags[place]);
        self.put(slot, &(data, tags)).await;
    }

    /// The row hurt, then read whole and scrubbed. Panics at the first wrong byte, of data or tags.
    async fn all_of(&self, harms: &[(usize, Harm)]) -> Result<(), String> {
        let before = self.strips().await;
        for &(slot, harm) in harms {
            self.harm(slot, harm).await;
        }
        let (device, tagging) = (&self.model.device, Tagging::of(self.model.device.limits()));
        let block = device.limits().logical_block.sectors();
        for (number, wanted) in self.model.blocks.iter().enumerate() {
            let mut read = tagging.read(Sector(u64_of(number) * block), block);
            device.submit(&mut read).await.map_err(|error| error.to_string())?;
            let found = tagging.taken(read);
            assert!(found.as_slice() == wanted, "block {number} is wrong: {harms:?}");
        }
        let mut found = Vec::new();
        for step in 0..self.raid.steps() {
            found.extend(self.raid.scrub(step, ScrubMode::Repair).await.found);
        }
        assert!(found.iter().all(|(finding, ..)| *finding == Finding::Healed), "{found:?}");
        assert!(self.strips().await == before, "{harms:?}");
        Ok(())
    }
}

#[test]
fn a_strip_whose_tuple_alone_rotted_stands_in_for_parity() {
    for profile in profiles() {
        for (a, b) in [(0, 1), (1, 0), (2, 3), (3, 2), (0, 3), (3, 1)] {
            runtime::block_on(async move {
                let mut harms = vec![Harm::Guard, Harm::Tuple];
                harms.extend(profile.kind.counts().then_some(Harm::Place));
                for harm in harms {
                    let row = Row::new(profile, ParityLevel::Raid5, 4).await;
                    row.all_of(&[(a, harm), (b, Harm::Data(7))]).await.unwrap();
                    let row = Row::new(profile, ParityLevel::Raid6, 5).await;
                    let three = [(a, harm), (b, Harm::Data(9)), (4, Harm::Data(3))];
                    row.all_of(&three).await.unwrap();
                }
            });
        }
    }
}

#[test]
fn without_a_witness_for_each_strip_that_is_assumed_nothing_is() {
    runtime::block_on(async {
        let profile = profiles()[4];
        for harms in [
            // Nobody's tag vouches for what is computed.
            [(0, Harm::Tuple), (1, Harm::Tuple)],
            [(0, Harm::Tuple), (1, Harm::Both(3))],
            // The same error twice cancels in P.
            [(0, Harm::Both(3)), (1, Harm::Both(3))],
        ] {
            let row = Row::new(profile, ParityLevel::Raid5, 4).await;
            row.all_of(&harms).await.unwrap_err();
        }
        // Parity has to stand in for the missing member.
        let row = Row::new(profile, ParityLevel::Raid5, 4).await;
        row.raid.close().await.unwrap();
        let (rig, mut model) = (row.rig, row.model);
        let raid = Row::open(&rig, ParityLevel::Raid5, 4, &[0, 1, 2]);
        model.device = Device::shared(Rc::clone(&raid));
        let row = Row { rig, raid, model, profile };
        row.all_of(&[(0, Harm::Guard), (1, Harm::Data(5))]).await.unwrap_err();
    });
}

/// Two strips with the same error, one of which nobody may check: what is computed of the third is right, and
/// its tag vouches for it.
#[test]
fn a_strip_that_was_read_with_an_escape_is_assumed_too() {
    runtime::block_on(async {
        let row = Row::new(profiles()[4], ParityLevel::Raid5, 4).await;
        row.harm(0, Harm::Both(3)).await;
        row.harm(1, Harm::Data(5)).await;
        row.harm(2, Harm::Both(3)).await;
        row.escape(2).await;
        for sector in [0, 8] {
            let error = row.model.device.read(Sector(sector), 8).await.unwrap_err();
            assert_eq!(error, IoErrorKind::Protection.at(Sector(sector)));
        }
    });
}

#[test]
fn the_one_strip_that_nobody_could_check_is_the_one_that_is_wrong() {
    for (level, count) in [(ParityLevel::Raid5, 4), (ParityLevel::Raid6, 5)] {
        runtime::block_on(async move {
            let row = Row::new(profiles()[4], level, count).await;
            let before = row.strips().await;
            let data = row.raid.inner.equations(0).data;
            for &slot in &data {
                row.harm(slot, Harm::Data(9)).await;
                row.escape(slot).await;
                let found = row.raid.scrub(0, ScrubMode::Check).await.found;
                assert_eq!((found.len(), found[0].0), (1, Finding::Healable));
                let found = row.raid.scrub(0, ScrubMode::Repair).await.found;
                assert_eq!((found.len(), found[0].0), (1, Finding::Healed));
                assert!(row.strips().await == before);
            }
            // Of two, nobody knows.
            for &slot in &data[..2] {
                row.harm(slot, Harm::Data(7)).await;
                row.escape(slot).await;
            }
            let before = row.strips().await;
            let found = row.raid.scrub(0, ScrubMode::Repair).await.found;
            assert_eq!((found.len(), found[0].0), (1, Finding::Inconsistent));
            assert!(row.strips().await == before);
        });
    }
}

#[test]
fn in_a_row_that_a_crash_may_have_caught_nothing_is_assumed() {
    runtime::block_on(async {
        let row = Row::new(profiles()[4], ParityLevel::Raid5, 4).await;
        row.raid.array().set_unsynced(0..8);
        row.all_of(&[(0, Harm::Guard), (1, Harm::Data(5))]).await.unwrap_err();
    });
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        3 => any::<u8>().prop_map(Harm::Data),
        1 => Just(Harm::Data(3)),
        2 => Just(Harm::Guard),
        1 => Just(Harm::Place),
        2 => Just(Harm::Tuple),
        2 => any::<u8>().prop_map(Harm::Both),
        1 => Just(Harm::Both(3)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// `all_of` panics at the first wrong byte. (Guards of 16 bits would be right by chance at times.)
    #[test]
    fn whatever_is_damaged_each_block_is_right_with_its_tags_or_an_error(
        six: bool,
        profile in proptest::sample::select(vec![profiles()[3], profiles()[4], profiles()[5]]),
        harms in proptest::collection::vec((0usize..5, harm()), 1..7),
    ) {
        runtime::block_on(async move {
            let (level, count) =
                if six { (ParityLevel::Raid6, 5) } else { (ParityLevel::Raid5, 4) };
            let row = Row::new(profile, level, count).await;
            let mut each = std::collections::BTreeMap::new();
            each.extend(harms.into_iter().map(|(slot, harm)| (slot % usize::from(count), harm)));
            let harms: Vec<_> = each.into_iter().collect();
            let _lost = row.all_of(&harms).await;
        });
    }
}
