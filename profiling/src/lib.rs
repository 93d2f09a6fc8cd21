//! CPU profiles: sampling this process or others through `perf`, stacks that a person can read, and what they are written as:
//! folded text, flamegraphs, pprof's protobuf, differences between two.

pub mod folded;
pub mod sampler;
pub mod stacks;

pub use sampler::{Sampling, SamplingError};
pub use stacks::{Frame, Share, Stacks};
