//! A request that is whole, as it goes upstream.

use bytes::Bytes;
use tokenlag_dialect::Dialect;

/// A request that is whole, as it goes upstream.
#[derive(Clone, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    /// The client's fields, as far as they concern the upstream.
    pub(crate) fields: &'a [(Bytes, Bytes)],
    /// The client's `traceparent`, passed on as it came, where it is not among the fields.
    pub(crate) traceparent: Option<&'a str>,
    pub(crate) body: Bytes,
}

impl Question<'_> {
    /// The API whose reply is expected.
    pub(crate) fn dialect(&self) -> Option<Dialect> {
        Dialect::of_path(self.target).filter(|_| self.method == "POST")
    }

    /// Whether it asks for a response of the Responses API.
    pub(crate) fn is_create(&self) -> bool {
        self.dialect() == Some(Dialect::Responses)
    }

    /// The client's fields, as bytes.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let fields = self.fields.iter();
        fields.map(|(name, value)| (&name[..], &value[..]))
    }
}
