//! The server itself: listening, accepting, watching, stopping.

use super::address::{Address, BindError, bind};
use super::connection::{Connection, INPUT_BYTES, Shared};
use super::volume::Volume;
use bio::{Device, IoResult};
use nbd::{BlockSizes, CONTEXT_ALLOCATION, CONTEXT_INTEGRITY, PAYLOAD_MAX, TransmissionFlags, Uri};
use runtime::{Listener, Notify, Semaphore, Stream, now, sleep, spawn};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;
use units::Sector;

/// Bytes of buffers that all connections together hold at most, unless told otherwise.
pub const BUDGET_BYTES: usize = 128 << 20;

/// The least budget: every client's input, and the largest request with room for others.
const BUDGET_BYTES_MIN: usize = 80 << 20;
/// Clients at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 256;
/// For how long a client may stop in the middle of a message while others wait for its buffers,
/// or in the middle of a handshake.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 20 });
/// For how long clients may take to accept their last replies when the server stops.
const FAREWELL: Duration = Duration::from_secs(5);
/// How often all that is looked at.
const LOOK: Duration = Duration::from_secs(1);
const _: () = {
    let inputs = CONNECTIONS_MAX * INPUT_BYTES;
    assert!(BUDGET_BYTES_MIN - inputs > 40 << 20, "the largest request can always be afforded");
};

/// Pause after the system had no socket for us.
const SHORTAGE: Duration = Duration::from_millis(100);

/// How a device is offered.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Export {
    /// Its name; clients that give none get it too. At most 4096 bytes, without NUL.
    pub name: String,
    /// A line for human beings; may be empty. The same bounds.
    pub description: String,
    /// Refuse writes, also where the device takes them.
    pub read_only: bool,
}

/// A server that listens, and serves when it is [run](Self::run).
pub struct Server {
    listener: Listener,
    address: Address,
    budget: Semaphore,
}

impl Server {
    /// Listens at `address` with a budget of [`BUDGET_BYTES`]. A stale Unix socket is replaced; one
    /// with a living server behind it is not.
    ///
    /// # Errors
    /// [`BindError`], which says what is in the way.
    pub fn bind(address: &Address) -> Result<Self, BindError> {
        let (listener, address) = bind(address)?;
        Ok(Self { listener, address, budget: Semaphore::new(BUDGET_BYTES) })
    }

    /// With `bytes` of buffers for all its clients, at least 80 MiB.
    #[must_use]
    pub fn with_budget(mut self, bytes: usize) -> Self {
        self.budget = Semaphore::new(bytes.max(BUDGET_BYTES_MIN));
        self
    }

    /// Where it listens, with the actual port.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The URI by which clients find the export of this name.
    #[must_use]
    pub fn uri(&self, export: &str) -> Uri {
        self.address.uri(export)
    }

    /// Serves `device` until `shutdown` ends. Then:
    ///
    /// 1. No client is accepted any more, and no request is taken.
    /// 2. Requests under way run to their end, and their replies are sent, for at most five
    ///    seconds to a client that does not take them.
    /// 3. The device is flushed. A crash before that leaves what was flushed for a client, as ever.
    /// 4. The socket goes away.
    ///
    /// # Errors
    /// What the last flush says.
    ///
    /// # Panics
    /// If the export's name or description breaks its bounds.
    pub async fn run(
        self,
        device: Device,
        export: Export,
        shutdown: impl Future<Output = ()>,
    ) -> IoResult {
        let volume = Rc::new(Volume::new(device.clone()));
        let shared = Rc::new(Shared {
            exports: Rc::new([describe(&volume, export)]),
            volume,
            budget: self.budget,
            waiting: Cell::new(0),
            starving: Cell::new(None),
            stopping: Cell::new(false),
        });
        let clients = Rc::new(Clients::default());
        let watching = watch(&shared, &clients);
        let serving = clients.accept_until(&self.listener, &shared, shutdown);
        beside(watching, serving).await;

        shared.stopping.set(true);
        clients.each(Connection::stop);
        let all_left = clients.left.until(|| clients.count() == 0);
        beside(last_call(&clients), all_left).await;
        let flushed = match device.limits().read_only {
            true => Ok(()),
            false => device.flush().await,
        };
        drop(self.listener);
        flushed
    }
}

