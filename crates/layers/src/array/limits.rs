//! What the members of an array can do together.

use super::{Array, Tagging};
use bio::Limits;

impl Array {
    /// The limits that hold for every member: sectors are those of the smallest, blocks those of the
    /// member with the largest; no tags if they do not keep [the same](Self::tagging). `None` without a
    /// member.
    pub(crate) fn common_limits(&self) -> Option<Limits> {
        let mut members = self.members().map(|member| member.data().limits().clone());
        let mut limits = members.next()?;
        for other in members {
            limits.sectors = limits.sectors.min(other.sectors);
            limits.logical_block = limits.logical_block.max(other.logical_block);
            limits.preferred_bytes = limits.preferred_bytes.max(other.preferred_bytes);
            limits.max_bytes = limits.max_bytes.min(other.max_bytes);
            limits.read_only |= other.read_only;
            limits.verified &= other.verified;
            limits.discard &= other.discard;
            limits.fast_zeroes &= other.fast_zeroes;
            limits.queue_depth += other.queue_depth;
        }
        let tagging = self.tagging().ok();
        limits.tag_size = tagging.map_or(0, Tagging::tag_size);
        limits.protection = tagging.and_then(Tagging::profile);
        limits.read_only |= self.read_only();
        Some(limits)
    }
}
