//! Writes a ledger beside a volume's thread, which never waits for it.
//!
//! Events go through a channel to a thread that collects them for [`FLUSH_AFTER`] and writes them
//! in one batch. So a crash of the process loses what happened in that time at most; of the
//! machine, that and the time the batch needs to become durable.

use crate::book::Book;
use crate::file::{Ledger, LedgerError};
use crate::record::{Draft, Kind, Time};
use std::cell::Cell;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, channel, sync_channel,
};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long an event waits to be written at most, if the file can be written.
pub const FLUSH_AFTER: Duration = Duration::from_millis(500);
/// After a failure, how long until the next attempt.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// Events that wait for the writer at most; more are counted, not kept.
const WAITING_MAX: usize = 1 << 16;

/// What a ledger amounts to, with all that was recorded before it was asked for.
#[derive(Debug)]
pub struct Snapshot {
    /// What it amounts to.
    pub book: Book,
    /// Why not everything is written, or read.
    pub error: Option<LedgerError>,
    /// Events that are not written, because of that.
    pub unwritten: usize,
}

enum Message {
    Draft(Box<Draft>),
    Ask(Sender<Snapshot>),
}

/// Takes events for a ledger. Dropped, it has written them.
#[derive(Debug)]
pub struct Recorder {
    sender: Option<SyncSender<Message>>,
    writer: Option<JoinHandle<()>>,
    dropped: Cell<u64>,
}

impl Recorder {
    /// Starts the writer of the ledger in `folder`. Nothing is read or made before there is
    /// something to write, or it is asked.
    ///
    /// # Errors
    /// There are no threads left.
    pub fn start(folder: PathBuf) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(WAITING_MAX);
        let ledger = Ledger::new(folder);
        let builder = std::thread::Builder::new().name("ledger".to_owned());
        let writer = builder.spawn(move || Writer::new(ledger).run(&receiver))?;
        Ok(Self { sender: Some(sender), writer: Some(writer), dropped: Cell::new(0) })
    }

    /// Records `draft`. Never waits.
    pub fn record(&self, draft: Draft) {
        let dropped = self.dropped.take();
        if dropped > 0 {
            let note = Draft { sectors: dropped, ..Draft::new(Kind::Dropped, Time::now()) };
            if !self.send(note) {
                self.dropped.set(dropped + 1);
                return;
            }
        }
        if !self.send(draft) {
            self.dropped.set(self.dropped.get() + 1);
        }
    }

    fn send(&self, draft: Draft) -> bool {
        let sender = self.sender.as_ref().expect("only dropping takes it");
        sender.try_send(Message::Draft(Box::new(draft))).is_ok()
    }

    /// Asks for all of it, once everything is written that was recorded before. The answer comes
    /// by itself; none comes if the writer has no room for the question.
    #[must_use]
    pub fn ask(&self) -> Receiver<Snapshot> {
        let (answer, receiver) = channel();
        let sender = self.sender.as_ref().expect("only dropping takes it");
        match sender.try_send(Message::Ask(answer)) {
            // Then the receiver hears that nobody will answer.
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => receiver,
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(writer) = self.writer.take() {
            // If it panicked, that was said; the volume is not to suffer from it.
            let _panicked = writer.join();
        }
    }
}

struct Writer {
    ledger: Ledger,
    waiting: Vec<Draft>,
    /// Those for which there was no room among the waiting.
    dropped: u64,
    due: Option<Instant>,
    error: Option<LedgerError>,
}

impl Writer {
    const fn new(ledger: Ledger) -> Self {
        Self { ledger, waiting: Vec::new(), dropped: 0, due: None, error: None }
    }

    fn run(mut self, receiver: &Receiver<Message>) {
        loop {
            let received = match self.due {
                None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => receiver.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            match received {
                Ok(Message::Draft(draft)) => {
                    if self.waiting.len() < WAITING_MAX {
                        self.waiting.push(*draft);
                    } else {
                        self.dropped += 1;
                    }
                    self.due.get_or_insert_with(|| Instant::now() + FLUSH_AFTER);
                }
                Ok(Message::Ask(answer)) => {
                    let snapshot = self.snapshot();
                    // Whoever asked may have gone.
                    let _gone = answer.send(snapshot);
                }
                Err(RecvTimeoutError::Timeout) => self.flush(),
                Err(RecvTimeoutError::Disconnected) => break self.flush(),
            }
        }
    }

    fn flush(&mut self) {
        self.due = None;
        if self.waiting.is_empty() {
            return;
        }
        match self.ledger.append(&self.waiting) {
            Ok(_) => {
                self.waiting.clear();
                self.error = None;
                let sectors = std::mem::take(&mut self.dropped);
                if sectors > 0 {
                    let dropped = Draft::new(Kind::Dropped, Time::now());
                    self.waiting.push(Draft { sectors, ..dropped });
                    self.flush();
                }
            }
            Err(error) => {
                self.error = Some(error);
                self.due = Some(Instant::now() + RETRY_AFTER);
            }
        }
    }

    fn snapshot(&mut self) -> Snapshot {
        self.flush();
        let mut error = self.error.take();
        if let Err(unreadable) = self.ledger.refresh() {
            error.get_or_insert(unreadable);
        }
        Snapshot { book: self.ledger.book().clone(), error, unwritten: self.waiting.len() }
    }
}

#[cfg(test)]
mod tests;
