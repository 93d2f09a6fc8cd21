//! Reading pprof's profiles. They may come from elsewhere: what is made of them is bounded by their length, whatever they claim,
//! as a few bytes can stand for a long stack, a long name, or both a million times.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use flate2::read::GzDecoder;
use prost::Message;

use super::{Function, Location, Sample, Span, THREAD, Times};
use crate::stacks::{Frame, Stacks};

/// The most that a profile may be when it is unpacked, in bytes.
const LIMIT: u64 = 64 << 20;
/// The most strings, functions, locations and samples that it may have, each.
const ENTRIES: usize = 1 << 20;
/// The most bytes of one of them.
const LONGEST: usize = 1 << 20;
/// The most bytes of a name or a path.
const LONGEST_TEXT: usize = 64 << 10;
/// Bytes of names and paths for each byte of the profile: a location of some ten bytes has those of its function.
const TEXT_FOR_A_BYTE: usize = 64;
/// Frames of all stacks for each byte of the profile: a byte or two name a location, with all that was inlined there.
const FRAMES_FOR_A_BYTE: usize = 16;
/// The most frames of all stacks together.
const FRAMES: usize = 32 << 20;

/// Fields of the message `Profile`.
const SAMPLE: usize = 2;
const LOCATION: usize = 4;
const FUNCTION: usize = 5;
const STRING: usize = 6;

/// Why bytes are no profile.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotAProfile {
    /// They do not unpack.
    #[error("the profile cannot be unpacked: {0}")]
    Packed(std::io::Error),
    /// A part of it is no such message.
    #[error("the profile is no protobuf of pprof's: {0}")]
    Message(#[from] prost::DecodeError),
    /// Nor is the whole.
    #[error("the profile is no protobuf of pprof's: {0}")]
    Broken(&'static str),
    /// It refers to something that is not there.
    #[error("the profile refers to {0} that it does not have")]
    Dangling(&'static str),
    /// It is beyond what is read.
    #[error("the profile has {0} than any that is read here")]
    TooMuch(&'static str),
}

/// Reads a profile, gzipped or not, whose first value is a count of samples.
///
/// # Errors
/// It is none, or has more in it than its length accounts for.
pub fn decode(bytes: &[u8]) -> Result<Stacks, NotAProfile> {
    stacks(&unpacked(bytes)?)
}

/// When a profile, gzipped or not, was taken; `None` where it does not say, or says what cannot be.
///
/// # Errors
/// It is none.
pub fn span(bytes: &[u8]) -> Result<Option<Span>, NotAProfile> {
    let times = Times::decode(&*unpacked(bytes)?)?;
    let span = |nanos: i64| {
        let nanos = u64::try_from(nanos).ok().filter(|nanos| *nanos > 0);
        nanos.map(Duration::from_nanos)
    };
    let known = span(times.time_nanos).zip(span(times.duration_nanos));
    Ok(known.and_then(|(began, lasted)| {
        let began = UNIX_EPOCH.checked_add(began)?;
        Some(Span { began, lasted })
    }))
}

/// The message itself, of bounded length.
fn unpacked(bytes: &[u8]) -> Result<Cow<'_, [u8]>, NotAProfile> {
    let mut message = Cow::Borrowed(bytes);
    // As gzip begins (RFC 1952, section 2.3.1).
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut unpacked = Vec::new();
        let mut packed = GzDecoder::new(bytes).take(LIMIT + 1);
        let read = packed.read_to_end(&mut unpacked);
        read.map_err(NotAProfile::Packed)?;
        message = Cow::Owned(unpacked);
    }
    if message.len() as u64 > LIMIT {
        return Err(NotAProfile::TooMuch("more bytes"));
    }
    Ok(message)
}

fn stacks(message: &[u8]) -> Result<Stacks, NotAProfile> {
    // What others refer to comes in any order: each kind is read before what refers to it.
    let strings = Strings::of(message)?;
    let mut functions: HashMap<u64, Function> = HashMap::new();
    for entry in entries(message, FUNCTION)? {
        let function = Function::decode(entry)?;
        functions.insert(function.id, function);
    }
    let mut text_left = Left(message.len().saturating_mul(TEXT_FOR_A_BYTE));
    let mut locations: HashMap<u64, Vec<Arc<Frame>>> = HashMap::new();
    for entry in entries(message, LOCATION)? {
        let location = Location::decode(entry)?;
        let mut inlined = Vec::with_capacity(location.line.len());
        // What was inlined comes before what it was inlined into.
        for line in location.line.iter().rev() {
            let function = functions.get(&line.function_id);
            let function = function.ok_or(NotAProfile::Dangling("a function"))?;
            let (name, file) = (strings.at(function.name)?, strings.at(function.filename)?);
            text_left.take(name.len() + file.len(), "longer names")?;
            inlined.push(Arc::new(Frame {
                function: name.to_owned(),
                file: file.to_owned(),
                line: u32::try_from(line.line).unwrap_or(0),
            }));
        }
        locations.insert(location.id, inlined);
    }
    let frames = message.len().saturating_mul(FRAMES_FOR_A_BYTE);
    let mut frames_left = Left(frames.min(FRAMES));
    let mut roots: HashMap<&str, Arc<Frame>> = HashMap::new();
    let mut stacks = Stacks::default();
    for entry in entries(message, SAMPLE)? {
        let sample = Sample::decode(entry)?;
        let mut root = "";
        for label in &sample.label {
            if strings.at(label.key)? == THREAD {
                root = strings.at(label.str)?;
            }
        }
        let root = roots.entry(root);
        let root = root.or_insert_with_key(|root| Arc::new(Frame::named(*root)));
        let mut stack = vec![Arc::clone(root)];
        for id in sample.location_id.iter().rev() {
            let inlined = locations.get(id);
            let inlined = inlined.ok_or(NotAProfile::Dangling("a location"))?;
            frames_left.take(inlined.len(), "longer stacks")?;
            stack.extend(inlined.iter().cloned());
        }
        let count = sample.value.first().copied().unwrap_or(0);
        stacks.add(stack, u64::try_from(count).unwrap_or(0));
    }
    Ok(stacks)
}

/// What may still be taken.
struct Left(usize);

impl Left {
    fn take(&mut self, count: usize, what: &'static str) -> Result<(), NotAProfile> {
        self.0 = (self.0.checked_sub(count)).ok_or(NotAProfile::TooMuch(what))?;
        Ok(())
    }
}

/// The profile's strings, by their places.
struct Strings<'a>(Vec<&'a str>);

