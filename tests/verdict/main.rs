//! The verdict end to end: each condition under which a run is not to be trusted, provoked for real.

mod exchanges;
mod machine;
mod path;
mod relays;
mod stage;
#[path = "../support/mod.rs"]
mod support;
mod until;
mod work;
