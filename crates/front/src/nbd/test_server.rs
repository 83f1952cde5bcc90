//! A server on a thread of its own, for tests that are its clients.

use super::test_device::TestDevice;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use steadfast_front::nbd::{Address, Export, Server};

#[allow(dead_code, reason = "shared by several test programs, each of which uses a part")]
/// A running server; it is stopped and has to end well when this is dropped.
pub struct TestServer {
    /// Where it listens.
    pub address: Address,
    /// What a client is to be given.
    pub uri: String,
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
    folder: tempfile::TempDir,
}

#[derive(Default)]
struct Stop(Mutex<(bool, Option<Waker>)>);

#[allow(dead_code, reason = "shared by several test programs, each of which uses a part")]
impl TestServer {
    /// Serves what `make` makes under the name `volume`, on a Unix socket.
    pub fn start(make: impl FnOnce() -> TestDevice + Send + 'static) -> Self {
        Self::start_with(None, 0, false, make)
    }

    /// The same at `address`, with a budget in bytes, read-only or not.
    pub fn start_with(
        address: Option<Address>,
        budget: usize,
        read_only: bool,
        make: impl FnOnce() -> TestDevice + Send + 'static,
    ) -> Self {
        let folder = tempfile::tempdir().expect("the machine has room for a folder");
        let address = address.unwrap_or_else(|| Address::Unix(folder.path().join("socket")));
        let stop = Arc::new(Stop::default());
        let until = Arc::clone(&stop);
        let (ready, started) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = runtime::Runtime::new().expect("a runtime can be had");
            let mut server = Server::bind(&address).expect("the address is free");
            if budget > 0 {
                server = server.with_budget(budget);
            }
            let uri = server.uri("volume").to_string();
            ready.send((server.address().clone(), uri)).expect("the test waits");
            let device = make().device();
            let export =
                Export { name: "volume".to_owned(), description: "a test".to_owned(), read_only };
            let served =
                runtime.block_on(async move { server.run(device, export, Stopped(until)).await });
            served.expect("the last flush succeeds");
        });
        let (address, uri) = started.recv().expect("the server starts");
        Self { address, uri, stop, thread: Some(thread), folder }
    }

    /// A folder that goes away with the server.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Asks it to stop, without waiting.
    pub fn stop(&self) {
        self.stop.stop();
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop();
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(matches!(ended, Some(Ok(()))), "the server ends well");
        }
    }
}

impl Stop {
    fn stop(&self) {
        let mut state = self.0.lock().expect("nobody panics with it");
        state.0 = true;
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }
}

/// Ends when the server is to stop.
struct Stopped(Arc<Stop>);

impl Future for Stopped {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.0.lock().expect("nobody panics with it");
        if state.0 {
            return Poll::Ready(());
        }
        state.1 = Some(context.waker().clone());
        Poll::Pending
    }
}
