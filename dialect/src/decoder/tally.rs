//! Arrays of things that hold deltas, counted while they are read: no list is ever built.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::kinds::Kinds;

/// Something that holds deltas.
pub(super) trait Deltas {
    fn count(&self, kinds: &mut Kinds);
}

/// An array that is counted element by element and never kept.
pub(super) struct Tally<T> {
    pub(super) kinds: Kinds,
    of: PhantomData<T>,
}

impl<T> Default for Tally<T> {
    fn default() -> Self {
        Self {
            kinds: Kinds::default(),
            of: PhantomData,
        }
    }
}

impl<'de, T: Deltas + Deserialize<'de>> Deserialize<'de> for Tally<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Self::default())
    }
}

impl<'de, T: Deltas + Deserialize<'de>> Visitor<'de> for Tally<T> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Self, A::Error> {
        while let Some(element) = seq.next_element::<T>()? {
            element.count(&mut self.kinds);
        }
        Ok(self)
    }
}
