//! Opening the arrays of a scenario, as the stack does it, and closing them.

use super::{Shape, journal};
use crate::opening::Opening;
use crate::ordering::Orderings;
use crate::scenario::{Joining, Volume};
use crate::unchecked::Unchecked;
use ::integrity::open::Mode;
use ::md::assemble::{Candidate, CannotStart, Slot, assemble};
use ::md::create::{NewMember, free_number, join};
use ::md::geometry::Geometry;
use ::md::shape::Shape as ArrayShape;
use ::md::superblock::{Minor, Role, Superblock, Time};
use bio::{Bio, Device, Events, IoErrorKind, IoResult, LocalFuture, NoProfile, Scrub};
use layers::array::{Array, EVERYTHING, Found, JoinError, Logs, Options};
use layers::integrity::Integrity;
use layers::linear::Linear;
use layers::mirror::{Mirror, Placement};
use layers::raid456::{self, Journal, Raid456};
use layers::striped::Striped;
use layers::verify::Verify;
use std::rc::Rc;
use units::SECTOR;

impl Shape {
    pub(super) async fn open(
        self,
        members: Vec<Option<Device>>,
        joining: Joining,
        (events, orderings): (Events, Rc<Orderings>),
    ) -> Result<Volume, String> {
        let mut present = Vec::new();
        for (index, member) in members.into_iter().enumerate() {
            let events = events.for_member(&format!("disk{index}"));
            if let Some(member) = member
                && let Ok(member) = self.open_member(index, member, events).await
            {
                present.push(member);
            }
        }
        let candidates: Vec<Candidate<'_>> = present
            .iter()
            .map(|member| Candidate {
                superblock: &member.superblock,
                device_sectors: member.top.limits().sectors,
            })
            .collect();
        let assembly = assemble(&candidates).map_err(|error| error.to_string())?;
        // With a partial parity log it is for the layer to say.
        let refuses =
            |why: &&CannotStart| !(self.beside.ppl() && **why == CannotStart::DirtyAndDegraded);
        if let Some(why) = assembly.cannot_start.iter().find(refuses) {
            return Err(why.to_string());
        }
        if let Some(why) = assembly.cannot_write.first() {
            return Err(why.to_string());
        }
        let freshest = present[assembly.newest].superblock.clone();
        let shape = assembly.shape(&candidates).map_err(|error| error.to_string())?;
        let holders = assembly.slots.iter().filter_map(|slot| match *slot {
            Slot::Missing => None,
            Slot::InSync(member) | Slot::Rebuilding { member, .. } => Some(member),
        });
        let holders = holders.chain(assembly.replacements.iter().copied());
        let found = |member: usize| present[member].found(&orderings);
        let members: Result<Vec<Found>, String> = holders.map(found).collect();
        let spares: Result<Vec<Found>, String> =
            assembly.spares.iter().copied().map(found).collect();
        let options = Options {
            read_only: false,
            tolerance: shape.tolerance(),
            synced: assembly.resync,
            events,
            clock: Rc::new(|| Time(0)),
        };
        let (slots, told) = (assembly.slots.len(), options.events.clone());
        let array = Array::new(slots, members?, Some(&freshest), options);
        let mut spares = spares?;
        if joining == Joining::Returned {
            for &(member, _) in &assembly.left_out {
                bring_back(&array, &freshest, found(member)?).await?;
            }
        }
        if joining == Joining::Replacement
            && array.vacant().is_empty()
            && let Some(mut spare) = spares.pop()
        {
            spare.slot = 0;
            // It may be under way since an earlier life.
            let joined = array.join(spare, true, EVERYTHING).await;
            drop(joined.map_err(|error| error.to_string())?);
        }
        spares.into_iter().for_each(|spare| array.add_spare(spare));
        let journal = match assembly.journals.first().map(|&index| &present[index]) {
            Some(member) => {
                let journal = journal::read(&member.top, &member.superblock).await?;
                array.go_through_journal(member.top.clone(), member.superblock.clone());
                Some(journal)
            }
            None => None,
        };
        let layers = present.into_iter().filter_map(|member| member.layer).collect();
        Ok(self.start(array, (shape, journal), layers).await?.protected(told))
    }

