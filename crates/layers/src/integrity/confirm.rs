//! Tags that went home are there, before the journal lets go of them.
//!
//! A write that a disk loses, tears or stores elsewhere is noticed by the tags, if it brings data or
//! if it brings tags: either way the two disagree. One write can get both wrong: tags that, instead of
//! going home, land on the very data they vouch for, and are by chance what was there before. Then old
//! data has its old tag, and nothing ever disagrees again.
//!
//! Hashes are as good as random, so what they can pass for is zeroes: where a page of tags has its
//! padding, or tags that nobody wrote yet. Tags from above may be the same byte throughout as well: tuples
//! that nobody gave are all ones, as is what erased flash gives. Journal sections have a commit id in every
//! sector. So a page with a sector of one byte repeated is read again when it is durable, and if it is
//! not there, everything is brought home once more from the journal, also the data it may have landed on.
//! Volumes of hashes with the default interleave, made with all their tags, have no such pages, and read
//! nothing.

use super::Inner;
use super::ordering::CONFIRM;
use bio::{EventKind, IoErrorKind};
use units::Sector;

/// Why blocks are not home for certain.
pub(super) enum NotHome {
    /// They could not be written or confirmed. They may be written again.
    Unwritten(IoErrorKind),
    /// The device could not be flushed.
    Unflushed(IoErrorKind),
}

impl Inner {
    /// Does `write`, which writes blocks home, as often as it takes for the tags to be there. The
    /// journal must hold all of it until the device was flushed once more, which this does only if
    /// there is something to be read again. Crash at any point: replay writes it again.
    ///
    /// # Errors
    /// [`NotHome`], `Medium` if the tags were not there each time.
    pub(super) async fn bring_home(
        &self,
        write: impl AsyncFn() -> Result<(), IoErrorKind>,
    ) -> Result<(), NotHome> {
        for _ in 0..ATTEMPTS {
            write().await.map_err(NotHome::Unwritten)?;
            if !self.tags.has_unconfirmed() {
                return Ok(());
            }
            self.lower.flush_for(CONFIRM).await.map_err(|error| NotHome::Unflushed(error.kind))?;
            let astray = self.tags.confirm().await;
            let astray = astray.map_err(|error| NotHome::Unwritten(error.kind))?;
            if astray.is_empty() {
                return Ok(());
            }
            for address in astray {
                let sector = self.layout.sector_of_tag(address).unwrap_or(Sector::ZERO);
                let detail = "tags from here on were written and are not there: written again";
                self.events.emit_detail(EventKind::Note, sector, 0, detail.to_owned());
            }
        }
        Err(NotHome::Unwritten(IoErrorKind::Medium))
    }
}

/// How often something is written before the device is believed to store nothing there.
pub(super) const ATTEMPTS: usize = 3;
