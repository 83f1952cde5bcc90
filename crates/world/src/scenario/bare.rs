//! Volumes that are a disk, or hardly more: what the simulator itself is held against.

use super::{Open, Scenario, Volume};
use bio::{Device, LocalFuture};
use std::cell::OnceCell;
use std::rc::Rc;
use units::BlockSize;

pub(super) fn all() -> Vec<Scenario> {
    vec![disk("disk-512", BlockSize::B512), disk("disk-4096", BlockSize::B4096), limited()]
}

fn nothing(_: Vec<Device>) -> LocalFuture<'static, Result<(), String>> {
    Box::pin(async { Ok(()) })
}

/// The only member of a volume without redundancy.
pub(super) fn only(members: Vec<Option<Device>>) -> Result<Device, String> {
    members.into_iter().next().flatten().ok_or_else(|| "the only member is missing".into())
}

/// A bare disk: what the simulator itself is held against.
#[must_use]
pub fn disk(name: &'static str, block: BlockSize) -> Scenario {
    Scenario {
        name,
        members: 1,
        member_sectors: 256,
        member_block: block,
        member_tags: 0,
        tearing: false,
        redundancy: 0,
        verified: false,
        tuples: false,
        survives_cuts: true,
        logged: false,
        journalled: false,
        cut_writes_unreadable: false,
        openings: &[],
        journal: 0..0,
        damageable: 0..256,
        records_bad: false,
        atlas: None,
        format: Box::new(nothing),
        open: Box::new(|members, _, _| Box::pin(async { Ok(Volume::flushed(only(members)?)) })),
        orderings: Rc::default(),
        joining: Rc::default(),
        made: OnceCell::new(),
    }
}

/// A bare disk below the limiting layer.
fn limited() -> Scenario {
    let open: Box<Open> = Box::new(|members, _, _| {
        Box::pin(async {
            let options = layers::limit::Options { max_bytes: 1024, in_flight_bytes: 2048 };
            let layer = layers::limit::Limit::new(only(members)?, options);
            Ok(Volume::flushed(Device::new(layer)))
        })
    });
    Scenario { open, ..disk("limit", BlockSize::B512) }
}