    pub(super) async fn open_member(
        self,
        index: usize,
        device: Device,
        events: Events,
    ) -> Result<Present, String> {
        let (top, layer) = match self.tagged {
            None => (device, None),
            Some(kind) => {
                let layer = kind.open(device, Opening::Usual, events.clone()).await?;
                let top = match Verify::new(layer.device(), events) {
                    Ok(verify) => Device::new(verify),
                    Err(NoProfile) => layer.device(),
                };
                (top, Some(layer))
            }
        };
        let sectors = top.limits().sectors;
        let at = Minor::V2.super_offset(sectors).ok_or("too small")?;
        let decode = |bytes: &bio::Buf| {
            let decoded = Superblock::decode(bytes.as_slice(), Minor::V2, sectors);
            decoded.map_err(|error| error.to_string())
        };
        let superblock = match (top.read(at, 4096 / SECTOR).await, &layer, self.tagged) {
            (Ok(bytes), ..) => decode(&bytes)?,
            // As the stack does it: a power cut came between its data and its tag, and its own checksum
            // vouches for it.
            (Err(error), Some(layer), Some(kind))
                if error.kind.is_damage() && kind.mode != Mode::Journal =>
            {
                let place = layer.layout().run(at, 4096 / SECTOR);
                let bytes = layer.lower().data().read(place.data, place.sectors).await;
                let superblock = decode(&bytes.map_err(|error| error.to_string())?)?;
                let back = bio::Buf::copy_of(&superblock.encode());
                top.write(at, back).await.map_err(|error| error.to_string())?;
                superblock
            }
            (Err(error), ..) => return Err(error.to_string()),
        };
        let logs = Logs::read(&top, &superblock).await;
        Ok(Present { index, top, layer, superblock, logs })
    }

    async fn start(
        self,
        array: Rc<Array>,
        (shape, journal): (ArrayShape, Option<Journal>),
        layers: Vec<Rc<Integrity>>,
    ) -> Result<Volume, String> {
        let placement = match shape {
            ArrayShape::Stripes(stripes) => {
                let layer = Striped::new(array, stripes).map_err(|error| error.to_string())?;
                let (scrub, device) = (Rc::clone(&layer), layer.device());
                return Ok(volume(device, scrub, (layers, self.redundancy()), async move {
                    layer.close().await
                }));
            }
            ArrayShape::Parity(geometry, member_sectors) => {
                let shape = (geometry, member_sectors);
                return self.start_parity(&array, shape, journal, layers).await;
            }
            ArrayShape::Mirror { .. } => Placement::Everywhere,
            ArrayShape::Mirrors(mirrors) => Placement::Dealt(mirrors),
        };
        let raid = Mirror::new(array, placement).map_err(|error| error.to_string())?;
        raid.start();
        let (scrub, device) = (Rc::clone(&raid), raid.device());
        Ok(volume(device, scrub, (layers, self.redundancy()), async move { raid.close().await }))
    }

    async fn start_parity(
        self,
        array: &Rc<Array>,
        (geometry, member_sectors): (Geometry, u64),
        journal: Option<Journal>,
        layers: Vec<Rc<Integrity>>,
    ) -> Result<Volume, String> {
        let cache_bytes = self.cache_bytes;
        let options = raid456::Options { geometry, member_sectors, force: false, cache_bytes };
        let raid = Raid456::journalled(array, &options, journal.as_ref());
        let raid = raid.map_err(|error| error.to_string())?;
        raid.replay().await.map_err(|error| error.to_string())?;
        raid.start_resync();
        let raid = Rc::new(raid);
        let (scrub, device) = (Rc::clone(&raid), Device::shared(Rc::clone(&raid)));
        Ok(volume(device, scrub, (layers, self.redundancy()), async move { raid.close().await }))
    }
}

