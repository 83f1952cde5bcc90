//! What lies there, whether its tag agrees or not: candidates for redundancy to weigh.
//!
//! Nobody is told of a mismatch here: the read that failed before has told it. What the journal
//! holds is newer than what is at home, and is what is given.

use super::{Inner, at};
use bio::{Bio, IoErrorKind, IoResult};
use std::rc::Rc;
use units::Sector;

impl Inner {
    /// Fills the request with what lies there; with `mend`, the one bit turned in each block whose
    /// tag disagrees that makes it agree.
    ///
    /// # Errors
    /// `Protection` at the first block that a single bit does not explain; what the device says.
    pub(super) async fn peek(self: &Rc<Self>, bio: &mut Bio, mend: bool) -> IoResult {
        let _held = self.home.lock_shared(bio.sector.0..bio.end().0).await;
        let mut data = std::mem::take(&mut bio.data);
        let result = self.read_once(bio.sector, &mut data, true).await;
        bio.data = data;
        let bad = result?;
        if !mend || bad.is_empty() {
            return Ok(());
        }
        let tags = self.tags_for(bio, true).await?;
        let tag_bytes = self.layout.tag_bytes;
        let mut block = vec![0; self.block_bytes()];
        for (index, tag) in tags.chunks_exact(tag_bytes).enumerate() {
            let (offset, sector) =
                (index * self.block_bytes(), bio.sector + self.sectors_of(index));
            bio.data.copy_to(offset, &mut block);
            if self.tagger.verify(sector.0, &block, tag).is_none() {
                continue;
            }
            let bit = self.hash().flipped_bit(sector.0, &block, tag);
            let bit = bit.ok_or_else(|| at(IoErrorKind::Protection, Sector(sector.0)))?;
            block[bit / 8] ^= 1 << (bit % 8);
            bio.data.copy_from(offset, &block);
        }
        Ok(())
    }
}
