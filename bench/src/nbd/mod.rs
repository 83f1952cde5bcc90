//! Area `nbd`: what clients get from a served volume, beside the servers that people use now.
//!
//! ```text
//!   fio, nbdcopy --- unix socket ---> steadfast serve --+
//!        |                                              +--> files of one size in one folder
//!        +---------- unix socket ---> the peer ---------+
//! ```
//!
//! Both servers of a comparison run all the time; loads alternate between them, so that what the
//! machine does meanwhile hits both. The one that is not asked waits and costs nothing.

mod client;
mod giant;
mod load;
mod server;

use crate::measure::median;
use crate::place::Place;
use crate::row::{Row, note};
use crate::settings::Settings;
use anyhow::Context;
use load::LOADS;
use server::{Kind, Server};

/// All rows of the area.
pub(crate) fn rows(settings: &Settings) -> anyhow::Result<Vec<Row>> {
    let place = Place::new(settings)?;
    note(&place.conditions());
    let mut rows = Vec::new();
    for comparison in COMPARISONS {
        rows.extend(comparison.rows(settings, &place, "")?);
    }
    if let Some(place) = place.in_memory()? {
        for comparison in IN_MEMORY {
            rows.extend(comparison.rows(settings, &place, " in memory")?);
        }
    }
    if settings.wants(giant::NAME) {
        rows.extend(giant::rows(settings, &place)?);
    }
    Ok(rows)
}

/// Ours beside a peer, under every load.
struct Comparison {
    name: &'static str,
    ours: Kind,
    peer: Kind,
}

impl Comparison {
    fn rows(
        &self,
        settings: &Settings,
        place: &Place,
        place_name: &str,
    ) -> anyhow::Result<Vec<Row>> {
        let subject = format!("{}{place_name}", self.name);
        let name = |load: &str| format!("{subject}, {load}, beside {}", self.peer.name());
        let wanted: Vec<_> = LOADS.iter().filter(|load| settings.wants(&name(load.name))).collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let Some(peer) = Server::start(self.peer, place)? else {
            note(&format!("{} is not installed", self.peer.name()));
            return Ok(Vec::new());
        };
        let ours = Server::start(self.ours, place)?.expect("ours was built just now");
        let mut rows = Vec::new();
        for load in wanted {
            let name = format!("{subject}, {}", load.name);
            let (mut our_rates, mut peer_rates) = (Vec::new(), Vec::new());
            for round in 0..settings.rounds {
                let mut sides = [(&ours, &mut our_rates), (&peer, &mut peer_rates)];
                // Nobody is always the one who comes second.
                if round % 2 == 1 {
                    sides.reverse();
                }
                for (server, rates) in sides {
                    let rate = load.run(server, place);
                    rates.push(rate.with_context(|| format!("{name}\n{}", server.log()))?);
                }
            }
            let (ours, peer) = (median(our_rates), median(peer_rates));
            note(&format!("{name}: {ours:.1} beside {peer:.1} {}", load.unit));
            rows.push(Row::new(name, ours, (self.peer.name(), Some(peer)), load.unit));
        }
        Ok(rows)
    }
}

const COMPARISONS: &[Comparison] = &[
    Comparison { name: "memory", ours: Kind::Memory, peer: Kind::NbdkitMemory },
    Comparison { name: "raw file", ours: Kind::Raw, peer: Kind::QemuNbd },
    Comparison { name: "integrity", ours: Kind::Integrity, peer: Kind::Raw },
    Comparison { name: "RAID 1 of 2 integrity", ours: Kind::Raid1, peer: Kind::Btrfs },
    Comparison { name: "RAID 6 of 6 integrity", ours: Kind::Raid6, peer: Kind::Raw },
];

/// On a file system in memory, where no cache mode can differ and no disk is the limit. (nbdkit has
/// no way past the page cache, so it is compared only here.)
const IN_MEMORY: &[Comparison] = &[
    Comparison { name: "raw file", ours: Kind::Raw, peer: Kind::QemuNbd },
    Comparison { name: "raw file", ours: Kind::Raw, peer: Kind::NbdkitFile },
    Comparison { name: "integrity", ours: Kind::Integrity, peer: Kind::Raw },
    Comparison { name: "RAID 1 of 2 integrity", ours: Kind::Raid1, peer: Kind::Btrfs },
    Comparison { name: "RAID 6 of 6 integrity", ours: Kind::Raid6, peer: Kind::Raw },
];
