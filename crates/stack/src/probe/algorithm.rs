//! What a volume's tags are made with: the disk does not say, so its written blocks are asked.
//!
//! Every algorithm without a key is tried on the same samples, and tuples of type 1 with every guard;
//! algorithms with a key only if the user names one and has its key. That a digest is as long as the tags is likely but no proof: tags may
//! be cut or padded.

use super::{HINTS, IntegrityProblem};
use crate::given::{Given, IntegrityChoice};
use crate::trial::{Belief, Trial, trials};
use bio::IoError;
use checksum::Algorithm;
use integrity::{Layout, Superblock};
use layers::integrity::{
    Lower, Recalculate, SourceError, TagSource, Tagger, TupleKind, inline_fits,
};

/// Taggers to try on a volume, the likeliest first.
///
/// # Errors
/// [`SourceError`] if what the user named, the key and the volume do not go together.
pub(super) fn candidates(
    given: &Given,
    superblock: &Superblock,
    layout: &Layout,
) -> Result<Vec<Tagger>, SourceError> {
    let mut sources = match &given.integrity {
        IntegrityChoice::Named(source, _) => vec![*source],
        IntegrityChoice::Find | IntegrityChoice::None => unkeyed(layout).collect(),
    };
    let (key, salt) = (given.integrity_key(), superblock.hashed_salt());
    let digest = |source: TagSource| source.hash().map(Algorithm::digest_len);
    sources.sort_by_key(|&source| digest(source) != Some(layout.tag_bytes));
    let tagger = |source| Tagger::new(source, key, salt, layout.block, layout.tag_bytes);
    sources.into_iter().map(tagger).collect()
}

/// Everything that needs no key and can have made tags of this volume.
fn unkeyed(layout: &Layout) -> impl Iterator<Item = TagSource> + use<> {
    let (block, tag_bytes, inline) = (layout.block, layout.tag_bytes, layout.inline);
    let fits = move |tuples: &TupleKind| {
        !inline && tuples.bytes() == tag_bytes && tuples.profile(block).is_ok()
    };
    let tuples = TupleKind::FOUND.into_iter().filter(fits);
    let hashes = Algorithm::UNKEYED.iter().copied().map(TagSource::Hash);
    hashes.chain(tuples.map(|tuples| TagSource::Above(Some(tuples))))
}

/// The tagger that the volume's written blocks agree with, and what they said.
///
/// # Errors
/// A device that fails as a whole. Inside: why none is chosen.
pub(super) async fn choose(
    lower: &Lower,
    superblock: &Superblock,
    layout: &Layout,
    given: &Given,
) -> Result<Result<(Tagger, Trial), IntegrityProblem>, IoError> {
    let mut taggers = match candidates(given, superblock, layout) {
        Ok(taggers) => taggers,
        Err(error) => return Ok(Err(IntegrityProblem::Source(error))),
    };
    let fits = inline_fits(lower.data().limits(), layout.block, layout.tag_bytes);
    if layout.inline && (fits.is_err() || lower.data.is_some()) {
        // There are no tags to look at; the layer refuses it by name.
        return Ok(Ok((taggers.swap_remove(0), Trial::default())));
    }
    let trials = trials(lower, layout, &taggers, &HINTS).await?;
    let chosen = match decide(&taggers, &trials) {
        // What lies there was asked for, whatever its tags are made with: its key may be lost.
        Err(_) if given.running.compares_nothing() => Ok(0),
        Err(IntegrityProblem::Refuted { .. }) if starts_anew(given) => Ok(0),
        chosen => chosen,
    };
    Ok(chosen.map(|index| (taggers.swap_remove(index), trials[index])))
}

/// Whether somebody named what all tags are to be computed with, whatever they were before.
fn starts_anew(given: &Given) -> bool {
    let is_named = matches!(given.integrity, IntegrityChoice::Named(..));
    is_named && given.running.recalculate == Recalculate::Reset
}

/// The index of the one that is right.
fn decide(taggers: &[Tagger], trials: &[Trial]) -> Result<usize, IntegrityProblem> {
    let belief_of = |index: usize| match trials[index].belief() {
        // One tuple fits by chance less rarely than its bits say: references may be anybody's numbers.
        Belief::Proven if taggers[index].hash().is_none() && trials[index].is_mostly_refuted() => {
            Belief::Refuted
        }
        belief => belief,
    };
    let believed = |belief| (0..trials.len()).filter(move |&index| belief_of(index) == belief);
    let names = |indexes: &[usize]| indexes.iter().map(|&i| taggers[i].source()).collect();
    let proven: Vec<usize> = believed(Belief::Proven).collect();
    match proven[..] {
        [only] => return Ok(only),
        [] => {}
        _ => return Err(IntegrityProblem::Ambiguous { fitting: names(&proven) }),
    }
    let open: Vec<usize> = believed(Belief::Nothing).collect();
    match open[..] {
        [] => {
            let all: Vec<usize> = (0..trials.len()).collect();
            Err(IntegrityProblem::Refuted { trial: trials[0], tried: names(&all) })
        }
        [only] => Ok(only),
        // Some blocks were written, too few to tell accidents from proof.
        [first, ..] if trials[first].verified > 0 => {
            Err(IntegrityProblem::Ambiguous { fitting: names(&open) })
        }
        // Nothing was written: whoever makes tags of four bytes and says nothing else means
        // CRC-32C. Other sizes have no such custom, and writing with the wrong one would spoil the
        // volume for its owner.
        [first, ..] if taggers[first].tag_bytes() == Algorithm::Crc32c.digest_len() => Ok(first),
        [first, ..] => {
            let tag_bytes = taggers[first].tag_bytes();
            Err(IntegrityProblem::Unwritten { tag_bytes })
        }
    }
}
