//! The program as its users meet it: arguments in; exit codes, lines and files out.
//!
//! ```text
//!   support/     a scratch folder, the program, a server of it, other people's programs
//!   verbs        every verb on every kind of volume
//!   above        tuples as tags: what an application would give
//!   bad_input    what is refused: one line, the right exit code, nothing written
//!   space        no space left where the members lie
//!   change       what exists gets another size, or tags
//!   damage       flipped bits: found, told, healed, or given back as errors in the right places
//!   crash        kill -9 while clients write
//!   find         superblocks that are lost
//!   given        keys, encrypted journals, data on devices of their own
//!   golden       images made by the real kernel
//!   inline       tags in the metadata of the members' blocks
//!   running      modes, tags computed anew, discards, damaged journals
//!   ledger       what is remembered over restarts
//!   policy       bitmap, partial parity log or neither: what is made, what is shown
//!   members      members that are added, replaced, failed, removed, rebuilt
//!   write_journal  a device that everything is logged on first: made, shown, refused
//!   interop      integritysetup and mdadm look at what 'create' makes
//! ```

mod above;
mod bad_input;
mod change;
mod crash;
mod damage;
mod dif;
mod envelope;
mod evidence;
mod find;
mod given;
mod golden;
mod inline;
mod interop;
mod ledger;
mod members;
mod policy;
mod running;
mod space;
mod support;
mod verbs;
mod write_journal;
