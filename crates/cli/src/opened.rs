//! An open volume together with its ledger: what happens to it is kept, over restarts.
//!
//! ```text
//!   stack::open ---events---> Keeper --(identity known)--> ledger::Recorder --> DIR/ledger.jsonl
//!                                |
//!   Opened::review: what is unresolved is read again; what is fine now is resolved
//! ```
//!
//! Nothing here makes a verb fail: a ledger that cannot be kept is one warning.

use crate::commands::Context;
use bio::{Event, EventKind, Extent, Finding};
use ledger::{Area, Book, Draft, Kind, LedgerError, Recorder, Snapshot, State, Time, Unresolved};
use scrub::Summary;
use stack::{Suspect, Volume};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;
use units::Sector;

/// Events that are remembered until the volume's identity is known; a member tells as many at most.
const EARLY_MAX: usize = 1 << 16;
/// Unresolved places that are read again, newest first, before the volume's health is told.
const RECHECK_MAX: usize = 256;
/// How long the ledger's writer is waited for, and how often it is looked for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(20);
const ANSWER_POLL: Duration = Duration::from_millis(2);

/// Where a volume's ledger is kept.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Place {
    /// Where the identity says.
    #[default]
    Default,
    /// In this folder.
    Folder(PathBuf),
    /// Nowhere.
    None,
}

impl Place {
    /// From what was given for `--state`.
    pub fn of(option: Option<&str>) -> Self {
        match option {
            None => Self::Default,
            Some("none") => Self::None,
            Some(folder) => Self::Folder(PathBuf::from(folder)),
        }
    }

    /// Absolute, so that it means the same to whoever asks a server.
    fn folder(&self, identity: &str) -> Option<PathBuf> {
        match self {
            Self::Folder(folder) => std::path::absolute(folder).ok(),
            Self::None => None,
            Self::Default => {
                let is_root = rustix::process::geteuid().is_root();
                let [xdg, home] = ["XDG_STATE_HOME", "HOME"].map(std::env::var_os);
                ledger::default_folder(is_root, xdg.as_deref(), home.as_deref(), identity)
            }
        }
    }
}

/// Takes the events of a volume, from before it is known which volume that is.
#[derive(Default)]
pub struct Keeper {
    early: RefCell<Vec<(Event, Time)>>,
    /// Those for which there was no room.
    early_dropped: Cell<u64>,
    kept: RefCell<Option<Kept>>,
    /// Nothing is kept: no event is worth remembering.
    is_off: Cell<bool>,
}

struct Kept {
    recorder: Recorder,
    folder: PathBuf,
    /// The members' lasting identities, by name.
    devices: BTreeMap<String, String>,
    /// There is no redundancy: what is damaged is lost.
    is_lone: bool,
}

impl Keeper {
    /// Something happened. Never waits.
    pub fn tell(&self, event: &Event) {
        if let Some(kept) = &*self.kept.borrow() {
            kept.tell(event, Time::now());
        } else if !self.is_off.get() {
            let mut early = self.early.borrow_mut();
            if early.len() < EARLY_MAX {
                early.push((event.clone(), Time::now()));
            } else {
                self.early_dropped.set(self.early_dropped.get() + 1);
            }
        }
    }

    fn start(&self, context: &Context, volume: &Volume, place: &Place) {
        let kept = start(context, volume, place);
        let (early, sectors) = (self.early.take(), self.early_dropped.take());
        if let Some(kept) = &kept {
            early.iter().for_each(|(event, time)| kept.tell(event, *time));
            if sectors > 0 {
                let dropped = Draft::new(Kind::Dropped, Time::now());
                kept.recorder.record(Draft { sectors, ..dropped });
            }
        }
        self.is_off.set(kept.is_none());
        *self.kept.borrow_mut() = kept;
    }

    fn record(&self, draft: Draft) {
        if let Some(kept) = &*self.kept.borrow() {
            kept.recorder.record(draft);
        }
    }

    fn ask(&self) -> Option<Receiver<Snapshot>> {
        self.kept.borrow().as_ref().map(|kept| kept.recorder.ask())
    }
}

fn start(context: &Context, volume: &Volume, place: &Place) -> Option<Kept> {
    // Of a plain device nothing is known, also not which one it is.
    let identity = volume.identity()?;
    let folder = place.folder(&identity)?;
    if !ledger::is_clear_of(&folder, &volume.files()) {
        let folder = folder.display();
        context.report.warn(format!("{folder}: a member has the name of its ledger: none is kept"));
        return None;
    }
    match Recorder::start(folder.clone()) {
        Ok(recorder) => {
            let devices = volume.device_identities();
            let devices = devices.map(|(name, device)| (name.to_owned(), device)).collect();
            let is_lone = volume.status().level.is_none();
            Some(Kept { recorder, folder, devices, is_lone })
        }
        Err(error) => {
            context.report.warn(format!("no ledger is kept: {error}"));
            None
        }
    }
}

