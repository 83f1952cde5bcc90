//! One thread's executor, its timers and locks, and io_uring beneath them.
//!
//! A volume lives on one thread. Layers see [`spawn`], [`sleep`], [`now`] and the locks; who waits
//! for what is a [`Driver`]'s business: the production driver is a ring, the simulator's is a
//! seeded random choice with a clock that jumps.

mod alarm;
mod executor;
mod file;
mod lock;
mod net;
mod operation;
mod reactor;
mod ring;
mod signals;
mod sync;
mod tasks;
mod threads;

pub use executor::{
    Driver, Executor, JoinHandle, Unpark, Wait, block_on, join_all, now, sleep, spawn, yield_now,
};
pub use file::{Alignment, Allocate, File, FileKind, OpenError, OpenOptions};
pub use lock::Holder;
pub use net::{Listener, Stream};
pub use reactor::{Backend, Runtime};
pub use signals::{Signal, Signals};
pub use sync::{Notify, Permit, RangeGuard, RangeLock, Semaphore};
pub use tasks::Tasks;
