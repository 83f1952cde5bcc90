//! From members to a volume.
//!
//! 1. Every member is opened and locked, and looked at. Nothing is written.
//! 2. Damaged superblocks are rebuilt in memory, where something vouches for them.
//! 3. It is decided what the members amount to and whether that may be opened as asked. Whatever
//!    is refused is refused here.
//! 4. For writing only: rebuilt superblocks are written back, each durable before the next member
//!    is touched (a crash leaves each as damaged as it was, or right), and each dm-integrity
//!    volume is opened again, which replays its journal.
//! 5. The layers are put on top of each other.

mod build;
pub(crate) mod decide;
mod error;
mod risk;

pub(crate) use build::{found_in, heal_told, make_writable};
pub use error::{OpenError, WhyLeftOut};
pub use risk::AtRisk;

use crate::events::EventLog;
use crate::given::Given;
use crate::leaf::{self, Leaf, LeafKind};
use crate::member::Member;
use crate::probe::{Probed, probe, read_logs, repair::repair};
use crate::spec::Node;
use crate::volume::Volume;
use bio::{Event, Events, IoError};
use decide::{Decision, Rules, decide};
use std::rc::Rc;

/// How to open a volume.
#[derive(Clone)]
pub struct OpenOptions {
    /// The members, in any order.
    pub members: Vec<Member>,
    /// Write nothing, ever, whatever is asked of the volume.
    pub read_only: bool,
    /// What the disks do not say.
    pub given: Given,
    /// Start what is refused as it is.
    pub force: bool,
    /// Read what these members would give if each held the slot that it claims, however old it is and
    /// whatever the others say of it. Nothing is written then, whatever is asked.
    pub as_given: bool,
    /// Told of every event as it happens; must not block.
    pub on_event: Rc<dyn Fn(&Event)>,
}

impl OpenOptions {
    /// Read-only, nothing forced, events kept in the volume's log only.
    #[must_use]
    pub fn read_only(members: Vec<Member>) -> Self {
        Self {
            members,
            read_only: true,
            given: Given::default(),
            force: false,
            as_given: false,
            on_event: Rc::new(|_| ()),
        }
    }

    /// The same for reading and writing.
    #[must_use]
    pub fn writable(members: Vec<Member>) -> Self {
        Self { read_only: false, ..Self::read_only(members) }
    }

    /// Whether nothing is written, ever: as it was asked for, or by what was given.
    fn writes_nothing(&self) -> bool {
        self.read_only || self.as_given || self.given.writes_nothing()
    }
}

/// Opens the volume that the members make.
///
/// # Errors
/// [`OpenError`], with nothing written.
pub async fn open(options: &OpenOptions) -> Result<Volume, OpenError> {
    if options.members.is_empty() {
        return Err(OpenError::NoMembers);
    }
    let given = &options.given;
    let data = given.data_devices.iter().map(|(_, data)| data);
    leaf::refuse_twice(options.members.iter().chain(data))?;
    let mut leaves = Vec::new();
    for member in &options.members {
        let leaf = given.open_leaf(member, !options.writes_nothing()).await?;
        leaves.push((member.to_string().into(), Some(member.clone()), leaf));
    }
    open_leaves(leaves, options).await
}