impl Kept {
    fn tell(&self, event: &Event, time: Time) {
        let name = event.member.as_deref();
        // A member that the volume does not know is not the volume.
        let device = name.map(|name| self.devices.get(name).map_or(name, String::as_str));
        let is_superblock = stack::is_of_superblock(event);
        let area = if is_superblock { Area::Superblock } else { Area::Data };
        let Some(draft) = Draft::of(event, time, device, area) else { return };
        let is_damage = matches!(event.kind, EventKind::Mismatch { .. } | EventKind::MediumError);
        let is_lost = self.is_lone && is_damage;
        let lost = is_lost.then(|| Draft { kind: Kind::Lost, ..draft.clone() });
        self.recorder.record(draft);
        lost.into_iter().for_each(|lost| self.recorder.record(lost));
    }
}

/// What a volume's ledger says of it.
pub struct Review {
    /// Where it is kept.
    pub folder: PathBuf,
    /// What it amounts to.
    pub book: Book,
    /// Why it is not complete.
    pub error: Option<String>,
    /// The lasting identities of the members that are there.
    devices: Vec<String>,
}

impl Review {
    /// What was read from `folder`, for a volume with these members.
    pub const fn new(folder: PathBuf, book: Book, devices: Vec<String>) -> Self {
        Self { folder, book, error: None, devices }
    }

    /// What is not resolved of the volume and the members that are there, newest first. What is
    /// known of members that were replaced alarms nobody.
    pub fn unresolved(&self) -> Vec<Unresolved> {
        let mut unresolved = self.book.unresolved();
        unresolved.retain(|entry| self.concerns(entry.device.as_deref()));
        unresolved
    }

    /// Sectors of the volume and the members that are there which stand so.
    pub fn sectors(&self, state: State) -> u64 {
        let accounts = self.book.accounts().filter(|(device, _)| self.concerns(*device));
        accounts.map(|(_, account)| account.sectors(state)).fold(0, u64::saturating_add)
    }

    fn concerns(&self, device: Option<&str>) -> bool {
        device.is_none_or(|device| self.devices.iter().any(|known| known == device))
    }
}

/// An open volume and its ledger. To be closed as a volume is.
pub struct Opened {
    volume: Volume,
    keeper: Rc<Keeper>,
    context: Option<Rc<Context>>,
}

impl Deref for Opened {
    type Target = Volume;

    fn deref(&self) -> &Volume {
        &self.volume
    }
}

/// Without a ledger.
impl From<Volume> for Opened {
    fn from(volume: Volume) -> Self {
        Self { volume, keeper: Rc::default(), context: None }
    }
}

impl Opened {
    /// The volume, whose events `keeper` has been told so far and will be told.
    pub fn new(context: &Rc<Context>, volume: Volume, keeper: Rc<Keeper>, place: &Place) -> Self {
        keeper.start(context, &volume, place);
        Self { volume, keeper, context: Some(Rc::clone(context)) }
    }

    /// What the ledger says, after the newest unresolved places were read again; none without one.
    pub async fn review(&self) -> Option<Review> {
        let before = self.snapshot().await?;
        self.resolve(&before.book, RECHECK_MAX).await;
        let Snapshot { book, error, .. } = self.snapshot().await?;
        let devices = self.volume.device_identities().map(|(_, device)| device).collect();
        let folder = self.keeper.kept.borrow().as_ref()?.folder.clone();
        let error = error.or(before.error).map(|error| error.to_string());
        Some(Review { folder, book, error, devices })
    }

    /// The folder in which its state is kept; none: nothing is kept.
    pub fn folder(&self) -> Option<PathBuf> {
        self.keeper.kept.borrow().as_ref().map(|kept| kept.folder.clone())
    }

