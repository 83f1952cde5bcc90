//! Tags from above: this layer makes none and compares none, it keeps them.
//!
//! ```text
//!   a write ---> data + tags ---> log ---> journal ---> home       as one, block by block
//!   a read  <--- data + tags <--- log, or home                      as one write left them
//! ```
//!
//! So an ordinary disk becomes one whose blocks have metadata (`Limits::tag_size` bytes each), kept with
//! its data through a crash. Whoever gives the tags also knows what they are worth: protection
//! information, whose guard and reference the `protect` layer or an application computes, or the
//! authentication tags of an encryption layer. (Kernel: a dm-integrity table without `internal_hash`.)
//!
//! What is different from tags that are made here:
//!
//! - A block and its tag cannot be told to belong together by looking at them. A reader therefore keeps
//!   out who changes blocks at home, from before it asks the log until data and tags are there.
//! - Nothing is known of a block of zeroes by its tag: all zeroing goes through the journal.
//! - An entry of the journal is replayed as it lies there, data and tag. If it rotted, whoever looks at
//!   the tag finds out.
//! - A write without tags, zeroes and discards leave blank tags ([`bio::Bio`]): zeroes, as the kernel
//!   does, or escapes where the tags are known to be tuples.
//! - Recalculation, the bitmap (which ends in one), discards that leave tags of their own, and tags inline
//!   need a hash: refused, as the kernel refuses them.
//!
//! # What a crash leaves
//!
//! Through the journal: a block and its tag, both old or both new, at every step of the list in
//! `mod.rs`; nowhere there does it matter what the tag says. Without one (direct.rs) data and tag of a
//! write that no flush has covered may be of different writes, in part or whole. The guard of a tuple tells that as a hash
//! would; of tags without a meaning here, whoever gave them has to.

use super::create::{NewVolume, Wipe};
use super::open::Options;
use super::read::{Held, Trust, uncovered};
use super::{Inner, at};
use ::integrity::open::{Mode, Refusal};
use ::integrity::{Flags, Layout, Superblock};
use bio::{Bio, Buf, EventKind, IoErrorKind, IoResult, Segments};
use units::Sector;

/// Whether a volume can be opened so, if its tags come from above (specification, sections 5 and 7).
///
/// # Errors
/// [`Refusal::Hash`] with what needs one.
pub(super) fn admit(superblock: &Superblock, options: &Options) -> Result<(), Refusal> {
    let flags = superblock.flags;
    let asked = [
        (flags.has(Flags::INLINE), INLINE),
        (flags.has(Flags::RECALCULATING) || options.recalculates(), RECALCULATION),
        (flags.has(Flags::DIRTY_BITMAP) || options.mode == Some(Mode::Bitmap), "bitmap mode"),
        (flags.has(Flags::DISCARD_KEYED) || options.allow_discards, "discarding"),
    ];
    refuse(options.tags.hash().is_none(), &asked)
}

/// Whether such a volume can be made, if its tags come from above.
///
/// # Errors
/// As [`admit`].
pub(super) fn creatable(layout: &Layout, new: &NewVolume) -> Result<(), Refusal> {
    let asked = [(layout.inline, INLINE), (new.wipe == Wipe::Recalculate, RECALCULATION)];
    refuse(new.tags.hash().is_none(), &asked)
}

