//! Where a server listens: the address as a user writes it, and the sockets.

use nbd::Uri;
use runtime::Listener;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::{fmt, io};

/// Where a server listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Address {
    /// A Unix socket at this path, of mode 0600.
    Unix(PathBuf),
    /// TCP at a loopback address, or a name for one. Port 0 lets the system choose.
    Tcp {
        /// Name or address, without brackets.
        host: String,
        /// Port.
        port: u16,
    },
}

/// Why a server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The text is no address.
    #[error("`{0}` is not an address: write unix:PATH or tcp:HOST:PORT")]
    Syntax(String),
    /// TCP beyond this machine, without encryption.
    #[error(
        "`{0}` is not a loopback address: without TLS only this machine may connect; use 127.0.0.1, ::1 or a Unix socket"
    )]
    NotLoopback(String),
    /// Somebody serves there.
    #[error("{0} is in use by a running server")]
    InUse(Address),
    /// A file that is no socket is in the way.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// Something else.
    #[error("cannot listen on {address}: {source}")]
    Io {
        /// Where.
        address: Address,
        /// Why.
        source: io::Error,
    },
}

impl Address {
    /// From `unix:PATH` or `tcp:HOST:PORT`.
    ///
    /// # Errors
    /// [`BindError::Syntax`].
    pub fn parse(text: &str) -> Result<Self, BindError> {
        let syntax = || BindError::Syntax(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() || path.contains('\0') {
                Err(syntax())
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        let rest = text.strip_prefix("tcp:").ok_or_else(syntax)?;
        let (host, port) = rest.rsplit_once(':').ok_or_else(syntax)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        if host.is_empty() || (host.contains(':') && bare.is_none()) {
            return Err(syntax());
        }
        let port = port.parse().map_err(|_| syntax())?;
        Ok(Self::Tcp { host: host.to_owned(), port })
    }

    /// The URI by which clients find `export` there.
    #[must_use]
    pub fn uri(&self, export: &str) -> Uri {
        let export = export.to_owned();
        match self {
            Self::Unix(socket) => Uri::Unix { socket: socket.clone(), export },
            Self::Tcp { host, port } => Uri::Tcp { host: host.clone(), port: *port, export },
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
        }
    }
}

/// Listens at `address`; gives the address back with the port that the system chose.
pub(super) fn bind(address: &Address) -> Result<(Listener, Address), BindError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse(address.clone()),
        _ => BindError::Io { address: address.clone(), source },
    };
    match address {
        Address::Unix(path) => {
            // Clients may be in another folder.
            let path = std::path::absolute(path).map_err(failed)?;
            let in_the_way = std::fs::symlink_metadata(&path);
            if in_the_way.is_ok_and(|found| !found.file_type().is_socket()) {
                return Err(BindError::NotASocket(path));
            }
            let listener = Listener::bind_unix(&path).map_err(failed)?;
            Ok((listener, Address::Unix(path)))
        }
        Address::Tcp { host, port } => {
            let listener = Listener::bind_tcp(loopback(host, *port)?).map_err(failed)?;
            let bound = listener.tcp_address().expect("it listens at a TCP address");
            let address = Address::Tcp { host: bound.ip().to_string(), port: bound.port() };
            Ok((listener, address))
        }
    }
}

/// The address meant by `host`, if it and everything else that the name stands for is loopback.
fn loopback(host: &str, port: u16) -> Result<SocketAddr, BindError> {
    let refused = || BindError::NotLoopback(host.to_owned());
    if let Ok(address) = host.parse::<IpAddr>() {
        return match address.is_loopback() {
            true => Ok((address, port).into()),
            false => Err(refused()),
        };
    }
    let found: Vec<_> = (host, port).to_socket_addrs().map_err(|_| refused())?.collect();
    match found.iter().all(|address| address.ip().is_loopback()) {
        true => found.first().copied().ok_or_else(refused),
        false => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn addresses_are_read_as_they_are_written() {
        let tcp = |host: &str, port| Address::Tcp { host: host.into(), port };
        for (text, address) in [
            ("unix:/run/x", Address::Unix("/run/x".into())),
            ("tcp:127.0.0.1:10809", tcp("127.0.0.1", 10809)),
            ("tcp:[::1]:0", tcp("::1", 0)),
            ("tcp:localhost:1", tcp("localhost", 1)),
        ] {
            let parsed = Address::parse(text).unwrap();
            assert_eq!((parsed.to_string().as_str(), &parsed), (text, &address));
        }
        for text in ["", "unix:", "tcp:", "tcp:x", "tcp::1", "tcp:::1:5", "tcp:x:99999", "/x"] {
            assert!(matches!(Address::parse(text), Err(BindError::Syntax(_))), "{text}");
        }
    }

    #[test]
    fn only_loopback_is_listened_on() {
        for host in ["0.0.0.0", "192.0.2.1", "::", "no-such-host.invalid"] {
            let address = Address::Tcp { host: host.into(), port: 0 };
            assert!(matches!(bind(&address), Err(BindError::NotLoopback(_))), "{host}");
        }
        for host in ["127.0.0.1", "localhost"] {
            let bound = bind(&Address::Tcp { host: host.into(), port: 0 }).unwrap();
            let (_listener, address) = bound;
            assert!(!address.to_string().ends_with(":0"));
            assert!(matches!(bind(&address), Err(BindError::InUse(_))));
        }
    }

    #[test]
    fn a_unix_socket_is_private_and_goes_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let bound = bind(&Address::Unix(path.clone())).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let address = Address::Unix(path.clone());
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "the standard library leaves the file");
        let bound = bind(&address).unwrap();
        assert!(matches!(bind(&address), Err(BindError::InUse(_))));
        // Removing and replacing the file by hand makes it somebody else's.
        std::fs::remove_file(&path).unwrap();
        let other = UnixListener::bind(&path).unwrap();
        drop(bound);
        assert!(path.exists());
        drop(other);
    }

    #[test]
    fn a_file_in_the_way_is_never_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("precious");
        std::fs::write(&path, b"data").unwrap();
        let error = bind(&Address::Unix(path.clone())).err().unwrap();
        assert!(matches!(error, BindError::NotASocket(_)));
        assert_eq!(std::fs::read(&path).unwrap(), b"data");
        let long = folder.path().join("x".repeat(200));
        assert!(matches!(bind(&Address::Unix(long)), Err(BindError::Io { .. })));
    }
}
