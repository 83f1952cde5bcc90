//! Which place each member has by what was decided, and the stack that they make, as text.

use crate::open::decide::{ArrayDecision, Decision};
use crate::probe::Probed;
use crate::spec::{ArrayLevel, Node};
use crate::volume::{MemberPart, MemberState};
use md::superblock::Superblock;

/// Says of each member what was decided of it.
pub(crate) fn place(members: &mut [MemberPart], decision: &ArrayDecision) {
    for &(slot, index) in &decision.in_sync {
        members[index].slot = Some(slot);
        members[index].state = MemberState::InSync;
    }
    for (index, why) in &decision.left_out {
        members[*index].problem = Some(why.to_string());
    }
    for (list, state) in [
        (&decision.rebuilding, MemberState::Rebuilding),
        (&decision.replacing, MemberState::Replacing),
    ] {
        for &(slot, index) in list {
            members[index].slot = Some(slot);
            members[index].state = state;
        }
    }
    for &index in &decision.spares {
        members[index].state = MemberState::Spare;
    }
    if let Some(index) = decision.journal {
        members[index].state = MemberState::Journal;
    }
    for part in members.iter_mut() {
        part.is_written = matches!(
            part.state,
            MemberState::InSync
                | MemberState::Rebuilding
                | MemberState::Replacing
                | MemberState::Journal
        );
    }
}

/// The stack of an array whose members have their places.
pub(crate) fn array_node(freshest: &Superblock, members: &[MemberPart]) -> Node {
    let slots = units::usize_of(freshest.slots().into());
    let nodes = (0..slots).map(|slot| {
        let holder = members
            .iter()
            .find(|part| part.slot == Some(slot) && part.state == MemberState::InSync);
        holder.map_or(Node::Missing, MemberPart::node)
    });
    let level = ArrayLevel::from_number(freshest.level().number());
    let mut journals = members.iter().filter(|part| part.state == MemberState::Journal);
    let journal = journals.next().map(|part| Box::new(part.node()));
    Node::Array(level.unwrap_or(ArrayLevel::Raid5), nodes.collect(), journal)
}

/// The stack that probed members make, as text.
pub(crate) fn stack_text(members: &[Probed], decision: &Decision) -> String {
    let mut parts: Vec<MemberPart> = members.iter().map(MemberPart::of).collect();
    match decision {
        Decision::Single => parts[0].node().to_string(),
        Decision::Array(array) => {
            place(&mut parts, array);
            let freshest = members[array.newest].md().expect("the newest has a superblock");
            array_node(freshest, &parts).to_string()
        }
    }
}