/// The connections there are.
#[derive(Default)]
struct Clients {
    connections: RefCell<BTreeMap<u64, Rc<Connection>>>,
    next: Cell<u64>,
    left: Notify,
}

impl Clients {
    fn count(&self) -> usize {
        self.connections.borrow().len()
    }

    fn each(&self, act: impl Fn(&Connection)) {
        let connections: Vec<_> = self.connections.borrow().values().map(Rc::clone).collect();
        connections.iter().for_each(|connection| act(connection));
    }

    async fn accept_until(
        self: &Rc<Self>,
        listener: &Listener,
        shared: &Rc<Shared>,
        shutdown: impl Future<Output = ()>,
    ) {
        let mut shutdown = pin!(shutdown);
        loop {
            let accept = async {
                self.left.until(|| self.count() < CONNECTIONS_MAX).await;
                let accepted = listener.accept().await;
                if accepted.is_err() {
                    sleep(SHORTAGE).await;
                }
                accepted
            };
            let mut accept = pin!(accept);
            let next: Option<io::Result<Stream>> = std::future::poll_fn(|context| {
                if shutdown.as_mut().poll(context).is_ready() {
                    return Poll::Ready(None);
                }
                accept.as_mut().poll(context).map(Some)
            })
            .await;
            match next {
                None => return,
                Some(Err(_)) => {}
                Some(Ok(stream)) => self.welcome(stream, shared),
            }
        }
    }

    fn welcome(self: &Rc<Self>, stream: Stream, shared: &Rc<Shared>) {
        let connection = Rc::new(Connection::new(stream, Rc::clone(shared)));
        let id = self.next.get();
        self.next.set(id + 1);
        self.connections.borrow_mut().insert(id, Rc::clone(&connection));
        let clients = Rc::clone(self);
        drop(spawn(async move {
            connection.run().await;
            clients.connections.borrow_mut().remove(&id);
            clients.left.notify_all();
        }));
    }
}

/// Cuts off clients that keep others waiting. A client may take as long as it likes between
/// requests, and also within one as long as nobody needs what is held for it.
async fn watch(shared: &Shared, clients: &Clients) {
    loop {
        sleep(LOOK).await;
        let starving =
            shared.starving.get().is_some_and(|since| now().saturating_sub(since) >= PATIENCE);
        clients.each(|connection| {
            let stalled = connection.stalled_for().filter(|_| starving);
            let waited = stalled.max(connection.handshake_stalled_for());
            if waited.is_some_and(|waited| waited >= PATIENCE) {
                connection.abort();
            }
        });
    }
}

async fn last_call(clients: &Clients) {
    sleep(FAREWELL).await;
    clients.each(|connection| {
        if connection.stalled_for().is_some() {
            connection.abort();
        }
    });
}

/// Runs `main` to its end, and `other` beside it for as long.
async fn beside(other: impl Future<Output = ()>, main: impl Future<Output = ()>) {
    let (mut other, mut main) = (pin!(other), pin!(main));
    let mut other_runs = true;
    std::future::poll_fn(|context| {
        other_runs = other_runs && other.as_mut().poll(context).is_pending();
        main.as_mut().poll(context)
    })
    .await;
}

/// What the handshake says of the device.
fn describe(volume: &Volume, export: Export) -> nbd::Export {
    let limits = volume.device().limits();
    let mut flags = TransmissionFlags::HAS_FLAGS
        | TransmissionFlags::SEND_FLUSH
        | TransmissionFlags::SEND_FUA
        | TransmissionFlags::SEND_DF
        | TransmissionFlags::CAN_MULTI_CONN
        | TransmissionFlags::SEND_CACHE;
    if limits.read_only || export.read_only {
        flags |= TransmissionFlags::READ_ONLY;
    } else {
        flags |= TransmissionFlags::SEND_WRITE_ZEROES | TransmissionFlags::SEND_FAST_ZERO;
        if limits.discard {
            flags |= TransmissionFlags::SEND_TRIM;
        }
    }
    let preferred = u32::try_from(volume.block()).expect("a block is at most 4096 bytes");
    nbd::Export {
        name: export.name,
        description: export.description,
        size: Sector(limits.sectors).bytes(),
        flags,
        sizes: BlockSizes { minimum: 1, preferred, maximum: PAYLOAD_MAX },
        contexts: vec![CONTEXT_ALLOCATION.to_owned(), CONTEXT_INTEGRITY.to_owned()],
    }
}