    /// A scrub went over `range` (none: all of it) to its end: every unresolved place is read
    /// again, and where redundancy is not inconsistent any more, that is resolved too.
    pub async fn scrubbed(&self, range: Option<Extent>, summary: &Summary) {
        let Some(Snapshot { book, .. }) = self.snapshot().await else { return };
        if self.volume.is_read_only() || self.volume.device().flush().await.is_ok() {
            self.resolve(&book, usize::MAX).await;
        }
        let none = |finding| summary.total(finding).sectors == 0;
        let is_listed = summary.unlisted == 0 || none(Finding::Inconsistent);
        // What is inferred is listed by member, and is open as inconsistent until it is decided.
        if summary.stopped_at.is_some() || !is_listed || !none(Finding::Inferred) {
            return;
        }
        let still = |extent: Extent| {
            let mut lines = summary.lines.iter();
            lines.any(|line| line.finding == Finding::Inconsistent && meet(line.extent, extent))
        };
        for entry in book.unresolved() {
            let extent = extent(&entry);
            let walked = range.is_none_or(|range| covers(range, extent));
            if entry.entry.state == State::Inconsistent && walked && !still(extent) {
                self.keeper.record(resolved(&entry));
            }
        }
    }

    /// Reads unresolved places again, the newest `count_max` of them.
    async fn resolve(&self, book: &Book, count_max: usize) {
        let unresolved = book.unresolved();
        // What is inconsistent can be read; only a scrub compares.
        let readable = unresolved.iter().filter(|entry| entry.entry.state != State::Inconsistent);
        for entries in readable.take(count_max).collect::<Vec<_>>().chunks(RECHECK_MAX) {
            let suspects: Vec<Suspect> = entries.iter().map(|entry| suspect(entry)).collect();
            let fine = self.volume.recheck(&suspects).await;
            for (entry, _) in entries.iter().zip(fine).filter(|(_, fine)| *fine) {
                self.keeper.record(resolved(entry));
            }
        }
    }

    /// What the ledger amounts to now; none without one, or if its writer does not answer.
    async fn snapshot(&self) -> Option<Snapshot> {
        let answer = self.keeper.ask()?;
        let begun = runtime::now();
        loop {
            match answer.try_recv() {
                Ok(snapshot) => return Some(snapshot),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) if runtime::now() - begun > ANSWER_MAX => return None,
                Err(TryRecvError::Empty) => runtime::sleep(ANSWER_POLL).await,
            }
        }
    }

    /// Closes the volume, and then the ledger, which has heard of whatever happened meanwhile.
    /// What clients or an import wrote anew is resolved before.
    pub async fn close(self) -> bio::IoResult {
        if !self.volume.is_read_only() && self.volume.device().flush().await.is_ok() {
            let before = self.snapshot().await;
            if let Some(Snapshot { book, .. }) = before {
                self.resolve(&book, RECHECK_MAX).await;
            }
        }
        let Self { volume, keeper, context } = self;
        let closed = volume.close().await;
        let kept = keeper.kept.take();
        keeper.is_off.set(true);
        if let (Some(kept), Some(context)) = (kept, context) {
            let Kept { recorder, folder, .. } = kept;
            // The volume is closed: nobody is kept from anything.
            let last = recorder.ask().recv_timeout(ANSWER_MAX).ok();
            if let Some(Snapshot { unwritten: 1.., error, .. }) = last {
                warn(&context, &folder, error.as_ref());
            }
        }
        closed
    }
}

fn warn(context: &Context, folder: &Path, error: Option<&LedgerError>) {
    let why = error.map_or_else(|| folder.display().to_string(), ToString::to_string);
    context.report.warn(format!(
        "what happened could not be written to the volume's ledger ({why}); --state DIR names \
         another place, '--state none' keeps none"
    ));
}

fn extent(entry: &Unresolved) -> Extent {
    Extent { sector: Sector(entry.entry.sector), sectors: entry.entry.sectors }
}

fn suspect(entry: &Unresolved) -> Suspect {
    let superblock = entry.area == Area::Superblock;
    Suspect { device: entry.device.clone(), superblock, extent: extent(entry) }
}

fn resolved(unresolved: &Unresolved) -> Draft {
    let Unresolved { member, device, area, entry } = unresolved;
    Draft {
        member: Some(member.clone()).filter(|name| !name.is_empty()),
        device: device.clone(),
        area: *area,
        sector: entry.sector,
        sectors: entry.sectors,
        ..Draft::new(Kind::Resolved, Time::now())
    }
}

fn covers(outer: Extent, inner: Extent) -> bool {
    outer.sector <= inner.sector
        && inner.sector.0.saturating_add(inner.sectors)
            <= outer.sector.0.saturating_add(outer.sectors)
}

fn meet(a: Extent, b: Extent) -> bool {
    a.sector.0 < b.sector.0.saturating_add(b.sectors)
        && b.sector.0 < a.sector.0.saturating_add(a.sectors)
}
