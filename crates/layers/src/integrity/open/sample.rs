//! Whether a volume's blocks verify at all, before anybody writes to it.

use super::{OpenError, Options};
use crate::integrity::Inner;
use crate::integrity::inline::read_inline;
use crate::integrity::recover::Scan;
use crate::integrity::source::{Evidence, Tagger};
use ::integrity::Run;
use bio::{Buf, EventKind, IoResult};
use runtime::join_all;
use units::{Sector, usize_of};

impl Inner {
    /// Looks at some blocks that seem to have been written: does any verify?
    ///
    /// The superblock has no checksum. If its salt or interleave is damaged, or the algorithm is
    /// another one, every block is a mismatch, and whoever heals would overwrite everything.
    pub(super) async fn sample(
        &self,
        options: &Options,
        found: Option<&Scan>,
    ) -> Result<(), OpenError> {
        let (journalled, sound) = match &self.tagger {
            Tagger::Hash(_) => found.map_or((0, 0), Scan::entries_to_replay),
            // Nobody asks here what entries of the journal are worth.
            Tagger::Above(_) => (0, 0),
        };
        if sound > 0 {
            return Ok(());
        }
        let mut sectors = self.sample_sectors().await;
        // A block whose tag nobody ever called valid proves nothing.
        sectors.retain(|&sector| !self.coverage.is_uncovered(Sector(sector)));
        let mut sampled = journalled;
        for batch in sectors.chunks(SAMPLES_AT_ONCE) {
            let verdicts = join_all(batch.iter().map(|&sector| self.look_at(sector))).await;
            if verdicts.contains(&Look::Verifies) {
                return Ok(());
            }
            sampled += verdicts.iter().filter(|look| **look == Look::Mismatch).count();
        }
        if sampled < SAMPLES_MIN {
            return Ok(());
        }
        let tried = options.tags;
        if options.writes_nothing() {
            let detail = format!("none of {sampled} sampled blocks verifies with {tried}");
            self.events.emit_detail(EventKind::Note, Sector::ZERO, 0, detail);
            return Ok(());
        }
        Err(OpenError::NothingVerifies { sampled, tried })
    }

    /// Blocks to look at: spread over what the device below stores, the first ones always.
    async fn sample_sectors(&self) -> Vec<u64> {
        let (provided, spb) = (self.layout.provided_sectors, self.layout.block.sectors());
        let mut sectors: Vec<u64> = (0..8.min(provided / spb)).map(|block| block * spb).collect();
        let mut at = 0;
        // Jump over holes: the questions are bounded, and so is what is asked about.
        let stride = (provided / SAMPLES / spb * spb).max(spb);
        for _ in 0..SAMPLES * 2 {
            if at >= provided {
                break;
            }
            let run = self.layout.run(Sector(at), provided - at);
            let Ok(below) = self.data().allocation(run.data, run.sectors).await else { break };
            let mut offset = 0;
            for piece in below {
                if !piece.hole {
                    let middle = at + (offset + piece.sectors / 2) / spb * spb;
                    sectors.push(middle.min(provided - spb));
                }
                offset += piece.sectors;
            }
            at = (at + offset.max(spb)).max(at + stride.min(run.sectors)).next_multiple_of(spb);
        }
        sectors.sort_unstable();
        sectors.dedup();
        let keep = sectors.len().div_ceil(usize_of(SAMPLES)).max(1);
        sectors
            .into_iter()
            .enumerate()
            .filter(|(i, _)| *i < 8 || i % keep == 0)
            .map(|(_, s)| s)
            .collect()
    }

    /// Data and tag of a block, as they lie there.
    async fn block_at_home(&self, run: &Run) -> IoResult<(Buf, Vec<u8>)> {
        if self.layout.inline {
            return read_inline(self.data(), &self.layout, run).await;
        }
        let data = self.data().read(run.data, run.sectors).await?;
        let mut tag = vec![0; self.layout.tag_bytes];
        self.tags.read(run.tag_byte, &mut tag, 0).await?;
        Ok((data, tag))
    }

    async fn look_at(&self, sector: u64) -> Look {
        let run = self.layout.run(Sector(sector), self.layout.block.sectors());
        let Ok((data, tag)) = self.block_at_home(&run).await else { return Look::Nothing };
        match self.tagger.evidence(sector, data.as_slice(), &tag) {
            Evidence::Fits => return Look::Verifies,
            Evidence::None => return Look::Nothing,
            Evidence::Differs => {}
        }
        if self.is_discarded(Sector(sector), &tag) {
            return Look::Nothing;
        }
        let untouched = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
        if untouched(data.as_slice()) && untouched(&tag) { Look::Nothing } else { Look::Mismatch }
    }
}

/// What one sampled block says.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Look {
    /// Data and tag agree.
    Verifies,
    /// They do not.
    Mismatch,
    /// Both are zero (never written, never wiped), it was discarded, or cannot be read.
    Nothing,
}

/// Blocks sampled, about.
const SAMPLES: u64 = 64;
const SAMPLES_AT_ONCE: usize = 16;
/// Fewer blocks prove nothing: they may be damaged.
const SAMPLES_MIN: usize = 4;

const _: () = assert!(SAMPLES_AT_ONCE > SAMPLES_MIN);
