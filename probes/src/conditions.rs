//! What was on in a run: encryption, resumption, where state is kept, how connections are used, congestion control.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::receipt::StampSource;
use crate::row::names;

/// Where conversations are kept under `previous_response_id`, for all rows of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateAt {
    /// In the proxy's store: a request that names a response known there goes upstream with the whole conversation in its
    /// stead.
    Proxy,
    /// In the upstream's own: the proxy passes `previous_response_id` on, and keeps nothing.
    Upstream,
}

names!(
    StateAt, "place of state", "proxy, upstream",
    StateAt::Proxy => "proxy",
    StateAt::Upstream => "upstream",
);

/// Where the proxy's certificate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateSource {
    /// Made for the run, and trusted by the load generator alone.
    SelfSigned,
    /// Files that the user gave.
    Given,
}

names!(
    CertificateSource, "certificate", "self-signed, given",
    CertificateSource::SelfSigned => "self-signed",
    CertificateSource::Given => "given",
);

/// What was on, alike for all rows of a run. `None`: not known, as in runs recorded before it was noted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Conditions {
    /// TLS 1.3 on the channels that have a form in clear; those on QUIC are encrypted either way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<bool>,
    /// Where the certificate of the encrypted channels comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateSource>,
    /// Handshakes may resume a session made before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumption: Option<bool>,
    /// Requests marked as safe to replay go out with the handshake (0-RTT).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zero_rtt: Option<bool>,
    /// Where conversations are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_at: Option<StateAt>,
    /// Sessions share one connection; else each has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multiplex: Option<bool>,
    /// Most tokens a second of each answer of the embedded model, where it is held to a pace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<NonZeroU32>,
    /// TCP holds small writes back (Nagle's algorithm), at both ends of the leg.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nagle: Option<bool>,
    /// Who stamps what the load generator receives, and what the proxy receives of its upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stamp: Option<StampSource>,
    /// The emulated link that the rows' traffic went over, in the words of `--link`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Congestion control of the TCP channels, by the kernel's name; behind an emulated link that of the server's side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_congestion_control: Option<String>,
    /// The same of the client's side, where an emulated link gives it one of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_tcp_congestion_control: Option<String>,
    /// Congestion control of the channels on QUIC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quic_congestion_control: Option<String>,
}

impl Conditions {
    /// Nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_absent_and_reads_back_as_such() {
        assert_eq!(serde_json::to_string(&Conditions::default()).unwrap(), "{}");
        let nothing: Conditions = serde_json::from_str("{}").unwrap();
        assert!(nothing.is_empty());
        let newer = r#"{"tls":true,"what_a_later_version_adds":7}"#;
        let read: Conditions = serde_json::from_str(newer).unwrap();
        assert_eq!((read.tls, read.resumption), (Some(true), None));
    }

    #[test]
    fn conditions_survive_json_under_their_documented_names() {
        let conditions = Conditions {
            tls: Some(true),
            certificate: Some(CertificateSource::SelfSigned),
            resumption: Some(false),
            zero_rtt: Some(false),
            state_at: Some(StateAt::Proxy),
            multiplex: Some(false),
            tokens_per_second: NonZeroU32::new(100),
            nagle: Some(true),
            stamp: Some(StampSource::Kernel),
            link: Some("rtt=40ms".to_owned()),
            tcp_congestion_control: Some("cubic".to_owned()),
            client_tcp_congestion_control: Some("reno".to_owned()),
            quic_congestion_control: Some("cubic".to_owned()),
        };
        let json = serde_json::to_value(&conditions).unwrap();
        assert_eq!(json["certificate"], "self-signed");
        assert_eq!(json["state_at"], "proxy");
        assert_eq!(json["stamp"], "kernel");
        assert_eq!(json.as_object().unwrap().len(), 13);
        assert_eq!(
            serde_json::from_value::<Conditions>(json).unwrap(),
            conditions
        );
        assert_eq!("upstream".parse(), Ok(StateAt::Upstream));
        let error = "backend".parse::<StateAt>().unwrap_err().to_string();
        assert_eq!(
            error,
            "unknown place of state 'backend'; known: proxy, upstream"
        );
    }
}
