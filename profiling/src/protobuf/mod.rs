//! Profiles as pprof reads them: the protocol buffers of google/pprof's `proto/profile.proto`, gzipped as its tools expect.

mod read;

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

use crate::stacks::{Frame, Stacks};
pub use read::{NotAProfile, decode, span};

/// The label that names a sample's thread.
const THREAD: &str = "thread";

/// When a profile's samples were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// From then on, by the wall clock.
    pub began: SystemTime,
    /// For so long.
    pub lasted: Duration,
}

/// The stacks as a gzipped profile, of samples that were taken `hertz` times in a second of CPU time.
pub fn encode(stacks: &Stacks, hertz: f64) -> Vec<u8> {
    packed(&profile(stacks, hertz))
}

/// The same, of samples that were taken one after another within `span`: readers show what share of it the CPU was used.
pub fn encode_within(stacks: &Stacks, hertz: f64, span: Span) -> Vec<u8> {
    let nanos = |span: Duration| i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
    let mut profile = profile(stacks, hertz);
    profile.time_nanos = span.began.duration_since(UNIX_EPOCH).map_or(0, nanos);
    profile.duration_nanos = nanos(span.lasted);
    packed(&profile)
}

fn packed(profile: &Profile) -> Vec<u8> {
    let message = profile.encode_to_vec();
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed
        .write_all(&message)
        .and_then(|()| packed.finish())
        .expect("a Vec takes every byte")
}

fn profile(stacks: &Stacks, hertz: f64) -> Profile {
    let mut strings = Strings::default();
    strings.index("");
    let mut profile = Profile::default();
    let samples = ValueType::named(&mut strings, "samples", "count");
    let cpu = ValueType::named(&mut strings, "cpu", "nanoseconds");
    let period = 1e9 / hertz;
    profile.sample_type = vec![samples, cpu];
    profile.period_type = Some(cpu);
    profile.period = period.round() as i64;
    let thread = strings.index(THREAD);
    let mut locations: HashMap<Arc<Frame>, u64> = HashMap::new();
    let mut functions: HashMap<(i64, i64), u64> = HashMap::new();
    for (stack, count) in stacks.iter() {
        let mut sample = Sample {
            value: vec![
                i64::try_from(count).unwrap_or(i64::MAX),
                (count as f64 * period).round() as i64,
            ],
            ..Sample::default()
        };
        let Some((root, frames)) = stack.split_first() else {
            continue;
        };
        sample.label.push(Label {
            key: thread,
            str: strings.index(&root.function),
        });
        // The leaf comes first.
        for frame in frames.iter().rev() {
            let next = locations.len() as u64 + 1;
            let id = *locations.entry(Arc::clone(frame)).or_insert(next);
            if id == next {
                let (name, filename) = (strings.index(&frame.function), strings.index(&frame.file));
                let next = functions.len() as u64 + 1;
                let function_id = *functions.entry((name, filename)).or_insert(next);
                if function_id == next {
                    profile.function.push(Function {
                        id: next,
                        name,
                        system_name: name,
                        filename,
                    });
                }
                let line = Line {
                    function_id,
                    line: frame.line.into(),
                };
                profile.location.push(Location {
                    id,
                    line: vec![line],
                });
            }
            sample.location_id.push(id);
        }
        profile.sample.push(sample);
    }
    profile.string_table = strings.table;
    profile
}

/// Strings that are there once.
#[derive(Default)]
struct Strings {
    table: Vec<String>,
    places: HashMap<String, i64>,
}

impl Strings {
    fn index(&mut self, text: &str) -> i64 {
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        let place = self.table.len() as i64;
        self.table.push(text.to_owned());
        self.places.insert(text.to_owned(), place);
        place
    }
}

/// The messages, as far as they are used here; a reader skips fields that it does not know.
#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
}

/// What [`Profile`] has of its time alone: the rest is skipped.
#[derive(Clone, Copy, PartialEq, Message)]
struct Times {
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

impl ValueType {
    fn named(strings: &mut Strings, kind: &str, unit: &str) -> Self {
        Self {
            kind: strings.index(kind),
            unit: strings.index(unit),
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    str: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}