impl<'a> Strings<'a> {
    fn of(message: &'a [u8]) -> Result<Self, NotAProfile> {
        let entries = entries(message, STRING)?;
        let mut strings = Vec::with_capacity(entries.len());
        for entry in entries {
            if entry.len() > LONGEST_TEXT {
                return Err(NotAProfile::TooMuch("a longer name"));
            }
            let text = std::str::from_utf8(entry);
            strings.push(text.map_err(|_| NotAProfile::Broken("a string is no UTF-8"))?);
        }
        Ok(Self(strings))
    }

    fn at(&self, index: i64) -> Result<&'a str, NotAProfile> {
        let at = usize::try_from(index).ok();
        let text = at.and_then(|at| self.0.get(at));
        text.copied().ok_or(NotAProfile::Dangling("a string"))
    }
}

/// Each field of that number in the message (protobuf.dev, "Encoding"); they are all of the length-delimited kind.
fn entries(message: &[u8], number: usize) -> Result<Vec<&[u8]>, NotAProfile> {
    const CUT: NotAProfile = NotAProfile::Broken("it ends within a field");
    let mut entries = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        let key = prost::decode_length_delimiter(&mut rest)?;
        let value;
        match key & 7 {
            // A number of whatever length.
            0 => {
                prost::decode_length_delimiter(&mut rest)?;
                value = None;
            }
            1 => {
                rest = rest.get(8..).ok_or(CUT)?;
                value = None;
            }
            2 => {
                let length = prost::decode_length_delimiter(&mut rest)?;
                let (this, after) = rest.split_at_checked(length).ok_or(CUT)?;
                rest = after;
                value = Some(this);
            }
            5 => {
                rest = rest.get(4..).ok_or(CUT)?;
                value = None;
            }
            _ => return Err(NotAProfile::Broken("a field is of no kind that it has")),
        }
        if key >> 3 == number {
            let value = value.ok_or(NotAProfile::Broken("a field is of another kind"))?;
            if value.len() > LONGEST {
                return Err(NotAProfile::TooMuch("a longer entry"));
            }
            if entries.len() == ENTRIES {
                return Err(NotAProfile::TooMuch("more entries"));
            }
            entries.push(value);
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Label, Line, Profile, encode, encode_within, profile};
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
    fn when_it_was_taken_reads_back_where_it_says_so() {
        let stacks = folded::parse("main;f 3\n").unwrap();
        assert_eq!(span(&encode(&stacks, 199.0)).unwrap(), None);
        let taken = Span {
            began: UNIX_EPOCH + Duration::from_nanos(1_763_900_000_123_456_789),
            lasted: Duration::from_millis(1_001),
        };
        let packed = encode_within(&stacks, 199.0, taken);
        assert_eq!(span(&packed).unwrap(), Some(taken));
        assert_eq!(decode(&packed).unwrap(), stacks);
        let times = Times {
            time_nanos: -1,
            duration_nanos: 5,
        };
        assert_eq!(span(&times.encode_to_vec()).unwrap(), None);
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
        for text in [
            &b"<html>"[..],
            b"\x0a\xff",
            b"\x32\x02\xff\xff",
            b"\x30\x01",
        ] {
            assert!(
                matches!(
                    decode(text),
                    Err(NotAProfile::Message(_) | NotAProfile::Broken(_))
                ),
                "{text:?}"
            );
        }
    }

    /// What a profile is refused for.
    fn too_much(profile: &Profile) -> &'static str {
        match decode(&profile.encode_to_vec()) {
            Err(NotAProfile::TooMuch(what)) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn few_bytes_cannot_stand_for_many() {
        // A name that a thousand lines have, and a location of a thousand lines that a thousand samples have.
        let line = Line {
            function_id: 1,
            line: 1,
        };
        let mut names = Profile {
            string_table: vec![String::new(), "n".repeat(60_000)],
            function: vec![Function {
                id: 1,
                name: 1,
                ..Function::default()
            }],
            location: vec![Location {
                id: 1,
                line: vec![line; 1_000],
            }],
            ..Profile::default()
        };
        assert_eq!(too_much(&names), "longer names");
        names.string_table[1] = "n".to_owned();
        let sample = Sample {
            location_id: vec![1; 1_000],
            value: vec![1],
            ..Sample::default()
        };
        let mut stacks = names.clone();
        stacks.sample = vec![sample];
        assert_eq!(too_much(&stacks), "longer stacks");
        names.string_table[1] = "n".repeat(70_000);
        assert_eq!(too_much(&names), "a longer name");
        let many = Profile {
            sample: vec![Sample::default(); ENTRIES + 1],
            ..Profile::default()
        };
        assert_eq!(too_much(&many), "more entries");
        let labels = Sample {
            label: vec![Label::default(); LONGEST],
            ..Sample::default()
        };
        let long = Profile {
            sample: vec![labels],
            ..Profile::default()
        };
        assert_eq!(too_much(&long), "a longer entry");
        // A megabyte of nothing, packed to a kilobyte each.
        let nothing = vec![0u8; LIMIT as usize + 9];
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, &nothing).unwrap();
        let bomb = packed.finish().unwrap();
        assert!(bomb.len() < 1 << 20);
        assert!(matches!(
            decode(&bomb),
            Err(NotAProfile::TooMuch("more bytes"))
        ));
    }

    #[test]
    fn deep_stacks_of_long_names_are_read() {
        // As a program has them: 20,000 stacks of 100 frames, of 2,000 functions with names of 150 letters.
        let mut stacks = Stacks::default();
        let functions: Vec<Arc<Frame>> = (0..2_000)
            .map(|at| {
                Arc::new(Frame {
                    file: "f".repeat(80),
                    line: at,
                    ..Frame::named(format!("{at}{}", "n".repeat(150)))
                })
            })
            .collect();
        for at in 0..20_000usize {
            let frames =
                (0..100).map(|depth| Arc::clone(&functions[(at * 7 + depth * at) % 2_000]));
            stacks.add(frames.collect(), 1);
        }
        let read = decode(&encode(&stacks, 199.0)).unwrap();
        assert_eq!(read.total(), stacks.total());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_profile_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = (decode(&bytes), span(&bytes));
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
