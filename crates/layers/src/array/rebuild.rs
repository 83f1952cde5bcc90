//! Members that join, and filling them: what is common to all levels.
//!
//! ```text
//!   joins --> holes everywhere --> fill(window) by the layer, under its locks --> flush --> claim
//!                                      |  what cannot be had stays a hole           |
//!                                      +--------------------------------------------+
//! ```
//! A rebuild walks the holes of all members at once, from the first on, while clients read and
//! write. What a client writes there is written to the members too, and is a hole no more. The
//! walk ends behind the last hole. What nobody can give is lost: it stays unreadable on that member until
//! somebody writes it whole. Where the member has a bad block log it is recorded there, and the member is
//! as full as it can be; else it stays a hole, and the member one that is being filled.
//!
//! # What a crash leaves
//!
//! A member joins that holds nothing:
//!
//! 1. Its own superblock says that it is a spare (whoever made it wrote that). Crash: a spare.
//! 2. In memory it has a place and holes, so that it is written from now on. Crash: a spare.
//! 3. A round gives it its slot, in its own superblock last, which says that it is filled below its
//!    first hole. Crash: those that were written say so; as long as its own was not, it takes itself
//!    for a spare and is one. Never is it taken for more than a member that holds nothing.
//!
//! A member comes back that was away, and lacks what the write-intent bitmap names (`md::missed`):
//!
//! 1. Its own superblock is as it left it. Crash: stale, as before.
//! 2. In memory it has a place and holes where bits are set, so that it is written from now on, and no
//!    bit of what is written is cleared. Crash: stale, and it lacks what the bits name, or less.
//! 3. As 3 above. Crash before its own: stale, as in 2. After: filled below its first hole; what lies
//!    behind that is filled whole.
//!
//! Filling:
//!
//! 1. The layer locks a window, reads it verified, and writes what the members lack. Crash: their
//!    superblocks claim nothing of it, it is done again.
//! 2. The member is flushed; then a round claims what was filled before that flush. Crash: either
//!    claim is true.
//!    What nobody can give is in the member's log, durably, before it is no hole any more (`bad_blocks`).
//! 3. Without holes the claim is that it holds everything. Crash: either claim is true; as long as
//!    not all superblocks say so, the freshest of its own counts.
//!
//! After a crash that left the array dirty, a member that is on its way holds nothing in memory. Its
//! superblock claims more until the next round, which comes before the one that says clean. Crash
//! before: dirty, and it is filled anew again.
//!
//! A replacement takes over, when it lacks nothing:
//!
//! 1. Filled and claimed as above, still beside the holder. Crash: both are there, either is right.
//! 2. In memory the holder leaves and the replacement holds the slot. Crash: as 1.
//! 3. A round calls the old device faulty. Crash: the freshest says so, and the replacement, which
//!    is complete by its own superblock, holds the slot; or none was written, as 1.
//!
//! Writes that were under way reach both: each is right until the last round, and the old one is
//! stale after it.

use super::ordering::FILLED;
use super::{Array, EVERYTHING, Found, JoinError, Member};
use bio::{EventKind, IoErrorKind, IoResult};
use runtime::Tasks;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;
use units::Sector;

/// What a RAID layer does for a rebuild.
pub(crate) trait Filler {
    /// The members.
    fn array(&self) -> &Rc<Array>;
    /// Sectors of each member that the layer uses.
    fn member_sectors(&self) -> u64;
    /// Sectors of each member that are filled at a time; small enough for several steps.
    fn window_sectors(&self) -> u64;
    /// Whether clients are waiting.
    fn is_busy(&self) -> bool;
    /// Whether everything is to stop.
    fn is_closing(&self) -> bool;
    /// Gives every member what it lacks of `sectors`, under the layer's locks and as far as it can
    /// be had; the rest stays a hole, and was told.
    async fn fill(&self, sectors: Range<u64>) -> IoResult;
    /// Redundancy has come back where there was none: what waited for it may go on.
    fn filled(self: &Rc<Self>);
}

/// Runs the rebuild in the background, unless it runs, or there is nothing to do.
pub(crate) fn start<L: Filler + 'static>(layer: &Rc<L>, tasks: &Tasks) {
    let array = layer.array();
    if array.read_only() || layer.is_closing() || !array.wants_rebuild() {
        return;
    }
    if array.rebuilding.replace(true) {
        return;
    }
    let layer = Rc::clone(layer);
    tasks.spawn(async move {
        let result = run(&*layer).await;
        let array = layer.array();
        array.rebuilding.set(false);
        match result {
            Err(error) => {
                let detail = format!("the rebuild stopped: {error}");
                array.events().emit_detail(EventKind::Note, error.sector, 0, detail);
            }
            Ok(()) if !layer.is_closing() => layer.filled(),
            Ok(()) => {}
        }
    });
}

async fn run<L: Filler>(layer: &L) -> IoResult {
    let array = layer.array();
    let (mut seen, mut position, mut steps) = (None, 0, 0u64);
    while !layer.is_closing() {
        array.seat_spares().await?;
        let now = Some(array.changes.get());
        if std::mem::replace(&mut seen, now) != now {
            position = 0;
        }
        let Some(hole) = array.next_hole(position) else {
            array.conclude().await?;
            if Some(array.changes.get()) == seen {
                return Ok(());
            }
            continue;
        };
        if hole.start >= layer.member_sectors() {
            // Sectors that the layer does not use hold nothing.
            for member in array.lacking(&hole) {
                member.set_filled(layer.member_sectors()..u64::MAX);
            }
            continue;
        }
        let window = layer.window_sectors();
        let end = (hole.start / window + 1) * window;
        let end = end.min(hole.end).min(layer.member_sectors());
        layer.fill(hole.start..end).await?;
        position = end;
        steps += 1;
        let quarter = layer.member_sectors() / window / 4;
        if steps.is_multiple_of(quarter.clamp(1, STEPS_PER_CHECKPOINT)) {
            array.checkpoint().await?;
        }
        // Whoever serves clients comes first.
        if layer.is_busy() {
            runtime::sleep(COURTESY).await;
        } else {
            runtime::yield_now().await;
        }
    }
    Ok(())
}

