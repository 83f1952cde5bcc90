//! What a member is called: a path, or an NBD URI.
//!
//! Only names live here; opening them is [`crate::leaf`]'s work.

use nbd::{Uri, UriError};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A place that bytes are kept in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Member {
    /// A file or a block device.
    Path(PathBuf),
    /// An export of an NBD server.
    Nbd(Uri),
}

impl Member {
    /// From what a person typed: a URI if it starts like one, else a path. (A file that is called
    /// `nbd:something` is reached as `./nbd:something`.)
    ///
    /// # Errors
    /// [`UriError`]: a URI that is malformed, or asks for TLS.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        if Uri::looks_like(text) {
            Uri::parse(text).map(Self::Nbd)
        } else {
            Ok(Self::Path(PathBuf::from(text)))
        }
    }

    /// The path, if it is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Path(path) => Some(path),
            Self::Nbd(_) => None,
        }
    }
}

impl FromStr for Member {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        Self::parse(text)
    }
}

impl From<&Path> for Member {
    fn from(path: &Path) -> Self {
        Self::Path(path.to_owned())
    }
}

impl From<PathBuf> for Member {
    fn from(path: PathBuf) -> Self {
        Self::Path(path)
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Nbd(uri) => uri.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_path_unless_it_starts_like_a_uri() {
        for path in ["a.img", "/dev/sdb", "./nbd:odd", "http://x", ""] {
            assert_eq!(Member::parse(path), Ok(Member::Path(path.into())), "{path}");
        }
        let uri = "nbd+unix:///?socket=/run/s.sock";
        assert!(matches!(Member::parse(uri), Ok(Member::Nbd(Uri::Unix { .. }))));
    }

    #[test]
    fn tls_is_refused_by_name() {
        let refused = Member::parse("nbds://host/").unwrap_err();
        assert!(refused.to_string().contains("TLS"), "{refused}");
    }
}
