//! What a member is called: a path, an NBD URI, `sectors:512+8:PATH` or `nvme-qemu:512+8:PATH`.
//!
//! Sectors with metadata may say what that is: `sectors:512+8/t10-dif-type1-crc16:PATH`, see
//! [`SectorFormat`].
//!
//! Only names live here; opening them is [`crate::leaf`]'s work.

use layers::file::{SectorFormat, SectorFormatError, SectorLayout};
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
    /// A file or a block device that holds sectors with metadata.
    Sectors {
        /// What each sector consists of.
        format: SectorFormat,
        /// The file.
        path: PathBuf,
    },
}

/// Why a name is none.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NameError {
    /// A URI that is malformed, or asks for TLS.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// Nothing behind the format of the sectors.
    #[error("'{found}' names no file, expected such as sectors:512+8:PATH or nvme-qemu:512+8:PATH")]
    Sectors {
        /// As given.
        found: String,
    },
    /// No such format of sectors.
    #[error(transparent)]
    Format(#[from] SectorFormatError),
}

impl Member {
    /// From what a person typed: a URI, or sectors with their file, if it starts like one, else a
    /// path. (A file that is called `nbd:something` is reached as `./nbd:something`.)
    ///
    /// # Errors
    /// [`NameError`].
    pub fn parse(text: &str) -> Result<Self, NameError> {
        for (prefix, layout) in LAYOUTS {
            let Some(rest) = text.strip_prefix(prefix) else { continue };
            let named = rest.split_once(':').filter(|(_, path)| !path.is_empty());
            let (format, path) =
                named.ok_or_else(|| NameError::Sectors { found: text.to_owned() })?;
            let format = SectorFormat { layout, ..format.parse()? };
            return Ok(Self::Sectors { format, path: path.into() });
        }
        if Uri::looks_like(text) {
            Ok(Self::Nbd(Uri::parse(text)?))
        } else {
            Ok(Self::Path(PathBuf::from(text)))
        }
    }

    /// Whether `text` starts as the name of sectors with metadata does.
    pub(crate) fn looks_like_sectors(text: &str) -> bool {
        LAYOUTS.iter().any(|(prefix, _)| text.starts_with(prefix))
    }

    /// The path of the file or block device, if it is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Path(path) | Self::Sectors { path, .. } => Some(path),
            Self::Nbd(_) => None,
        }
    }

    /// Bytes that its file must have for `data_bytes` bytes of data.
    pub(crate) fn file_bytes(&self, data_bytes: u64) -> u64 {
        match self {
            Self::Sectors { format, .. } => format.file_bytes(data_bytes),
            Self::Path(_) | Self::Nbd(_) => data_bytes,
        }
    }

    /// Where byte `byte` of its data lies in its file.
    pub(crate) fn file_byte(&self, byte: u64) -> u64 {
        match self {
            Self::Sectors { format, .. } => format.file_byte(byte),
            Self::Path(_) | Self::Nbd(_) => byte,
        }
    }
}

/// What sectors with metadata start with, in text.
const LAYOUTS: [(&str, SectorLayout); 2] =
    [("sectors:", SectorLayout::Interleaved), ("nvme-qemu:", SectorLayout::AtEnd)];

impl FromStr for Member {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
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
            Self::Sectors { format, path } => {
                let prefix = LAYOUTS.iter().find(|(_, layout)| *layout == format.layout);
                let (prefix, _) = prefix.expect("every layout has a name");
                write!(f, "{prefix}{format}:{}", path.display())
            }
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
    fn sectors_are_named_with_what_each_consists_of() {
        let member = Member::parse("sectors:4096+8:/tmp/a:b").unwrap();
        let Member::Sectors { format, path } = &member else { panic!("{member:?}") };
        assert_eq!((format.bytes(), path.to_str()), (4104, Some("/tmp/a:b")));
        assert_eq!(member.to_string(), "sectors:4096+8:/tmp/a:b");
        for wrong in
            ["sectors:", "sectors:512+8", "sectors:512+8:", "sectors:a.img", "sectors:520:a"]
        {
            let error = Member::parse(wrong).unwrap_err().to_string();
            assert!(error.contains("512+8"), "{error}");
        }
        let text = "nvme-qemu:4096+8/t10-dif-type1-crc16:/tmp/a:b";
        let member = Member::parse(text).unwrap();
        let Member::Sectors { format, .. } = &member else { panic!("{member:?}") };
        assert_eq!((format.layout, format.protection.is_some()), (SectorLayout::AtEnd, true));
        assert_eq!(member.to_string(), text);
        assert_eq!((member.file_bytes(8192), member.file_byte(8191)), (8208, 8191));
        assert!(matches!(Member::parse("./sectors:512+8:a"), Ok(Member::Path(_))));
    }

    #[test]
    fn tls_is_refused_by_name() {
        let refused = Member::parse("nbds://host/").unwrap_err();
        assert!(refused.to_string().contains("TLS"), "{refused}");
    }
}
