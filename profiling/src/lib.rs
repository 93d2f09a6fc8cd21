//! CPU profiles: sampling this process or others through `perf`, stacks that a person can read, and what they are written as:
//! folded text, flamegraphs, pprof's protobuf, differences between two.

pub mod difference;
pub mod flamegraph;
pub mod folded;
mod name;
pub mod perf;
mod place;
pub mod protobuf;
pub mod sampler;
pub mod silence;
pub mod stacks;
pub mod tidy;

pub use difference::Side;
pub use flamegraph::Title;
pub use sampler::{Sampled, Sampling, SamplingError};
pub use silence::Silence;
pub use stacks::{Frame, Share, Stacks};
pub use tidy::tidy;
