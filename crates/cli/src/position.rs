//! How far a scrub came: `FOLDER/scrub.json`, beside the volume's ledger.
//!
//! Written anew every ten seconds and when a scrub is stopped, under another name first; gone when it
//! came to its end. A crash leaves the old one or the new one: the walk goes on a little earlier, or
//! where it was.

use bio::Extent;
use serde_json::{Value, json};
use std::cell::Cell;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use units::Sector;

const EVERY: Duration = Duration::from_secs(10);
/// No position is longer.
const BYTES_MAX: u64 = 4096;

/// Where a walk was stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Position {
    /// The first step that was not done.
    pub next_step: u64,
    /// The part of the volume that it was to walk through; none: all of it.
    pub range: Option<Extent>,
    /// Sectors of the volume: a step of another volume means nothing.
    pub sectors: u64,
}

impl Position {
    fn encode(self) -> Value {
        let range = self.range.map(|range| [range.sector.0, range.sectors]);
        json!({"schema": 1, "next_step": self.next_step, "range": range, "sectors": self.sectors})
    }

    fn decode(value: &Value) -> Option<Self> {
        let range = match &value["range"] {
            Value::Null => None,
            range => {
                Some(Extent { sector: Sector(range[0].as_u64()?), sectors: range[1].as_u64()? })
            }
        };
        let known = value["schema"].as_u64() == Some(1);
        let next_step = value["next_step"].as_u64()?;
        known.then_some(Self { next_step, range, sectors: value["sectors"].as_u64()? })
    }
}

/// Keeps it.
pub struct Positions {
    folder: Option<PathBuf>,
    written: Cell<Instant>,
}

impl Positions {
    /// In `folder`; none: nothing is kept.
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self { folder, written: Cell::new(Instant::now()) }
    }

    /// What was kept last, if it is of a volume of `sectors` sectors.
    pub fn load(&self, sectors: u64) -> Option<Position> {
        let file = self.folder.as_ref()?.join("scrub.json");
        let metadata = fs::metadata(&file).ok()?;
        if !metadata.is_file() || metadata.len() > BYTES_MAX {
            return None;
        }
        let value: Value = serde_json::from_slice(&fs::read(&file).ok()?).ok()?;
        Position::decode(&value).filter(|position| position.sectors == sectors)
    }

    /// Keeps `position`, if the last one is old enough.
    pub fn pass(&self, position: Position) {
        if self.written.get().elapsed() >= EVERY {
            let _next_time = self.keep(position);
        }
    }

    /// Keeps `position`. Whether it is kept.
    pub fn keep(&self, position: Position) -> bool {
        self.written.set(Instant::now());
        self.write(position).is_ok_and(|()| self.folder.is_some())
    }

    fn write(&self, position: Position) -> io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        fs::create_dir_all(folder)?;
        let new = folder.join("scrub.new");
        fs::write(&new, format!("{}\n", position.encode()))?;
        fs::rename(new, folder.join("scrub.json"))
    }

    /// There is nothing to go on with.
    pub fn clear(&self) {
        if let Some(folder) = &self.folder {
            let _not_there = fs::remove_file(folder.join("scrub.json"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_kept_for_its_own_volume_until_it_is_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let positions = Positions::new(Some(folder.path().join("state")));
        assert_eq!(positions.load(100), None);
        let range = Some(Extent { sector: Sector(8), sectors: 80 });
        for range in [None, range] {
            let position = Position { next_step: 7, range, sectors: 100 };
            assert!(positions.keep(position));
            assert_eq!(positions.load(100), Some(position));
            assert_eq!(positions.load(101), None);
        }
        std::fs::write(folder.path().join("state/scrub.json"), b"{\"schema\":1}").unwrap();
        assert_eq!(positions.load(100), None);
        positions.clear();
        assert_eq!(positions.load(100), None);
        assert!(!Positions::new(None).keep(Position { next_step: 7, range, sectors: 100 }));
    }
}
