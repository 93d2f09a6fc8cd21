//! The load generator: workload, schedule, phases, campaign over rows.
//!
//! It drives endpoints that are already there, knows of no processes and prints nothing. *When* sessions start
//! ([`schedule`]), *what* they say ([`workload`], [`prompt`]), *how* it is sent (`tokenlag-channel`), *when to stop*
//! ([`cell::CellPlan`]) and *what is recorded* (the [`Observer`]'s own affair) are separate values.
//! Everything runs on one thread: call it within a current-thread runtime.

pub mod arrivals;
pub mod asking;
pub mod campaign;
pub mod cell;
pub mod conversation;
pub mod drive;
pub mod endpoint;
mod gate;
pub mod heed;
mod open_loop;
pub mod pacing;
mod places;
pub mod progress;
pub mod prompt;
pub mod rate;
pub mod schedule;
pub mod seeds;
pub mod session;
pub mod stop;
mod text;
pub mod warmup;
pub mod workload;

pub use arrivals::Arrivals;
pub use asking::{Asking, Form};
pub use campaign::{Campaign, Ended, Observer};
pub use cell::{CellEnd, CellName, CellPlan, Connections, Sink};
pub use endpoint::{Endpoint, Limits};
pub use progress::Progress;
pub use prompt::{Phase, Prompts, WordCount};
pub use rate::{Burstiness, Rate};
pub use session::{Lane, Shared};
pub use stop::{Stop, Stopper, stop};
pub use tokenlag_channel::{BadUrl, BaseUrl};
pub use workload::{Preset, Workload};