/// Opens the stack that is spelled out. Arrays and dm-integrity in the text are claims about what
/// lies on the members, which are compared with it; a lone leaf is opened as it is, without a
/// look.
///
/// # Errors
/// As [`open`]; [`OpenError::Stack`] if a claim is wrong.
pub async fn open_stack(node: &Node, options: &OpenOptions) -> Result<Volume, OpenError> {
    let mut leaves = Vec::new();
    let pairs = || node.pairs().flat_map(|(leaf, data)| [Some(leaf), data]).flatten();
    let members: Vec<&Member> = pairs().filter_map(Node::member).collect();
    leaf::refuse_twice(members)?;
    for (leaf_node, data) in node.pairs() {
        if *leaf_node == Node::Missing {
            continue;
        }
        let write = !options.writes_nothing();
        let mut leaf = leaf::open_node(leaf_node, write).await?;
        if let Some(data) = data {
            let metadata = leaf_node.member().and_then(Member::path);
            leaf.data = Some(leaf::open_data(data, metadata, write).await?);
        }
        let name = leaf_node.member().map_or_else(|| leaf_node.to_string(), Member::to_string);
        leaves.push((name.into(), leaf_node.member().cloned(), leaf));
    }
    if leaves.is_empty() {
        return Err(OpenError::NoMembers);
    }
    if node.leaves().next() == Some(node) {
        let (name, member, leaf) = leaves.remove(0);
        let log = EventLog::default();
        let events = log.events(Rc::clone(&options.on_event));
        let (node, read_only) = (node.clone(), options.writes_nothing());
        return Ok(Volume::plain(name, member, leaf, node, read_only, (log, events)));
    }
    let volume = open_leaves(leaves, options).await?;
    let found = volume.stack();
    if node.same_shape(found) {
        return Ok(volume);
    }
    let found = found.to_string();
    volume.close().await.map_err(|error| OpenError::Io { member: found.clone(), error })?;
    Err(OpenError::Stack { expected: node.to_string(), found })
}

type NamedLeaf = (Rc<str>, Option<Member>, Leaf);

async fn open_leaves(leaves: Vec<NamedLeaf>, options: &OpenOptions) -> Result<Volume, OpenError> {
    let log = EventLog::default();
    let events = log.events(Rc::clone(&options.on_event));
    // What a writable opening finds is told when it is opened for good.
    let probe_events = if options.writes_nothing() { events.clone() } else { Events::none() };
    let mut members = look(leaves, &options.given, &probe_events).await?;
    let whole = |error: IoError| OpenError::Io { member: "members".to_owned(), error };
    repair(&mut members, &options.given, &events).await.map_err(whole)?;
    read_logs(&mut members).await;
    let mut foreign = Vec::new();
    for member in &members {
        foreign.push(foreign_signature(member).await?);
    }
    let OpenOptions { force, as_given, .. } = *options;
    let rules = Rules { read_only: options.writes_nothing(), force, as_given };
    let decision = decide(&mut members, &foreign, rules)?;
    let is_array = matches!(decision, Decision::Array(_));
    if is_array && options.given.running.unverified && !options.writes_nothing() {
        return Err(OpenError::UnverifiedArray);
    }
    build::build(members, decision, rules, log, events).await
}

/// Looks at every member, all at once.
pub(crate) async fn look(
    leaves: Vec<NamedLeaf>,
    given: &Given,
    events: &Events,
) -> Result<Vec<Probed>, OpenError> {
    let looks = leaves.into_iter().map(|(name, member, leaf)| async move {
        let failed = name.to_string();
        let probed = probe(name, member, leaf, given, events).await;
        probed.map_err(|error| OpenError::Io { member: failed, error })
    });
    runtime::join_all(looks).await.into_iter().collect()
}

/// The other format that a member without our superblocks carries.
async fn foreign_signature(member: &Probed) -> Result<Option<&'static str>, OpenError> {
    if member.md().is_some() || member.open_integrity().is_some() {
        return Ok(None);
    }
    let found = crate::content::signatures(&member.leaf.device).await;
    let found = found.map_err(|error| OpenError::Io { member: member.name.to_string(), error })?;
    let ours = ["dm-integrity", "Linux md RAID"];
    Ok(found.iter().map(|signature| signature.name).find(|name| !ours.contains(name)))
}

/// The word for what a leaf is.
pub(crate) const fn kind_word(kind: LeafKind) -> &'static str {
    match kind {
        LeafKind::File => "file",
        LeafKind::Sectors => "sectors with metadata",
        LeafKind::BlockDevice => "block device",
        LeafKind::Nbd => "nbd",
        LeafKind::Memory => "memory",
    }
}
