//! Blocks of which every copy is damaged: the data of one, for which the tag of another vouches.
//!
//! ```text
//!              data    tag
//!   member 0   right   rotten      its data: 1's tag vouches for it
//!   member 1   rotten  right       its data: nobody's tag does
//! ```
//! A copy fails its tag because its bytes rotted or because its tag did. So what lies in each copy is
//! offered to the tags that are stored with the others, as it is, and with the one bit turned back that its
//! own tag names. A member that vouches computes the tag as it stored it, with its own salt and sector: that
//! is proof, as if it had read the block. An escape vouches for nothing ([`crate::verify`]).
//!
//! If two are vouched for that differ, as by tags that were exchanged, neither is believed.
//!
//! Where members keep protection information, a block comes back with the tuple that vouched for its data.
//! Where they keep other bytes for whoever is above, no tag speaks of those, and nothing comes back.

use super::Inner;
use super::heal::{Evidence, vouches};
use super::placement::Site;
use bio::{Bio, Buf, Extent, Segments};

impl Inner {
    /// What belongs in block `one`, of which every copy is damaged, interleaved with its tags; written back
    /// to all of them unless nothing may be written. Called under the range's lock.
    pub(super) async fn heal_crossed(&self, one: Extent) -> Option<Buf> {
        let bytes = self.crossed(one).await?;
        for site in self.sites(one) {
            self.heal_one_crossed(&site, one, &bytes).await;
        }
        Some(bytes)
    }

    /// Writes what [`Self::crossed`] found back to one of them; whether it is healed.
    pub(super) async fn heal_one_crossed(&self, site: &Site, one: Extent, bytes: &Buf) -> bool {
        let vouched = vouches(site, one.sector, bytes).await;
        self.write_back(site, one, &Evidence { bytes: bytes.clone(), vouched }).await
    }

    /// What belongs in block `one`, as [`Self::heal_crossed`] finds it, and nothing is written.
    pub(super) async fn crossed(&self, one: Extent) -> Option<Buf> {
        if !self.tagging.is_none() && self.tagging.profile().is_none() {
            return None;
        }
        let sites = self.sites(one);
        let mut found: Option<Buf> = None;
        for (witness, of) in
            sites.iter().flat_map(|one| sites.iter().map(move |other| (one, other)))
        {
            if witness.is(of) {
                continue;
            }
            for mend in [false, true] {
                let Some(bytes) = self.vouched_by(witness, of, one, mend).await else { continue };
                if found.as_ref().is_some_and(|found| found.as_slice() != bytes.as_slice()) {
                    return None;
                }
                found = Some(bytes);
            }
        }
        found
    }

    /// The data that lies in the copy `of`, if the tag stored by `witness` vouches for it, with that.
    async fn vouched_by(&self, witness: &Site, of: &Site, one: Extent, mend: bool) -> Option<Buf> {
        let (data, _) = self.peek(of, one, mend).await?;
        witness.submit(&mut Bio::vouch(one.sector, data.clone())).await.ok()?;
        let mut tags = Segments::default();
        if !self.tagging.is_none() {
            tags = self.peek(witness, one, false).await?.1;
        }
        Some(self.tagging.interleave(data, &tags))
    }

    /// What lies in a copy, whatever its tag says of it.
    async fn peek(&self, site: &Site, one: Extent, mend: bool) -> Option<(Buf, Segments)> {
        let tags = self.tagging.alloc(one.sectors);
        let mut peek = Bio::peek(one.sector, one.sectors, mend).tagged(tags);
        site.submit(&mut peek).await.ok()?;
        Some((peek.data.into_single(), peek.tags))
    }
}
