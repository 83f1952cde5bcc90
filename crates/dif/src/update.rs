//! A tuple when a part of its interval changes.

use crate::profile::Profile;
use crate::stream::covered;
use crate::tuple::Tuple;
use guard::Guard;

impl Profile {
    /// Makes the guard in `tuple` anew for an interval whose bytes `old`, at `offset`, become `new`,
    /// without reading the rest. Only as right as the old guard is: whoever has not verified the interval
    /// launders. The bytes may be data, or metadata that the guard covers (whose offsets follow the
    /// data's). An escape stays one.
    ///
    /// False, and nothing done, where the old guard does not tell the new (see [`guard::Guard::updated`]):
    /// generate it of the whole interval then.
    ///
    /// # Panics
    /// If the bytes are not within what the guard covers, differ in length, or `tuple` is not a tuple's.
    #[must_use]
    pub fn update(&self, tuple: &mut [u8], offset: usize, old: &[u8], new: &[u8]) -> bool {
        let covered = covered(&self.format);
        let end = offset.checked_add(old.len()).filter(|end| *end <= covered);
        let behind = covered - end.expect("the guard covers what changes");
        let mut changed = Tuple::decode(&self.format, tuple);
        if changed.is_escaped(&self.format, self.kind) {
            return true;
        }
        // The checksum of IP is of whole words: where the owner's bytes make an odd end, a zero follows.
        let padding = if self.format.guard() == Guard::Ip { covered % 2 } else { 0 };
        let guard = self.format.guard();
        let Some(guard) = guard.updated(changed.guard, old, new, behind + padding) else {
            return false;
        };
        changed.guard = guard;
        changed.encode(&self.format, tuple);
        true
    }
}
