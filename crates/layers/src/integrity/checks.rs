//! Every read by which this layer checks what it did, by what it checks; see the array's list of that name.

/// Tags that went home and could pass for data, read again before the journal lets go of them.
pub(super) const CONFIRMED: &str = "home: tags that could pass for data, read again";

/// All of them.
pub const CHECKS: &[&str] = &[CONFIRMED];