impl Array {
    /// Asks for `call` whenever a member came or went.
    pub(crate) fn on_change(&self, call: impl Fn() + 'static) {
        *self.on_change.borrow_mut() = Some(Rc::new(call));
    }

    pub(super) fn changed(&self) {
        self.changes.set(self.changes.get() + 1);
        let call = self.on_change.borrow().clone();
        if let Some(call) = call {
            call();
        }
    }

    /// Keeps a member that holds nothing, to take the place of one that is gone.
    pub fn add_spare(&self, spare: Found) {
        self.spares.borrow_mut().push(spare);
        self.changed();
    }

    /// Lets go of the spare of this name; false: there is none.
    pub fn remove_spare(&self, name: &str) -> bool {
        let mut spares = self.spares.borrow_mut();
        let before = spares.len();
        spares.retain(|spare| *spare.name != *name);
        spares.len() < before
    }

    /// Whether members are being filled.
    #[must_use]
    pub fn is_rebuilding(&self) -> bool {
        self.rebuilding.get()
    }

    /// Starts what there is to rebuild, unless that runs.
    pub fn rebuild(&self) {
        self.changed();
    }

    fn wants_rebuild(&self) -> bool {
        let vacant = !self.spares.borrow().is_empty() && !self.vacant().is_empty();
        vacant || self.members().any(|member| !member.is_complete() || member.replaces())
    }

    /// The first sectors from `from` on that somebody lacks.
    fn next_hole(&self, from: u64) -> Option<Range<u64>> {
        let holes = self.members().filter_map(|member| member.next_hole(from));
        holes.min_by_key(|hole| hole.start)
    }

    /// Gives vacant slots to spares.
    async fn seat_spares(&self) -> IoResult {
        for slot in self.vacant() {
            loop {
                let spare = self.spares.borrow_mut().pop();
                let Some(mut spare) = spare else { return Ok(()) };
                spare.slot = slot;
                let name = Rc::clone(&spare.name);
                match self.join(spare, false, EVERYTHING).await {
                    Ok(member) => {
                        self.tell_started(&member);
                        break;
                    }
                    Err(JoinError::Io(error)) => return Err(error),
                    Err(why) => {
                        let detail = format!("the spare is of no use: {why}");
                        let events = self.events().for_member(&name);
                        events.emit_detail(EventKind::Note, Sector::ZERO, 0, detail);
                    }
                }
            }
        }
        Ok(())
    }

    /// Says that `member` is being filled from now on.
    pub(super) fn tell_started(&self, member: &Member) {
        let detail = format!("slot {}", member.slot());
        let lacking = member.lacking_sectors();
        member.events().emit_detail(EventKind::RebuildStarted, Sector::ZERO, lacking, detail);
    }

    /// Claims on disk what was filled.
    pub(super) async fn checkpoint(&self) -> IoResult {
        let _lock = self.lock.acquire(1).await;
        self.unbroken()?;
        if self.members().all(|member| member.is_claimed()) {
            return Ok(());
        }
        let filling: Vec<Rc<Member>> =
            self.members().filter(|member| !member.is_claimed()).collect();
        for member in filling {
            match member.flush(FILLED).await {
                Ok(()) => {}
                Err(error) if error.kind == IoErrorKind::NoSpace => return Err(error),
                Err(error) => self.drop_member(&member, error)?,
            }
        }
        self.round(self.rounds.on_disk()).await
    }

    /// The walk has come to its end.
    async fn conclude(&self) -> IoResult {
        self.checkpoint().await?;
        for member in self.members().filter(|member| member.replaces() && member.is_complete()) {
            self.take_over(&member).await?;
        }
        for member in self.members().filter(|member| member.end_filling()) {
            let (lost, given_up) = (member.lacking_sectors(), member.given_up_sectors());
            if lost == 0 {
                let but = format!(", but for {given_up} sectors that nobody has, recorded as bad");
                let but = if given_up > 0 { &*but } else { "" };
                let detail = format!("slot {}{but}", member.slot());
                member.events().emit_detail(EventKind::Rebuilt, Sector::ZERO, 0, detail);
            } else {
                let detail = format!("{lost} sectors could not be had, and stay unreadable on it");
                member.events().emit_detail(EventKind::Note, Sector::ZERO, 0, detail);
            }
        }
        Ok(())
    }

    /// Makes a complete replacement the holder of its slot.
    async fn take_over(&self, replacement: &Rc<Member>) -> IoResult {
        let _lock = self.lock.acquire(1).await;
        self.unbroken()?;
        if let Some(old) = self.member(replacement.slot()) {
            self.leave(&old);
            let detail = format!("replaced by {}", replacement.name());
            old.events().emit_detail(EventKind::Note, Sector::ZERO, 0, detail);
        }
        self.round(self.rounds.on_disk()).await
    }
}

/// At most; small arrays have a few checkpoints too.
const STEPS_PER_CHECKPOINT: u64 = 256;
/// Sectors of each member that are filled at a time, of a large array: 1 MiB.
pub(crate) const WINDOW_SECTORS: u64 = 2048;
/// In how many steps a small one is filled at least, as far as its chunks allow.
pub(crate) const STEPS_MIN: u64 = 16;
const COURTESY: Duration = Duration::from_millis(2);
