//! Copies that nobody could check, beside copies that somebody did.
//!
//! A tuple of protection information that is an escape turns every check off. Whoever wrote the block
//! wanted that, or the tuple rotted into it; so a copy with an escape is one *without tags*, not a valid
//! one:
//!
//! | the copies of one block, all in sync | |
//! |---|---|
//! | some are checked and agree | they are right: those without tags that differ are healed from them |
//! | some are checked and differ | inconsistent |
//! | none is checked | judged as copies without tags are (majority.rs); to heal a damaged one, all that can be read have to be the same |
//!
//! Readers are given a block without tags only after the other copies were looked at. That costs reads where
//! blocks were never written, or by somebody who gave no tags, and nowhere else.

use super::Inner;
use super::heal::{Evidence, verified};
use super::placement::Site;
use super::read::Copy;
use super::resync::blocks;
use bio::{Bio, Buf, Extent};

impl Copy {
    /// Whether the member checked the block `one` against a tag when it gave it.
    pub(super) fn is_checked(&self, one: Extent) -> bool {
        verified(&self.site.member) && !self.tagging.is_escaped(self.piece(one))
    }
}

/// The best of several copies of one block for which the damaged copy's own tag does not vouch.
#[derive(Default)]
pub(super) struct Best {
    found: Option<(bool, Buf)>,
    /// There are copies that nobody checked, and they differ.
    differ: bool,
}

impl Best {
    /// One more copy: whether it was checked, and what it is.
    pub(super) fn offer(&mut self, checked: bool, bytes: Buf) {
        match &self.found {
            Some((true, _)) => {}
            Some((false, found)) if !checked => self.differ |= found.as_slice() != bytes.as_slice(),
            _ => (self.found, self.differ) = (Some((checked, bytes)), false),
        }
    }

    /// What it is; none also where copies differ and tuples would have said which is right.
    pub(super) fn taken(self, inner: &Inner) -> Option<Buf> {
        let undecided = self.differ && inner.tagging.profile().is_some();
        self.found.filter(|_| !undecided).map(|(_, bytes)| bytes)
    }
}

impl Inner {
    /// Which of the readable copies of block `one`, that differ, are right by their tags: the first of those,
    /// and the ones without tags that differ from it. None: tags do not decide.
    pub(super) fn by_tags(copies: &[Copy], one: Extent) -> Option<(usize, Vec<usize>)> {
        let readable = || (0..copies.len()).filter(|&index| !copies[index].damaged_at(one.sector));
        let (checked, others): (Vec<usize>, Vec<usize>) =
            readable().partition(|&index| copies[index].is_checked(one));
        let alike = |a: usize, b: usize| copies[a].piece(one) == copies[b].piece(one);
        let &first = checked.first()?;
        copies[first].tagging.profile()?;
        let agree = checked.iter().all(|&other| alike(first, other));
        let wrong: Vec<usize> = others.into_iter().filter(|&other| !alike(first, other)).collect();
        (agree && !wrong.is_empty()).then_some((first, wrong))
    }

    /// Puts in `bio`, which was read from `site`, what other copies have for blocks that nobody could check.
    pub(super) async fn weigh(&self, bio: &mut Bio, site: &Site) {
        if self.tagging.profile().is_none() || !verified(&site.member) {
            return;
        }
        for run in self.escaped_runs(bio) {
            let _lock = self.ranges.lock(run.sector.0..run.sector.0 + run.sectors).await;
            for (one, bytes) in self.checked_instead(run).await {
                self.tagging.fill(bio, one.sector, &bytes);
            }
        }
    }

    /// Runs of blocks of what was read whose tags are escapes.
    fn escaped_runs(&self, bio: &Bio) -> Vec<Extent> {
        let (block, tags) = (self.block().sectors(), bio.tags.to_single());
        let whole = Extent { sector: bio.sector, sectors: bio.sectors() };
        let each = self.tagging.tag_bytes(block);
        let mut runs: Vec<Extent> = Vec::new();
        for (one, tag) in blocks(whole, block).zip(tags.as_slice().chunks_exact(each)) {
            if !self.tagging.any_escape(tag) {
                continue;
            }
            match runs.last_mut() {
                Some(run) if run.sector + run.sectors == one.sector => run.sectors += one.sectors,
                _ => runs.push(one),
            }
        }
        runs
    }

    /// Blocks of `run` of which copies that were checked say something else than others do, and what that
    /// is; the others are healed. Called under the range's lock.
    pub(super) async fn checked_instead(&self, run: Extent) -> Vec<(Extent, Buf)> {
        let sites = self.sites(run);
        if self.tagging.profile().is_none() || sites.len() < 2 {
            return Vec::new();
        }
        let mut copies = Vec::new();
        for site in sites {
            // Who cannot be asked has nothing to say here, and is found out by whoever needs him.
            copies.extend(self.copy_of(&site, run.sector, run.sectors, true).await.ok());
        }
        let mut instead = Vec::new();
        for one in blocks(run, self.block().sectors()) {
            if !self.array.in_sync(&(one.sector.0..one.sector.0 + one.sectors)) {
                continue;
            }
            let Some((right, wrong)) = Self::by_tags(&copies, one) else { continue };
            let bytes = Buf::copy_of(copies[right].piece(one));
            for &index in &wrong {
                let found = Evidence { bytes: bytes.clone(), vouched: false };
                self.write_back(&copies[index].site, one, &found).await;
            }
            instead.push((one, bytes));
        }
        instead
    }
}
