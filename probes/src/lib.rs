//! The measuring library: clock, exchange, recorder, join, statistics, report. No sockets, no runtime.

pub mod clock;
pub mod exchange;
pub mod row;

pub use clock::{Clock, ManualClock, MonoClock, Stamp};
pub use exchange::{
    DeltaKind, Exchange, FailureKind, HopExchange, Outcome, Place, TokenMark, TraceId, Usage,
};
pub use row::{Encoding, Row, State, Transport};
