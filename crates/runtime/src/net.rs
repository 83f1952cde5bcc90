//! Sockets: Unix and TCP.
//!
//! Buffers are given and come back with the result. A [`Stream`] is a cheap handle: one task may
//! receive on it while another sends.

use crate::operation::Request;
use crate::reactor::{checked, start};
use bio::{Buf, Segments};
use rustix::fs::Mode;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use rustix::process::test_kill_process;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// Pause before trying a Unix socket again whose backlog is full.
const CONNECT_AGAIN: Duration = Duration::from_millis(10);

/// A listening socket. A Unix socket's path is removed when it is dropped.
pub struct Listener {
    fd: Rc<OwnedFd>,
    place: Place,
}

enum Place {
    Tcp(SocketAddr),
    Unix { path: PathBuf, node: Option<(u64, u64)> },
}

impl Listener {
    /// Listens at `path`, which only this user can connect to (mode 0600 from its first moment).
    /// A socket there whose server is gone is replaced.
    ///
    /// # Errors
    /// What the operating system says; `AddrInUse` if somebody listens there, or something else
    /// than a socket is there.
    pub fn bind_unix(path: &Path) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path)?;
        let fd = unix_socket()?;
        // Linux makes the node with the socket's own mode, so there is no moment in which others
        // could connect, and no process-wide umask to change.
        rustix::fs::fchmod(&fd, Mode::RUSR | Mode::WUSR)?;
        match net::bind(&fd, &address) {
            Err(rustix::io::Errno::ADDRINUSE) => {
                // A plain file refuses connections too.
                let is_socket = std::fs::symlink_metadata(path)?.file_type().is_socket();
                if !is_socket || !has_no_listener(&address)? {
                    return Err(io::ErrorKind::AddrInUse.into());
                }
                std::fs::remove_file(path)?;
                net::bind(&fd, &address)?;
            }
            other => other?,
        }
        let node = std::fs::symlink_metadata(path).map(|node| (node.dev(), node.ino())).ok();
        let place = Place::Unix { path: path.to_owned(), node };
        let listener = Self { fd: Rc::new(fd), place };
        net::listen(&listener.fd, BACKLOG)?;
        Ok(listener)
    }

    /// Listens at a TCP address; port 0 lets the system choose one.
    ///
    /// # Errors
    /// What the operating system says, such as `AddrInUse`.
    pub fn bind_tcp(address: SocketAddr) -> io::Result<Self> {
        let fd = tcp_socket(address, SocketFlags::CLOEXEC)?;
        sockopt::set_socket_reuseaddr(&fd, true)?;
        net::bind(&fd, &address)?;
        net::listen(&fd, BACKLOG)?;
        let bound = SocketAddr::try_from(net::getsockname(&fd)?)?;
        Ok(Self { fd: Rc::new(fd), place: Place::Tcp(bound) })
    }

    /// The TCP address with its actual port; none for a Unix socket.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self.place {
            Place::Tcp(address) => Some(address),
            Place::Unix { .. } => None,
        }
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// What the operating system says. Errors of a single connection that broke before it was
    /// accepted are skipped; running out of descriptors is told, and passes.
    pub async fn accept(&self) -> io::Result<Stream> {
        loop {
            let (result, _) = start(&self.fd, Request::Accept).await;
            if matches!(-result, libc::ECONNABORTED | libc::EINTR | libc::EAGAIN | libc::EPROTO) {
                continue;
            }
            checked(result)?;
            let stream = Stream::of(adopt(result));
            if matches!(self.place, Place::Tcp(_)) {
                sockopt::set_tcp_nodelay(&stream.fd, true)?;
            }
            return Ok(stream);
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Place::Unix { path, node } = &self.place
            && let Ok(now) = std::fs::symlink_metadata(path)
            && *node == Some((now.dev(), now.ino()))
        {
            // Nobody is harmed by a path that stays: the next server replaces it.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[allow(unsafe_code, reason = "adopts a descriptor that the kernel returned")]
fn adopt(fd: i32) -> OwnedFd {
    // SAFETY: the kernel made it for us just now, and nobody else has seen its number.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn tcp_socket(address: SocketAddr, flags: SocketFlags) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    Ok(net::socket_with(family, SocketType::STREAM, flags, None)?)
}

fn unix_socket() -> rustix::io::Result<OwnedFd> {
    net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
}

/// Whether the socket at `address` has no listener, and never will have one again.
///
/// Of a process that was killed the kernel closes what its ring had opened only after the process is
/// gone: until then somebody seems to listen. That is waited for, a moment.
fn has_no_listener(address: &SocketAddrUnix) -> io::Result<bool> {
    let begun = Instant::now();
    loop {
        let probe = unix_socket()?;
        match net::connect(&probe, address) {
            Err(rustix::io::Errno::CONNREFUSED) => return Ok(true),
            Err(_) => return Ok(false),
            Ok(()) => {}
        }
        let server = sockopt::socket_peercred(&probe)?.pid;
        let is_gone = test_kill_process(server) == Err(rustix::io::Errno::SRCH);
        if !is_gone || begun.elapsed() > GRACE {
            return Ok(false);
        }
        std::thread::sleep(POLL);
    }
}

/// How long a listener is waited for whose process is gone.
const GRACE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(5);

/// A connection.
#[derive(Clone)]
pub struct Stream {
    fd: Rc<OwnedFd>,
}

impl Stream {
    fn of(fd: OwnedFd) -> Self {
        Self { fd: Rc::new(fd) }
    }

    /// Connects to a Unix socket.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn connect_unix(path: &Path) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        loop {
            match net::connect(&fd, &address) {
                Err(rustix::io::Errno::AGAIN) => crate::sleep(CONNECT_AGAIN).await,
                Err(rustix::io::Errno::INTR) => {}
                result => {
                    result?;
                    break;
                }
            }
        }
        Self::connected(fd)
    }

    /// Connects to a TCP address.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn connect_tcp(address: SocketAddr) -> io::Result<Self> {
        let fd = Rc::new(tcp_socket(address, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?);
        match net::connect(&fd, &address) {
            Err(rustix::io::Errno::INPROGRESS | rustix::io::Errno::INTR) => {
                let (result, _) = start(&fd, Request::Ready { events: libc::POLLOUT }).await;
                checked(result)?;
                sockopt::socket_error(&fd)??;
            }
            result => result?,
        }
        sockopt::set_tcp_nodelay(&fd, true)?;
        let fd = Rc::into_inner(fd).expect("the request that shared it has ended");
        Self::connected(fd)
    }

    /// From now on waiting is the driver's business, which a socket in this mode would refuse.
    fn connected(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, false)?;
        Ok(Self::of(fd))
    }

    /// Receives what there is, at most the buffer's length; 0: the peer has ended its stream (or
    /// the buffer is empty).
    ///
    /// # Panics
    /// If the buffer is shared.
    pub async fn recv(&self, buf: Buf) -> (io::Result<usize>, Buf) {
        self.recv_at(buf, 0).await
    }

    /// The same into the buffer from byte `from` on; what is before stays.
    ///
    /// # Panics
    /// If the buffer is shared or shorter than `from`.
    pub async fn recv_at(&self, buf: Buf, from: usize) -> (io::Result<usize>, Buf) {
        self.receive(buf, from, false).await
    }

    /// Fills the whole buffer.
    ///
    /// # Panics
    /// If the buffer is shared.
    pub async fn recv_exact(&self, buf: Buf) -> (io::Result<()>, Buf) {
        self.recv_exact_at(buf, 0).await
    }

    /// Fills the buffer from byte `from` on; what is before stays. `UnexpectedEof`: the peer ended
    /// its stream before.
    ///
    /// # Panics
    /// If the buffer is shared or shorter than `from`.
    pub async fn recv_exact_at(&self, buf: Buf, from: usize) -> (io::Result<()>, Buf) {
        let (mut buf, mut filled) = (buf, from);
        while filled < buf.len() {
            let (result, back) = self.receive(buf, filled, true).await;
            buf = back;
            match result {
                Ok(0) => return (Err(io::ErrorKind::UnexpectedEof.into()), buf),
                Ok(count) => filled += count,
                Err(error) => return (Err(error), buf),
            }
        }
        (Ok(()), buf)
    }

    async fn receive(&self, buf: Buf, from: usize, whole: bool) -> (io::Result<usize>, Buf) {
        assert!(from <= buf.len(), "there is room in the buffer");
        let mut data = buf;
        loop {
            let request = Request::Receive { data, done: from, whole };
            let (result, request) = start(&self.fd, request).await;
            let Request::Receive { data: back, .. } = request else {
                unreachable!("a request comes back as it went");
            };
            if result != -libc::EINTR {
                return (checked(result), back);
            }
            data = back;
        }
    }

    /// Sends all of `data`, in order. Calls are not to overlap: their bytes would mix.
    ///
    /// # Errors
    /// What the operating system says, such as `BrokenPipe`; then nobody knows how much was sent.
    pub async fn send_all(&self, data: impl Into<Segments>) -> io::Result<()> {
        let data = data.into();
        let mut left = data.len_bytes();
        let mut request = Request::Send { data, done: 0 };
        while left > 0 {
            let (result, back) = start(&self.fd, request).await;
            request = back;
            match checked(result) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    left -= count;
                    request.advance(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends the stream in both directions: the peer sees its end, and whoever receives here too.
    ///
    /// # Errors
    /// What the operating system says, such as `NotConnected`.
    pub fn shutdown(&self) -> io::Result<()> {
        Ok(net::shutdown(&self.fd, net::Shutdown::Both)?)
    }

    /// Ends our side only: the peer sees the end of what we sent, and may still answer.
    ///
    /// # Errors
    /// What the operating system says, such as `NotConnected`.
    pub fn shutdown_send(&self) -> io::Result<()> {
        Ok(net::shutdown(&self.fd, net::Shutdown::Write)?)
    }
}

#[cfg(test)]
mod tests;
