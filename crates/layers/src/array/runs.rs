//! Requests at another address, and in pieces: each as long as what lies in one run on the members.

use super::Tagging;
use bio::{Bio, Device, IoResult, Op, Segments};
use units::{Sector, usize_of};

/// Does `bio` on `device` with its first sector at `at` there, where its reference tags count from there.
/// It comes back with its own address and reference tags, and errors in its own addresses.
pub(crate) async fn submit_at(device: &Device, bio: &mut Bio, at: Sector) -> IoResult {
    let sector = std::mem::replace(&mut bio.sector, at);
    let tagging = Tagging::of(device.limits());
    let moves = !bio.tags.is_empty() && tagging.counts() && sector != at;
    let given = (moves && bio.op.is_write()).then(|| {
        let moved = tagging.moved(bio.tags.clone(), sector, at);
        std::mem::replace(&mut bio.tags, moved)
    });
    let result = device.submit(bio).await;
    bio.sector = sector;
    match given {
        Some(given) => bio.tags = given,
        None if moves && result.is_ok() => tagging.move_within(&mut bio.tags, at, sector),
        None => {}
    }
    result.map_err(|error| error.kind.at(sector + error.sector.0.saturating_sub(at.0)))
}

/// Does `bio` in pieces, several at a time: `run` says how many sectors from a sector on go together,
/// `each` does a piece. The first error by address; what lies far behind it is then not tried.
pub(crate) async fn in_runs(
    bio: &mut Bio,
    run: impl Fn(Sector) -> u64,
    each: impl AsyncFn(&mut Bio) -> IoResult,
) -> IoResult {
    let (mut at, end) = (bio.sector, bio.end());
    if run(at) >= end - at {
        return each(bio).await;
    }
    // A piece is whole blocks, so its tags are whole tags.
    let (all, all_tags) = (usize_of(end - at), bio.tags.len_bytes());
    let (mut left, mut tags_left) = (std::mem::take(&mut bio.data), std::mem::take(&mut bio.tags));
    let mut outcome = Ok(());
    while at < end && outcome.is_ok() {
        let mut pieces = Vec::new();
        while at < end && pieces.len() < PIECES_MAX {
            let sectors = run(at).min(end - at);
            let (mut data, mut tags) = (Segments::default(), Segments::default());
            if bio.op.has_data() {
                data = take(&mut left, usize_of(Sector(sectors).bytes()));
                tags = take(&mut tags_left, usize_of(sectors) * all_tags / all);
            }
            pieces.push(piece(bio, (at, sectors), data, tags));
            at += sectors;
        }
        let each = &each;
        let running = pieces.into_iter().map(|mut piece| async move {
            let result = each(&mut piece).await;
            (piece, result)
        });
        for (piece, result) in runtime::join_all(running).await {
            bio.data.append(piece.data);
            bio.tags.append(piece.tags);
            outcome = outcome.and(result);
        }
    }
    bio.data.append(left);
    bio.tags.append(tags_left);
    outcome
}

/// The first `length` bytes of `left`, which keeps the others.
fn take(left: &mut Segments, length: usize) -> Segments {
    let rest = left.split_off(length);
    std::mem::replace(left, rest)
}

/// The part of `bio` that has `data` and `tags` and so many sectors from a sector on.
fn piece(bio: &Bio, (sector, sectors): (Sector, u64), data: Segments, tags: Segments) -> Bio {
    let op = match bio.op {
        Op::Discard { .. } => Op::Discard { sectors },
        Op::WriteZeroes { unmap, .. } => Op::WriteZeroes { sectors, unmap },
        other => other,
    };
    Bio { op, sector, data, tags, bypass: bio.bypass, reason: bio.reason }
}

/// Pieces of one request in flight.
const PIECES_MAX: usize = 64;
