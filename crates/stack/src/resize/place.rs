//! Where the devices of a volume that is resized lie.

use super::ResizeOptions;
use crate::leaf::{DataLeaf, Leaf, LeafKind, MemberError, system_error};
use crate::member::Member;
use crate::spec::Node;
use bio::{Device, LocalFuture};
use std::fs::OpenOptions;
use std::path::Path;

/// Devices that can be opened again, and whose lengths can be changed. Those that [`ResizeOptions`] names
/// are; the simulator brings its own.
pub trait Place {
    /// Opens them as long as they are now; an opening before this one was dropped.
    fn open(&self, write: bool) -> LocalFuture<'_, Result<Opened, MemberError>>;

    /// Bytes of a file.
    ///
    /// # Errors
    /// [`MemberError`], from the system.
    fn length(&self, part: Part) -> Result<u64, MemberError>;

    /// Gives a file another length, by a hole or by a cut, durable.
    ///
    /// # Errors
    /// [`MemberError`], from the system.
    fn set_length(&self, part: Part, bytes: u64) -> Result<(), MemberError>;
}

/// Which device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// The one with the data: it gets another size.
    Data,
    /// The one with the tags, where that is another.
    Metadata,
}

/// Open devices of a volume.
pub struct Opened(pub(super) Leaf);

impl Opened {
    /// One device for everything.
    #[must_use]
    pub fn alone(device: Device, kind: LeafKind) -> Self {
        Self(Leaf { device, data: None, kind, access: String::new() })
    }

    /// One for the metadata, which is called `member`, and one for the data.
    #[must_use]
    pub fn apart(member: Member, metadata: Device, data: Device, kind: LeafKind) -> Self {
        let data = DataLeaf { node: Node::Member(member), device: data, kind };
        Self(Leaf { data: Some(data), ..Self::alone(metadata, kind).0 })
    }
}

impl ResizeOptions {
    pub(super) fn part(&self, part: Part) -> &Member {
        match part {
            Part::Data => self.given.data_of(&self.member).unwrap_or(&self.member),
            Part::Metadata => &self.member,
        }
    }
}

impl Place for ResizeOptions {
    fn open(&self, write: bool) -> LocalFuture<'_, Result<Opened, MemberError>> {
        Box::pin(async move { self.given.open_leaf(&self.member, write).await.map(Opened) })
    }

    fn length(&self, part: Part) -> Result<u64, MemberError> {
        let member = self.part(part);
        let found = std::fs::metadata(path(member)).map(|found| found.len());
        found.map_err(|error| system_error(member.to_string(), true, error))
    }

    fn set_length(&self, part: Part, bytes: u64) -> Result<(), MemberError> {
        let member = self.part(part);
        let set = OpenOptions::new().write(true).open(path(member)).and_then(|file| {
            file.set_len(bytes)?;
            file.sync_all()
        });
        set.map_err(|error| system_error(member.to_string(), true, error))
    }
}

fn path(member: &Member) -> &Path {
    member.path().expect("only files are lengthened and cut")
}
