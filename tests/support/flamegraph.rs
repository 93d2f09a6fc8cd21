//! Reading flamegraphs back as XML, with a parser that has no part in their making.

use std::collections::BTreeMap;

use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::Event;
use tokenlag_profiling::Stacks;

/// What a flamegraph shows.
#[derive(Debug, Default)]
pub struct Picture {
    /// Frames by their function: how wide each is, in samples or nanoseconds.
    pub frames: BTreeMap<String, Vec<u64>>,
    /// All that is written in it.
    pub words: Vec<String>,
}

/// What is in an SVG.
///
/// # Panics
/// It is no well-formed XML, or no SVG (<https://www.w3.org/TR/SVG11/struct.html#SVGElement>).
pub fn read(svg: &[u8]) -> Picture {
    let mut reader = Reader::from_reader(svg);
    let mut picture = Picture::default();
    let mut open: Vec<String> = Vec::new();
    let mut text = String::new();
    let mut roots = 0;
    loop {
        let event = reader.read_event();
        let event = event.unwrap_or_else(|error| panic!("{}: {error}", reader.error_position()));
        match event {
            Event::Start(tag) => {
                let name = String::from_utf8(tag.name().as_ref().to_vec()).expect("a name");
                if open.is_empty() {
                    let space = tag.try_get_attribute("xmlns").expect("attributes");
                    let space = space.expect("a namespace");
                    assert_eq!(&*space.value, b"http://www.w3.org/2000/svg");
                    assert_eq!(name, "svg");
                    roots += 1;
                }
                open.push(name);
                text.clear();
            }
            Event::End(_) => {
                let name = open.pop().expect("it was opened");
                if name == "title" {
                    frame(&text, &mut picture.frames);
                }
                if !text.trim().is_empty() {
                    picture.words.push(std::mem::take(&mut text));
                }
            }
            Event::Text(words) => text.push_str(&words.decode().expect("UTF-8")),
            Event::GeneralRef(name) => match name.resolve_char_ref().expect("a number") {
                Some(character) => text.push(character),
                None => {
                    let name = name.decode().expect("UTF-8");
                    let entity = resolve_xml_entity(&name);
                    text.push_str(entity.unwrap_or_else(|| panic!("&{name};")));
                }
            },
            Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!((open.len(), roots), (0, 1), "one picture that is whole");
    picture
}

/// `recv (1,203 samples, 3.10%)`.
fn frame(title: &str, frames: &mut BTreeMap<String, Vec<u64>>) {
    let (name, rest) = title.rsplit_once(" (").expect("a width");
    let count = rest.split(' ').next().expect("a number").replace(',', "");
    let count = count.parse().unwrap_or_else(|_| panic!("{title}"));
    frames.entry(name.to_owned()).or_default().push(count);
}

/// The frames that a flamegraph of these stacks has: callers with the same callers are one.
pub fn frames_of(stacks: &Stacks) -> BTreeMap<String, Vec<u64>> {
    let mut tree: BTreeMap<Vec<&str>, u64> = BTreeMap::new();
    for (stack, count) in stacks.iter() {
        let names: Vec<&str> = stack.iter().map(|frame| &*frame.function).collect();
        for depth in 1..=names.len() {
            *tree.entry(names[..depth].to_vec()).or_default() += count;
        }
    }
    let mut frames: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (names, count) in tree {
        let name = names.last().expect("it has a root");
        frames.entry((*name).to_owned()).or_default().push(count);
    }
    frames
}

/// All of `some` are in `whole`, each as often.
pub fn is_part(some: &[u64], whole: &[u64]) -> bool {
    let mut left = whole.to_vec();
    some.iter().all(|count| {
        let at = left.iter().position(|it| it == count);
        at.map(|at| left.swap_remove(at)).is_some()
    })
}
