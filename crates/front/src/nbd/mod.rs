//! The NBD server: one device, served to any number of clients.
//!
//! ```text
//!   Server ----- accepts ----> Connection (one per client)
//!     |                           |  handshake, reader, replies
//!     |  budget, watch, stop      v
//!     +----------------------> Session --> Volume: bytes into blocks --> Device
//! ```
//!
//! What a client can do wrong costs that client its connection and nobody else anything: garbage
//! ends the connection, lengths are checked before they are believed, and a client that stops in
//! the middle of a message while others wait for its buffers is cut off.

mod address;
mod connection;
mod replies;
mod serve;
mod status;
#[cfg(test)]
mod test_device;
#[cfg(test)]
mod test_server;
#[cfg(test)]
mod tests;
mod transmit;
mod volume;

pub use address::{Address, BindError};
pub use serve::{BUDGET_BYTES, Export, Server};
