//! NBD URIs (`doc/uri.md`): where a server is, and which export is meant.
//!
//! ```text
//!   nbd://host:port/export            TCP; port 10809 if not given
//!   nbd+unix:///export?socket=PATH    a Unix socket
//! ```
//!
//! `nbds` and `nbds+unix` ask for TLS and are refused by name.

use crate::{DEFAULT_PORT, STRING_MAX};
use std::fmt;
use std::path::{Path, PathBuf};

/// Where a server is, and which export is meant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Uri {
    /// TCP.
    Tcp {
        /// A name or an address; an IPv6 address without its brackets.
        host: String,
        /// The port.
        port: u16,
        /// The export; empty for the default one.
        export: String,
    },
    /// A Unix socket.
    Unix {
        /// Its path.
        socket: PathBuf,
        /// The export; empty for the default one.
        export: String,
    },
}

/// What is wrong with a URI.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UriError {
    /// Neither `nbd` nor `nbd+unix`.
    #[error("`{0}` is not an NBD URI: it starts with neither nbd:// nor nbd+unix://")]
    Scheme(String),
    /// `nbds` or `nbds+unix`.
    #[error("`{0}` asks for TLS, which is not supported yet: use nbd:// or nbd+unix://")]
    Tls(String),
    /// `nbd://` without a host.
    #[error("`{0}` names no host")]
    NoHost(String),
    /// The port is not a number from 1 to 65535.
    #[error("`{0}` is not a port")]
    Port(String),
    /// `nbd+unix` without `?socket=`.
    #[error("`{0}` names no socket: append ?socket=PATH")]
    NoSocket(String),
    /// `nbd+unix` with a host, or `nbd` with a socket.
    #[error("`{0}` names both a host and a socket")]
    Both(String),
    /// A user name before the host; it has a meaning only with TLS.
    #[error("`{0}` names a user, which has a meaning only with TLS")]
    User(String),
    /// A parameter that is not known.
    #[error("parameter `{0}` is not known")]
    Parameter(String),
    /// A percent sign without two hexadecimal digits, or bytes that are no UTF-8, or a NUL.
    #[error("`{0}` is not properly percent-encoded")]
    Encoding(String),
    /// A fragment has no meaning here.
    #[error("`{0}` has a fragment (#...), which has no meaning in an NBD URI")]
    Fragment(String),
    /// The export's name is longer than the protocol allows.
    #[error("export name has {found} bytes, at most {limit} are allowed")]
    ExportLength {
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        limit: usize,
    },
}

impl Uri {
    /// Whether `text` is meant as a URI of ours at all, rather than as a file's name.
    #[must_use]
    pub fn looks_like(text: &str) -> bool {
        ["nbd:", "nbds:", "nbd+unix:", "nbds+unix:"].iter().any(|s| text.starts_with(s))
    }

    /// From its text.
    ///
    /// # Errors
    /// [`UriError`], which quotes the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(UriError::Scheme(text.to_owned()));
        };
        let unix = match scheme {
            "nbd" => false,
            "nbd+unix" => true,
            "nbds" | "nbds+unix" => return Err(UriError::Tls(text.to_owned())),
            _ => return Err(UriError::Scheme(text.to_owned())),
        };
        if rest.contains('#') {
            return Err(UriError::Fragment(text.to_owned()));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains('@') {
            return Err(UriError::User(authority.to_owned()));
        }
        let export = decode(path)?;
        if export.len() > STRING_MAX {
            return Err(UriError::ExportLength { found: export.len(), limit: STRING_MAX });
        }
        let socket = parse_query(query)?;
        match (unix, authority.is_empty(), socket) {
            (true, true, Some(socket)) => Ok(Self::Unix { socket: socket.into(), export }),
            (true, true, None) => Err(UriError::NoSocket(text.to_owned())),
            (false, false, None) => {
                let (host, port) = parse_authority(authority)?;
                Ok(Self::Tcp { host, port, export })
            }
            (false, true, None) => Err(UriError::NoHost(text.to_owned())),
            _ => Err(UriError::Both(text.to_owned())),
        }
    }

    /// The export's name.
    #[must_use]
    pub fn export(&self) -> &str {
        match self {
            Self::Tcp { export, .. } | Self::Unix { export, .. } => export,
        }
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, export } => {
                match host.contains(':') {
                    true => write!(f, "nbd://[{host}]")?,
                    false => write!(f, "nbd://{}", Encoded(host))?,
                }
                if *port != DEFAULT_PORT {
                    write!(f, ":{port}")?;
                }
                write!(f, "/{}", Encoded(export))
            }
            Self::Unix { socket, export } => {
                let socket = path_text(socket);
                write!(f, "nbd+unix:///{}?socket={}", Encoded(export), Encoded(&socket))
            }
        }
    }
}

fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn parse_authority(authority: &str) -> Result<(String, u16), UriError> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) =
            rest.split_once(']').ok_or_else(|| UriError::NoHost(authority.to_owned()))?;
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(UriError::NoHost(authority.to_owned()));
        }
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err(UriError::Port(rest.to_owned())),
        }
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    let is_address = host.contains(':');
    let host = decode(host)?;
    // A name that hides what ends a name, percent-encoded, is none.
    if host.is_empty() || (!is_address && host.contains(['/', ':'])) {
        return Err(UriError::NoHost(authority.to_owned()));
    }
    let port = match port {
        None | Some("") => DEFAULT_PORT,
        Some(text) => {
            let port = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok());
            match port.flatten() {
                None | Some(0) => return Err(UriError::Port(text.to_owned())),
                Some(port) => port,
            }
        }
    };
    Ok((host, port))
}

