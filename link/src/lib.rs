//! An emulated network link of any length on one machine: two network namespaces with a TUN device in each, and a relay between
//! them that delays, paces, queues and loses packets. The kernel's own TCP and UDP see it, handshakes included; the host's own
//! network is not touched.

mod error;
mod loss;
pub mod named;
mod pipe;
mod releases;
mod spec;
mod units;

pub use error::LinkError;
pub use loss::Loss;
pub use pipe::{Fate, Pipe};
pub use releases::Releases;
pub use spec::{LinkSpec, MTU, Way};
