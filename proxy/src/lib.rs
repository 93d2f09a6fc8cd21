//! The sidecar: accept on any channel, tap, bridge, relay to the upstream, admin endpoint, drain.
//!
//! It never knows that the load generator exists: with any client it measures just the same. What it does not
//! understand passes through untouched and is still timed as bytes.

mod admin;
mod archive;
mod below;
mod beside;
mod body;
mod book;
mod carried;
mod conversations;
mod counting;
mod exposition;
mod failure;
mod front;
mod inlet;
mod keeper;
mod kind;
mod labels;
mod ledger;
mod leg;
mod metrics;
mod opening;
mod options;
mod outlet;
mod packed;
mod pooled;
mod profiling;
mod proxy;
mod question;
mod refusal;
mod relay;
mod remains;
mod sockets;
mod tap;
mod translation;
mod upstream;
mod usage;
mod wakeups;
mod worker;

pub use front::WsLimits;
pub use options::{ProxyOptions, UpstreamApi};
pub use proxy::{Addresses, Proxy, ProxyError};
pub use tokenlag_probes::StateAt;
pub use upstream::Patience;
