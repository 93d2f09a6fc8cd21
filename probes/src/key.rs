//! Names of members of JSON objects that are written often, with what stands around them.

/// A member's name as it follows another member: with the comma before it, its quotes and its colon. [`key!`] makes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key(pub(crate) &'static str);

/// The [`Key`] of a name that needs no escapes.
macro_rules! key {
    ($name:literal) => {
        $crate::key::Key(concat!(",\"", $name, "\":"))
    };
}
pub(crate) use key;
