//! Scrubbing: every block is read from the device, past every cache.

use super::{Integrity, Journal};
use bio::{Bio, Extent, Finding, Findings, LocalFuture, Scrub, ScrubMode};
use units::{SECTOR, Sector};

impl Scrub for Integrity {
    fn steps(&self) -> u64 {
        self.inner.layout.provided_sectors.div_ceil(STEP_SECTORS)
    }

    fn step_extent(&self, step: u64) -> Extent {
        let provided = self.inner.layout.provided_sectors;
        let start = step.saturating_mul(STEP_SECTORS).min(provided);
        Extent { sector: Sector(start), sectors: STEP_SECTORS.min(provided - start) }
    }

    /// There is no redundancy here: both modes only read. The last step ends when every region that a
    /// crash in bitmap mode left in doubt has been looked at.
    fn scrub(&self, step: u64, _mode: ScrubMode) -> LocalFuture<'_, Findings> {
        Box::pin(async move {
            let extent = self.step_extent(step);
            let mut findings = Findings { checked_sectors: extent.sectors, ..Findings::default() };
            if extent.sectors == 0 {
                return findings;
            }
            for bad in self.unreadable(extent).await {
                findings.found.push((Finding::Unreadable, None, bad));
            }
            if let Journal::Direct(direct) = &self.inner.journal
                && let Some(regions) = &direct.regions
                && step + 1 == self.steps()
            {
                regions.walked(|| direct.is_stopped()).await;
            }
            findings
        })
    }
}

impl Integrity {
    /// The runs of blocks within `extent` that cannot be read: halved until each is found.
    async fn unreadable(&self, extent: Extent) -> Vec<Extent> {
        let block = self.inner.layout.block.sectors();
        let mut bad: Vec<Extent> = Vec::new();
        let mut todo = vec![extent];
        while let Some(Extent { sector, sectors }) = todo.pop() {
            let mut bio = Bio::read(sector, sectors).bypassing();
            let Err(error) = self.inner.read_judged(&mut bio).await else { continue };
            if sectors > block {
                // Everything before the first bad block is known to be good where the error says.
                let half = (sectors / 2).next_multiple_of(block);
                let first = error.sector.0.saturating_sub(sector.0);
                let tail = Extent { sector: sector + half, sectors: sectors - half };
                todo.push(tail);
                if first < half {
                    todo.push(Extent { sector, sectors: half });
                }
                continue;
            }
            match bad.last_mut() {
                Some(last) if last.sector + last.sectors == sector => last.sectors += sectors,
                _ => bad.push(Extent { sector, sectors }),
            }
        }
        bad
    }
}

/// 2 MiB at a time.
const STEP_SECTORS: u64 = (2 << 20) / SECTOR;

const _: () = assert!(STEP_SECTORS.is_multiple_of(8));
