//! The layer, over disks in memory: what it does, what damage does to it, what a crash
//! leaves, and what a disk that lies costs.

mod above;
mod behaviour;
mod coverage;
mod crash;
mod damage;
mod discard;
mod disk;
mod golden;
mod inline;
mod lies;
mod mend;
mod modes;
mod recalculate;
mod recalculate_crash;
mod suspect;

use super::{Integrity, NewVolume, OpenError, Options, Wipe, create};
use ::integrity::FormatOptions;
use ::integrity::open::Mode;
use bio::{Bio, Buf, Device, Event, Events, IoResult};
use checksum::Algorithm;
use disk::Disk;
use std::cell::RefCell;
use std::rc::Rc;
use units::{BlockSize, Sector, usize_of};

/// How the small volumes of these tests are made.
fn format_options(block: u64, journal_sectors: u64) -> FormatOptions {
    let block = BlockSize::from_bytes(block).unwrap();
    FormatOptions {
        journal_sectors: Some(journal_sectors),
        interleave_sectors: Some(256),
        ..FormatOptions::new(block, 4, *b"sixteen of salt.")
    }
}

/// A volume of zeroes on a new disk of `sectors`.
async fn made(sectors: u64, options: &FormatOptions) -> Rc<Disk> {
    let disk = Disk::new(sectors);
    let new = NewVolume::new(*options, Algorithm::Crc32c, Wipe::Zeroes);
    create(disk.device(), &new, |_, _| {}).await.unwrap();
    disk
}

async fn opened(disk: &Rc<Disk>) -> Rc<Integrity> {
    Integrity::open(disk.device(), options()).await.unwrap()
}

fn options() -> Options {
    Options::new(Algorithm::Crc32c, Events::none())
}

fn in_mode(mode: Mode) -> Options {
    Options { mode: Some(mode), ..options() }
}

/// Events as they come.
fn listening() -> (Options, Rc<RefCell<Vec<Event>>>) {
    let heard = Rc::new(RefCell::new(Vec::new()));
    let sink = Rc::clone(&heard);
    let events = Events::new(move |event| sink.borrow_mut().push(event));
    (Options::new(Algorithm::Crc32c, events), heard)
}

/// Bytes that name their sector and version.
fn pattern(sector: u64, sectors: u64, version: u64) -> Vec<u8> {
    (sector..sector + sectors)
        .flat_map(|sector| {
            let mut word = sector ^ (version << 40);
            (0..64).flat_map(move |_| {
                word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (if version == 0 { 0 } else { word | 1 }).to_le_bytes()
            })
        })
        .collect()
}

async fn put(device: &Device, sector: u64, sectors: u64, version: u64) -> IoResult {
    device.write(Sector(sector), Buf::copy_of(&pattern(sector, sectors, version))).await
}

async fn read(device: &Device, sector: u64, sectors: u64) -> IoResult<Vec<u8>> {
    Ok(device.read(Sector(sector), sectors).await?.as_slice().to_vec())
}

async fn read_past_cache(device: &Device, sector: u64, sectors: u64) -> IoResult<Vec<u8>> {
    let mut bio = Bio::read(Sector(sector), sectors).bypassing();
    device.submit(&mut bio).await?;
    Ok(bio.data.into_single().as_slice().to_vec())
}

async fn assert_holds(device: &Device, sector: u64, sectors: u64, version: u64) {
    let found = read(device, sector, sectors).await;
    assert!(found == Ok(pattern(sector, sectors, version)), "{sector}+{sectors} v{version}");
}

fn bytes(sectors: u64) -> usize {
    usize_of(sectors * 512)
}

async fn refused(disk: &Rc<Disk>, options: Options) -> OpenError {
    match Integrity::open(disk.device(), options).await {
        Ok(_) => panic!("it opened"),
        Err(error) => error,
    }
}
