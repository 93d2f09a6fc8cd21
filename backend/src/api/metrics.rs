//! Counters, and their page in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write;

use hyper::{Response, StatusCode};

use super::body::Body;
use super::service::Service;

/// Replies begun, by endpoint and status.
#[derive(Debug, Default)]
pub(super) struct Requests(BTreeMap<(&'static str, u16), u64>);

impl Requests {
    pub(super) fn count(&mut self, endpoint: &'static str, status: StatusCode) {
        *self.0.entry((endpoint, status.as_u16())).or_default() += 1;
    }
}

/// The page, as Prometheus' text exposition format 0.0.4 has it.
pub(super) fn page(service: &Service) -> Response<Body> {
    let status = service.worker.status();
    let mut page = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, samples: &[(String, u64)]| {
        // Writing to a String does not fail.
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(page, "{name}{labels} {value}");
        }
    };
    let plain = |value: u64| [(String::new(), value)];
    let requests: Vec<_> = service
        .requests
        .borrow()
        .0
        .iter()
        .map(|((endpoint, status), count)| {
            (
                format!("{{endpoint=\"{endpoint}\",status=\"{status}\"}}"),
                *count,
            )
        })
        .collect();
    metric(
        "tokenlag_backend_requests_total",
        "counter",
        "Replies begun, by endpoint and HTTP status.",
        &requests,
    );
    for (name, help, value) in [
        (
            "prompt_tokens",
            "Prompt tokens of all jobs started.",
            status.prompt_tokens,
        ),
        (
            "cached_prompt_tokens",
            "Prompt tokens taken from a cache.",
            status.cached_tokens,
        ),
        (
            "generated_tokens",
            "Tokens generated.",
            status.predicted_tokens,
        ),
    ] {
        metric(
            &format!("tokenlag_backend_{name}_total"),
            "counter",
            help,
            &plain(value),
        );
    }
    for (name, help, value) in [
        ("jobs_active", "Jobs that hold a slot.", status.active),
        ("jobs_waiting", "Jobs that wait for a slot.", status.waiting),
        ("slots", "Jobs that can be computed at once.", status.slots),
    ] {
        metric(
            &format!("tokenlag_backend_{name}"),
            "gauge",
            help,
            &plain(value as u64),
        );
    }
    let labels = format!(
        "{{model=\"{}\",parameters=\"{}\"}}",
        escaped(service.model.name()),
        service.model.parameters()
    );
    metric(
        "tokenlag_backend_model_info",
        "gauge",
        "The model that is served; always 1.",
        &[(labels, 1)],
    );
    Body::bytes("text/plain; version=0.0.4; charset=utf-8", page)
}

/// A label's value: backslash, quote and line feed are escaped.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
