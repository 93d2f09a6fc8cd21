//! An emulated network link of any length on one machine: two network namespaces with a TUN device in each, and a relay between
//! them that delays, paces, queues and loses packets. The kernel's own TCP and UDP see it, handshakes included; the host's own
//! network is not touched.

mod busy;
mod check;
mod error;
mod forward;
mod lane;
mod left;
mod link;
mod loss;
pub mod named;
mod namespace;
mod netlink;
mod pipe;
mod relay;
mod releases;
mod rights;
mod side;
mod spec;
mod stats;
mod units;
mod wait;

pub use check::{Finding, check};
pub use error::LinkError;
pub use forward::{Forward, Forwarder};
pub use left::{end_all_in, end_left};
pub use link::Link;
pub use loss::Loss;
pub use namespace::{Inheritable, Namespace};
pub use pipe::{Fate, Pipe};
pub use relay::Clock;
pub use releases::Releases;
pub use rights::Rights;
pub use side::{Addresses, Side};
pub use spec::{LinkSpec, MTU, Way};
pub use stats::{ByProtocol, LinkStats, WayStats};
