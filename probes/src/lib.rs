//! The measuring library: clock, exchange, recorder, join, statistics, report. No sockets, no runtime.

pub mod bootstrap;
pub mod cell;
pub mod clock;
pub mod clocks;
pub mod conditions;
pub mod counters;
mod counts;
pub mod csv;
pub mod exchange;
pub mod figures;
pub mod floor;
pub mod folder;
pub mod histogram;
pub mod join;
mod key;
pub mod lateness;
pub mod link;
pub mod metric;
pub mod precision;
pub mod receipt;
pub mod record;
pub mod recorder;
pub mod report;
pub mod row;
#[cfg(test)]
mod samples;
pub mod sockets;
pub mod stats;
mod suspicions;
pub mod sweep;
pub mod table;
pub mod usage;
pub mod verdict;

pub use bootstrap::IntervalMethod;
pub use cell::{CellFigure, CellSample, CellStatistics};
pub use clock::{BothClocks, Clock, ManualClock, MonoClock, Stamp};
pub use clocks::{
    ClockBatch, ClockEstimate, ClockRecord, ClockRelation, ClockReply, ClockSpan, RoundTrip,
};
pub use conditions::{CertificateSource, Conditions, StateAt};
pub use counters::{Counters, RunQueue};
pub use csv::csv;
pub use exchange::{
    DeltaKind, Exchange, FailureKind, HopExchange, Outcome, Place, TokenMark, TraceId, Usage,
};
pub use figures::derive;
pub use floor::{Floor, FloorSource};
pub use folder::{FolderError, RecordedRun, RunFolder, TokenStamps};
pub use histogram::{SignedHistogram, Summary};
pub use join::{Joined, JoinedExchange, Seen, Unjoined, join};
pub use lateness::{Handling, Lateness};
pub use link::{LinkActivity, WayActivity};
pub use metric::{Metric, Unit};
pub use precision::{Precision, Until};
pub use receipt::{Receipts, StampSource, TakenWakeups, Wakeups};
pub use record::{Calibration, Cell, Host, Parts, RunRecord, Seeds};
pub use recorder::{Recorder, Tallies};
pub use report::{PriceChange, Recorders, Report, RowReport, Saving, TokenLateness, Versus};
pub use row::{Encoding, ReadStamp, Row, State, Transport};
pub use sockets::{Depths, SocketCounts, Sockets};
pub use stats::{Change, Difference, Statistic, change};
pub use sweep::Sweep;
pub use usage::{ProcessUsage, ProxyUsage};
pub use verdict::{Verdict, Warning};
