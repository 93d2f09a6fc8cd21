//! The measuring library: clock, exchange, recorder, join, statistics, report. No sockets, no runtime.

pub mod clock;
pub mod exchange;

pub use clock::{Clock, ManualClock, MonoClock, Stamp};
pub use exchange::{
    DeltaKind, Exchange, FailureKind, HopExchange, Outcome, Place, TokenMark, TraceId, Usage,
};
