//! The opening of a WebSocket to the upstream that many requests share: whose it is, and what it says.

use bytes::Bytes;

use crate::question::Question;

/// Fields that tell of one request, and have no place in an opening: its body and reply, its name in traces and logs, how
/// often it was tried. The `traceparent` goes within the message.
const OF_ONE_REQUEST: [&str; 17] = [
    "content-type",
    "accept",
    "accept-encoding",
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "uber-trace-id",
    "x-amzn-trace-id",
    "x-cloud-trace-context",
    "x-trace-id",
    "x-request-id",
    "x-client-request-id",
    "x-correlation-id",
    "idempotency-key",
    "date",
    "priority",
];

/// How the names of further such fields begin.
const OF_ONE_REQUEST_BEGIN: [&str; 3] = ["x-stainless-", "x-b3-", "x-datadog-"];

/// Fields that say what asks, not for whom: the first that asks says it for all that share its WebSockets.
const OF_THE_FIRST: [&str; 1] = ["user-agent"];

/// What opens a WebSocket.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    /// Which WebSockets a request can share.
    pub(crate) key: Key,
    /// What else is said; it sets no request apart.
    aside: Vec<(String, String)>,
}

/// What all requests of a WebSocket have in common: their target, and every field that may say whose they are. A field
/// that nobody knows here may be one of a tenant, a plan or a key: it would be wrong to send it in another's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// The target, as the upstream knows it.
    pub(crate) target: String,
    fields: Vec<(String, String)>,
}

impl Opening {
    /// The opening that would carry the question to `target`; `None` where a field of it is not text.
    pub(crate) fn of(question: &Question<'_>, target: &str) -> Option<Self> {
        let mut opening = Self {
            key: Key {
                target: target.to_owned(),
                fields: Vec::new(),
            },
            aside: Vec::new(),
        };
        for (name, value) in question.fields {
            let name = text(name)?;
            if is_of_one_request(name) {
                continue;
            }
            let is_of_the_first = OF_THE_FIRST
                .iter()
                .any(|own| name.eq_ignore_ascii_case(own));
            let fields = match is_of_the_first {
                true => &mut opening.aside,
                false => &mut opening.key.fields,
            };
            fields.push((name.to_owned(), text(value)?.to_owned()));
        }
        Some(opening)
    }

    /// The fields that are sent.
    pub(crate) fn fields(&self) -> Vec<(String, String)> {
        [&self.key.fields[..], &self.aside].concat()
    }
}

fn is_of_one_request(name: &str) -> bool {
    let begins = |start: &&str| {
        let head = name.get(..start.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(start))
    };
    OF_ONE_REQUEST
        .iter()
        .any(|own| name.eq_ignore_ascii_case(own))
        || OF_ONE_REQUEST_BEGIN.iter().any(begins)
}

fn text(bytes: &Bytes) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening(fields: &[(&'static str, &'static str)]) -> Opening {
        let fields: Vec<(Bytes, Bytes)> = fields
            .iter()
            .map(|&(name, value)| (name.into(), value.into()))
            .collect();
        let question = Question {
            method: "POST",
            target: "/v1/responses",
            fields: &fields,
            traceparent: None,
            body: Bytes::new(),
        };
        Opening::of(&question, "/v1/responses").unwrap()
    }

    #[test]
    fn what_tells_of_one_request_neither_stands_in_an_opening_nor_sets_it_apart() {
        let me = ("Authorization", "Bearer me");
        let first = opening(&[
            me,
            ("Content-Type", "application/json"),
            ("traceparent", "00-1-2-01"),
            ("X-Request-Id", "1"),
            ("X-Stainless-Retry-Count", "0"),
            ("User-Agent", "a/1"),
        ]);
        let said = first.fields();
        let names: Vec<_> = said.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["Authorization", "User-Agent"]);
        for other in [
            &[me][..],
            &[me, ("user-agent", "b/2")],
            &[me, ("x-b3-spanid", "7"), ("idempotency-key", "8")],
        ] {
            assert_eq!(opening(other).key, first.key, "{other:?}");
        }
    }

    #[test]
    fn what_may_say_whose_a_request_is_sets_it_apart() {
        let me = ("authorization", "Bearer me");
        let first = opening(&[me]);
        for other in [
            &[][..],
            &[("authorization", "Bearer you")],
            &[me, ("openai-project", "p")],
            &[me, ("x-of-nobody-known", "a")],
        ] {
            assert_ne!(opening(other).key, first.key, "{other:?}");
        }
    }
}
