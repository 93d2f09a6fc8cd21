//! Profiles as pprof reads them: the protocol buffers of google/pprof's `proto/profile.proto`, gzipped as its tools expect.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::Arc;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use prost::Message;

use crate::stacks::{Frame, Stacks};

/// The most that a profile may be when it is unpacked.
const LIMIT: u64 = 256 << 20;
/// The label that names a sample's thread.
const THREAD: &str = "thread";

/// Why bytes are no profile.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotAProfile {
    /// They do not unpack.
    #[error("the profile cannot be unpacked: {0}")]
    Packed(std::io::Error),
    /// It is no such message.
    #[error("the profile is no protobuf of pprof's: {0}")]
    Message(prost::DecodeError),
    /// It refers to something that is not there.
    #[error("the profile refers to {0} that it does not have")]
    Dangling(&'static str),
}

/// The stacks as a gzipped profile, of samples that were taken `hertz` times in a second of CPU time.
pub fn encode(stacks: &Stacks, hertz: f64) -> Vec<u8> {
    let message = profile(stacks, hertz).encode_to_vec();
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed
        .write_all(&message)
        .and_then(|()| packed.finish())
        .expect("a Vec takes every byte")
}

/// Reads a profile, gzipped or not, whose first value is a count of samples.
///
/// # Errors
/// It is none.
pub fn decode(bytes: &[u8]) -> Result<Stacks, NotAProfile> {
    let mut message = Vec::new();
    // As gzip begins (RFC 1952, section 2.3.1).
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let unpacked = GzDecoder::new(bytes).take(LIMIT);
        { unpacked }
            .read_to_end(&mut message)
            .map_err(NotAProfile::Packed)?;
    } else {
        message.extend_from_slice(bytes);
    }
    let profile = Profile::decode(&*message).map_err(NotAProfile::Message)?;
    stacks(&profile)
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

fn stacks(profile: &Profile) -> Result<Stacks, NotAProfile> {
    let text = |index: i64| {
        let at = usize::try_from(index).ok();
        let text = at.and_then(|at| profile.string_table.get(at));
        text.ok_or(NotAProfile::Dangling("a string"))
    };
    let functions: HashMap<u64, &Function> =
        profile.function.iter().map(|it| (it.id, it)).collect();
    let mut frames: HashMap<u64, Vec<Arc<Frame>>> = HashMap::new();
    for location in &profile.location {
        let mut inlined = Vec::with_capacity(location.line.len());
        // What was inlined comes before what it was inlined into.
        for line in location.line.iter().rev() {
            let function = functions.get(&line.function_id);
            let function = function.ok_or(NotAProfile::Dangling("a function"))?;
            inlined.push(Arc::new(Frame {
                function: text(function.name)?.clone(),
                file: text(function.filename)?.clone(),
                line: u32::try_from(line.line).unwrap_or(0),
            }));
        }
        frames.insert(location.id, inlined);
    }
    let mut stacks = Stacks::default();
    for sample in &profile.sample {
        let mut root = String::new();
        for label in &sample.label {
            if text(label.key)? == THREAD {
                root.clone_from(text(label.str)?);
            }
        }
        let mut stack = vec![Arc::new(Frame::named(root))];
        for id in sample.location_id.iter().rev() {
            let inlined = frames.get(id).ok_or(NotAProfile::Dangling("a location"))?;
            stack.extend(inlined.iter().cloned());
        }
        let count = sample.value.first().copied().unwrap_or(0);
        stacks.add(stack, u64::try_from(count).unwrap_or(0));
    }
    Ok(stacks)
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
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::folded;

    #[test]
    fn what_was_written_reads_back_with_its_source_lines() {
        let mut stacks =
            folded::parse("proxy-0;a::read;recv 3\nproxy-0;a::read 9\nmain 2\n").unwrap();
        let frame = Frame {
            file: "src/a.rs".to_owned(),
            line: 12,
            ..Frame::named("a::read")
        };
        stacks.add(vec![Arc::new(Frame::named("main")), Arc::new(frame)], 4);
        let packed = encode(&stacks, 199.0);
        assert_eq!(packed[..2], [0x1f, 0x8b]);
        assert_eq!(decode(&packed).unwrap(), stacks);
        assert_eq!(
            decode(&profile(&stacks, 199.0).encode_to_vec()).unwrap(),
            stacks
        );
    }

    #[test]
    fn what_refers_to_nothing_is_refused() {
        let stacks = folded::parse("main;f 3\n").unwrap();
        let whole = profile(&stacks, 199.0);
        let mut broken = [whole.clone(), whole.clone(), whole];
        broken[0].string_table.truncate(2);
        broken[1].location.clear();
        broken[2].function.clear();
        for profile in broken {
            assert!(matches!(
                decode(&profile.encode_to_vec()),
                Err(NotAProfile::Dangling(_))
            ));
        }
        assert!(matches!(
            decode(&[0x1f, 0x8b, 0]),
            Err(NotAProfile::Packed(_))
        ));
        assert!(matches!(decode(b"<html>"), Err(NotAProfile::Message(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_profile_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn a_profile_with_a_byte_changed_is_read_or_refused(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let stacks = folded::parse("main;f;g 3\nmain;f 2\n").unwrap();
            let mut message = profile(&stacks, 199.0).encode_to_vec();
            let at = at.index(message.len());
            message[at] = byte;
            if let Ok(stacks) = decode(&message) {
                let text = folded::text(&crate::tidy(&stacks));
                let _ = stacks.functions();
                prop_assert_eq!(folded::text(&folded::parse(&text).unwrap()), text);
            }
        }
    }
}
