//! What an array's write journal holds of one strip, as it lies there.

use crate::write_journal::WriteJournal;
use bio::{Bio, Buf};
use md::journal::{BLOCK_SECTORS, Place, Row, Seed};
use serde::Serialize;
use units::Sector;

/// Where bytes of a strip lie.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Whereabouts {
    /// On the member.
    Home,
    /// In the write journal, with parity: it belongs home, and home may be old, new or between.
    Journal,
    /// In the write journal, without parity: newer than all else, and nothing at home was touched for it.
    JournalAlone,
}

/// A block in the journal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Logged {
    place: Place,
    seed: Seed,
    pub lies: Whereabouts,
}

impl Logged {
    /// Where it begins in the ring, in sectors.
    pub const fn at(&self) -> u64 {
        self.place.at
    }

    /// Whether the journal's checksum says that it is these bytes.
    pub fn vouches(&self, bytes: &[u8]) -> bool {
        self.seed.checksum(bytes) == self.place.checksum
    }
}

impl WriteJournal {
    /// The blocks that it holds of `slot` where `sector` of its data is, the newest first.
    pub fn logged(&self, slot: usize, sector: Sector) -> Vec<Logged> {
        let start = Sector(sector.0 / BLOCK_SECTORS * BLOCK_SECTORS);
        let Some(Row { complete, data_only }) = self.found.rows.row(start) else {
            return Vec::new();
        };
        let lists = [(data_only, Whereabouts::JournalAlone), (complete, Whereabouts::Journal)];
        let own = lists.into_iter().filter_map(|(list, lies)| {
            let &(_, place) = list.iter().find(|(holder, _)| *holder == slot)?;
            Some(Logged { place, seed: self.seed, lies })
        });
        own.collect()
    }

    /// Whether it holds anything where `sector` of the members' data is.
    pub fn names_row(&self, sector: Sector) -> bool {
        let start = sector.0 / BLOCK_SECTORS * BLOCK_SECTORS;
        self.found.rows.row(Sector(start)).is_some()
    }

    /// What lies there, checked by nobody; none: it cannot be read.
    pub async fn read_logged(&self, logged: &Logged) -> Option<Buf> {
        let mut bio = Bio::read(Sector(logged.at()), BLOCK_SECTORS).bypassing();
        self.ring.submit(&mut bio).await.ok()?;
        Some(bio.data.into_single())
    }
}
