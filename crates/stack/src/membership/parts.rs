//! Who is a member of an open volume, and how each is.

use crate::volume::{MemberPart, MemberState, Volume};
use bio::IoResult;
use layers::array::Member as Running;
use std::rc::Rc;

impl Volume {
    /// The slot of a member, and how it is now.
    pub(crate) fn place_of(&self, part: &MemberPart) -> (Option<usize>, MemberState) {
        let Some(array) = self.array() else { return (part.slot, part.state) };
        if let Some(running) = self.running(&part.name) {
            let state = match (running.replaces(), running.is_complete()) {
                (true, _) => MemberState::Replacing,
                (false, false) => MemberState::Rebuilding,
                (false, true) => MemberState::InSync,
            };
            return (Some(running.slot()), state);
        }
        let took_part = matches!(
            part.state,
            MemberState::InSync | MemberState::Rebuilding | MemberState::Replacing
        );
        match part.slot.filter(|_| took_part) {
            Some(slot) if array.member(slot).is_some() => (None, MemberState::Replaced),
            Some(slot) => (Some(slot), MemberState::Failed),
            None if took_part => (None, MemberState::Failed),
            None => (None, part.state),
        }
    }

    /// The member of this name that takes part.
    pub(crate) fn running(&self, name: &str) -> Option<Rc<Running>> {
        self.array()?.members().find(|member| **member.name() == *name)
    }

    /// Every member that was named or came since.
    pub(crate) fn parts(&self) -> Vec<Rc<MemberPart>> {
        self.members.borrow().clone()
    }

    /// Takes another member in.
    pub(crate) fn take_in(&self, part: MemberPart) {
        self.members.borrow_mut().push(Rc::new(part));
    }

    /// Knows nothing of the member of this name any more.
    pub(crate) fn let_go(&self, name: &str) -> Option<Rc<MemberPart>> {
        let mut parts = self.members.borrow_mut();
        let index = parts.iter().position(|part| *part.name == *name)?;
        Some(parts.remove(index))
    }

    /// Whether members are being filled; and how many sectors of how many are done.
    #[must_use]
    pub fn rebuilding(&self) -> (bool, u64, u64) {
        let Some(array) = self.array() else { return (false, 0, 0) };
        let filling: Vec<_> =
            array.members().filter(|m| !m.is_complete() || m.replaces()).collect();
        let total: u64 = filling.iter().map(|member| member.data().limits().sectors).sum();
        let lacking: u64 = filling.iter().map(|member| member.lacking_sectors()).sum();
        (array.is_rebuilding(), total - lacking, total)
    }

    /// Closes one member, which nobody uses any more.
    ///
    /// # Errors
    /// What it says; it is then as after a crash.
    pub(crate) async fn close_part(&self, part: &MemberPart) -> IoResult {
        let mut result = Ok(());
        if let Some(integrity) = &part.integrity {
            result = integrity.volume.close().await;
        }
        if !self.is_read_only() && part.is_written {
            result = result.and(part.leaf.flush().await);
        }
        result
    }
}