fn parse_query(query: &str) -> Result<Option<String>, UriError> {
    let mut socket = None;
    for parameter in query.split('&').filter(|p| !p.is_empty()) {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match key {
            "socket" if socket.is_none() && !value.is_empty() => socket = Some(decode(value)?),
            _ => return Err(UriError::Parameter(parameter.to_owned())),
        }
    }
    Ok(socket)
}

fn decode(text: &str) -> Result<String, UriError> {
    let bad = || UriError::Encoding(text.to_owned());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2).ok_or_else(bad)?;
        let digit = |d: u8| char::from(d).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let (Some(high), Some(low)) = (digit(digits[0]), digit(digits[1])) else {
            return Err(bad());
        };
        bytes.push(high << 4 | low);
        rest = after;
    }
    if bytes.contains(&0) {
        return Err(bad());
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

/// Percent-encodes all but the unreserved characters of RFC 3986 and slashes.
struct Encoded<'a>(&'a str);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                    write!(f, "{}", char::from(byte))?;
                }
                _ => write!(f, "%{byte:02X}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tcp(host: &str, port: u16, export: &str) -> Uri {
        Uri::Tcp { host: host.into(), port, export: export.into() }
    }

    fn unix(socket: &str, export: &str) -> Uri {
        Uri::Unix { socket: socket.into(), export: export.into() }
    }

    #[test]
    fn a_host_does_not_hide_what_ends_a_host() {
        for text in ["nbd://a%2Fb", "nbd://a%3A1/x"] {
            assert!(matches!(Uri::parse(text), Err(UriError::NoHost(_))), "{text}");
        }
    }

    #[test]
    fn the_examples_of_the_protocol_text_mean_what_it_says() {
        for (text, uri) in [
            ("nbd://example.com/disk", tcp("example.com", 10809, "disk")),
            ("nbd+unix:///disk?socket=sock", unix("sock", "disk")),
            ("nbd://example.com/", tcp("example.com", 10809, "")),
            ("nbd://example.com", tcp("example.com", 10809, "")),
            ("nbd://example.com//disk", tcp("example.com", 10809, "/disk")),
            ("nbd://example.com/hello%20world", tcp("example.com", 10809, "hello world")),
            ("nbd://[::1]:99/x", tcp("::1", 99, "x")),
            ("nbd://localhost:99", tcp("localhost", 99, "")),
            ("nbd+unix://?socket=/run/a%26b", unix("/run/a&b", "")),
        ] {
            assert_eq!(Uri::parse(text), Ok(uri), "{text}");
        }
    }

    #[test]
    fn tls_is_refused_by_name() {
        for text in ["nbds://host/x", "nbds+unix:///x?socket=y"] {
            assert_eq!(Uri::parse(text), Err(UriError::Tls(text.into())));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |text| Uri::parse(text).unwrap_err();
        assert!(matches!(error("file.img"), UriError::Scheme(_)));
        assert!(matches!(error("http://x/"), UriError::Scheme(_)));
        assert!(matches!(error("nbd:///x"), UriError::NoHost(_)));
        assert!(matches!(error("nbd://:99/x"), UriError::NoHost(_)));
        assert!(matches!(error("nbd://[::1/x"), UriError::NoHost(_)));
        assert!(matches!(error("nbd://h:99999/x"), UriError::Port(_)));
        assert!(matches!(error("nbd://h:+9/x"), UriError::Port(_)));
        assert!(matches!(error("nbd://h:0/x"), UriError::Port(_)));
        assert!(matches!(error("nbd+unix:///x"), UriError::NoSocket(_)));
        assert!(matches!(error("nbd+unix://h/x?socket=y"), UriError::Both(_)));
        assert!(matches!(error("nbd://h/x?socket=y"), UriError::Both(_)));
        assert!(matches!(error("nbd://me@h/x"), UriError::User(_)));
        assert!(matches!(error("nbd://h/x?y=z"), UriError::Parameter(_)));
        assert!(matches!(error("nbd+unix:///?socket=a&socket=b"), UriError::Parameter(_)));
        assert!(matches!(error("nbd+unix:///?socket="), UriError::Parameter(_)));
        assert!(matches!(error("nbd://h/%2"), UriError::Encoding(_)));
        assert!(matches!(error("nbd://h/%+1"), UriError::Encoding(_)));
        assert!(matches!(error("nbd://h/%00"), UriError::Encoding(_)));
        assert!(matches!(error("nbd://h/%ff"), UriError::Encoding(_)));
        assert!(matches!(error("nbd://h/x#y"), UriError::Fragment(_)));
        let long = format!("nbd://h/{}", "x".repeat(4097));
        assert_eq!(error(&long), UriError::ExportLength { found: 4097, limit: 4096 });
    }

    proptest! {
        #[test]
        fn what_is_printed_parses(
            host in "[a-z][a-z0-9.-]{0,20}", port in 1u16.., export in "[^\0]{0,40}",
            socket in "[^\0]{1,40}",
        ) {
            for uri in [tcp(&host, port, &export), unix(&socket, &export)] {
                prop_assert_eq!(Uri::parse(&uri.to_string()), Ok(uri));
            }
        }

        #[test]
        fn any_text_is_a_uri_or_an_error(text in ".{0,60}", tail in "[a-z%:/?=@\\[\\]#&]{0,30}") {
            let _ = Uri::parse(&text);
            let _ = Uri::parse(&format!("nbd://{tail}"));
            let _ = Uri::parse(&format!("nbd+unix://{tail}"));
        }
    }
}
