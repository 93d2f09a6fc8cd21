//! The APIs as data: requests, events, encoders, incremental decoders, conversation store. Pure, no I/O.