fn refuse(above: bool, asked: &[(bool, &'static str)]) -> Result<(), Refusal> {
    match asked.iter().find(|(asked, _)| above && *asked) {
        Some(&(_, what)) => Err(Refusal::Hash { what }),
        None => Ok(()),
    }
}

impl Inner {
    /// Fills the request's data, and its tags if it has room for them, as they were written together.
    pub(super) async fn read_above(&self, bio: &mut Bio) -> IoResult {
        let _held = self.home.lock_shared(bio.sector.0..bio.end().0).await;
        let mut tags = vec![0; bio.tags.len_bytes()];
        let mut data = std::mem::take(&mut bio.data);
        let result = self.read_kept(bio.sector, &mut data, &mut tags, bio.bypass).await;
        bio.data = data;
        result.map_err(|error| self.told(error))?;
        bio.tags.copy_from(0, &tags);
        Ok(())
    }

    /// Reads what a scrub asks for: by the layer's own tags, or by the tuples that are kept. Tags without
    /// a meaning here vouch for nothing, and only what cannot be read is found.
    pub(super) async fn read_judged(&self, bio: &mut Bio) -> IoResult {
        match (self.tagger.hash(), self.tagger.profile()) {
            (Some(_), _) => self.read(bio).await,
            (None, None) => self.read_above(bio).await,
            (None, Some(profile)) => {
                let blocks = self.blocks_in(bio.sectors());
                bio.tags = Buf::alloc(blocks * self.layout.tag_bytes).into();
                self.read_above(bio).await?;
                bio.verify_telling(&profile, &self.events)
            }
        }
    }

    /// The same as [`Self::read_above`] for a range that is held. No `tags`: none are wanted.
    async fn read_kept(
        &self,
        sector: Sector,
        data: &mut Segments,
        tags: &mut [u8],
        bypass: bool,
    ) -> IoResult {
        let blocks = data.len_bytes() / self.block_bytes();
        let tag_bytes = self.layout.tag_bytes;
        let held = self.held(sector, blocks, bypass).await?;
        if let Some(hull) = uncovered(&held, blocks) {
            let tail = data.split_off(hull.end * self.block_bytes());
            let body = data.split_off(hull.start * self.block_bytes());
            let from = sector + self.sectors_of(hull.start);
            let mut result = Ok(());
            let wanted = (bypass, !tags.is_empty());
            for piece in self.fetch_around((sector, &held), from, body, wanted).await {
                result = result.and(piece.result);
                let first = self.blocks_in(piece.run.sector - sector) * tag_bytes;
                if !piece.tags.is_empty() {
                    tags[first..first + piece.tags.len()].copy_from_slice(&piece.tags);
                }
                data.append(piece.data);
            }
            data.append(tail);
            result?;
        }
        self.lay_kept_over(sector, data, tags, &held)
    }

    /// Puts what the journal holds over data and tags.
    fn lay_kept_over(
        &self,
        sector: Sector,
        data: &mut Segments,
        tags: &mut [u8],
        held: &[Held],
    ) -> IoResult {
        let journal = &self.layout.journal;
        let (mut block, mut home) = (vec![0; self.block_bytes()], vec![0; self.block_bytes()]);
        let mut uncertain = Ok(());
        for held in held {
            let bytes = held.section.bytes.borrow();
            journal.read_data(bytes.as_slice(), held.entry, &mut block);
            let tag = journal.entry_tag(bytes.as_slice(), held.entry);
            let offset = held.block * self.block_bytes();
            let kept = match tags.is_empty() {
                true => None,
                false => Some(&mut tags[held.block * tag.len()..][..tag.len()]),
            };
            if held.trust == Trust::Home {
                data.copy_to(offset, &mut home);
                if home != block || kept.is_some_and(|kept| kept != tag) {
                    let at_block = sector + self.sectors_of(held.block);
                    self.tell_uncertain(at_block);
                    uncertain = uncertain.and(Err(at(IoErrorKind::Protection, at_block)));
                }
                continue;
            }
            data.copy_from(offset, &block);
            if let Some(kept) = kept {
                kept.copy_from_slice(tag);
            }
        }
        uncertain
    }

    /// A damaged journal holds another copy of the block than home does.
    pub(super) fn tell_uncertain(&self, sector: Sector) {
        if self.tell_once(sector.0) {
            let detail = "the damaged journal holds another copy".to_owned();
            self.events.emit_detail(EventKind::Lost, sector, self.layout.block.sectors(), detail);
        }
    }
}

const INLINE: &str = "keeping tags inline";
const RECALCULATION: &str = "recalculation";
