//! Requests in pieces: each as long as what lies in one run on the members.

use bio::{Bio, IoResult, Op, Segments};
use units::{Sector, usize_of};

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
    let mut left = std::mem::take(&mut bio.data);
    let mut outcome = Ok(());
    while at < end && outcome.is_ok() {
        let mut pieces = Vec::new();
        while at < end && pieces.len() < PIECES_MAX {
            let sectors = run(at).min(end - at);
            let mut data = Segments::default();
            if bio.op.has_data() {
                let rest = left.split_off(usize_of(Sector(sectors).bytes()));
                data = std::mem::replace(&mut left, rest);
            }
            pieces.push(piece(bio, at, sectors, data));
            at += sectors;
        }
        let each = &each;
        let running = pieces.into_iter().map(|mut piece| async move {
            let result = each(&mut piece).await;
            (piece.data, result)
        });
        for (data, result) in runtime::join_all(running).await {
            bio.data.append(data);
            outcome = outcome.and(result);
        }
    }
    bio.data.append(left);
    outcome
}

/// The part of `bio` that has `data` and `sectors` sectors from `sector` on.
fn piece(bio: &Bio, sector: Sector, sectors: u64, data: Segments) -> Bio {
    let op = match bio.op {
        Op::Discard { .. } => Op::Discard { sectors },
        Op::WriteZeroes { unmap, .. } => Op::WriteZeroes { sectors, unmap },
        other => other,
    };
    Bio {
        op,
        sector,
        data,
        tags: Segments::default(),
        seed: bio.seed + (sector - bio.sector),
        bypass: bio.bypass,
        reason: bio.reason,
    }
}

/// Pieces of one request in flight.
const PIECES_MAX: usize = 64;