/// Lets a member that was away come back, as the program's `add` does: it is given what the bitmap says that
/// it missed; if that cannot say it, it joins as one that holds nothing.
async fn bring_back(array: &Array, freshest: &Superblock, stale: Found) -> Result<(), String> {
    let Some(&slot) = array.vacant().first() else { return Ok(()) };
    let whole = Found {
        slot,
        name: Rc::clone(&stale.name),
        device: stale.device.clone(),
        data: stale.data.clone(),
        superblock: None,
        logs: stale.logs.clone(),
    };
    let own = stale.superblock.clone().ok_or("it has a superblock")?;
    match array.rejoin(stale).await {
        Ok(_) => return Ok(()),
        Err(JoinError::Io(error)) => return Err(error.to_string()),
        Err(_) => {}
    }
    let (device_sectors, device_uuid) = (whole.device.limits().sectors, own.device_uuid());
    let taken = array.members().filter_map(|member| Some(member.superblock()?.dev_number()));
    let number = free_number(freshest, &taken.collect::<Vec<_>>());
    let mut spare = join(freshest, &NewMember { device_sectors, device_uuid }, number)
        .map_err(|error| error.to_string())?;
    spare.place_bitmap(device_sectors);
    let bytes = bio::Buf::copy_of(&spare.encode());
    let mut write = Bio::write_fua(spare.super_offset(), bytes);
    whole.device.submit(&mut write).await.map_err(|error| error.to_string())?;
    let logs = Logs::read(&whole.device, &spare).await;
    let joined = array.join(Found { superblock: Some(spare), logs, ..whole }, false, EVERYTHING);
    joined.await.map(drop).map_err(|error| error.to_string())
}

fn volume(
    device: Device,
    scrub: Rc<dyn Scrub>,
    (layers, spare): (Vec<Rc<Integrity>>, usize),
    raid: impl Future<Output = IoResult> + 'static,
) -> Volume {
    let close = Box::new(move || -> LocalFuture<'static, IoResult> {
        Box::pin(async move {
            let array = raid.await;
            close_members(layers, spare).await?;
            array
        })
    });
    Volume { device, scrub: Some(scrub), suspects: None, close }
}

/// A member that could be opened.
pub(super) struct Present {
    index: usize,
    pub(super) top: Device,
    pub(super) layer: Option<Rc<Integrity>>,
    pub(super) superblock: Superblock,
    logs: Logs,
}

impl Present {
    /// As an array takes it.
    fn found(&self, orderings: &Rc<Orderings>) -> Result<Found, String> {
        let slot = match self.superblock.role() {
            Some(Role::Active(slot)) => slot.into(),
            _ => 0,
        };
        let (start, sectors) = (self.superblock.data_offset(), self.superblock.used_sectors());
        let top = Unchecked::over(self.top.clone(), orderings);
        let data = Linear::new(top.clone(), start, sectors);
        Ok(Found {
            slot,
            name: format!("disk{}", self.index).into(),
            device: top,
            data: Device::new(data.map_err(|error| error.to_string())?),
            superblock: Some(self.superblock.clone()),
            logs: self.logs.clone(),
        })
    }
}

/// Members that are gone cannot be closed: the array has said what that means. Others that cannot be closed
/// leave what a crash would, and as many as the array can spare are not missed.
async fn close_members(layers: Vec<Rc<Integrity>>, spare: usize) -> IoResult {
    let mut errors = Vec::new();
    for layer in layers {
        errors.extend(layer.close().await.err());
    }
    errors.retain(|error| error.kind != IoErrorKind::Unavailable);
    errors.into_iter().nth(spare).map_or(Ok(()), Err)
}
