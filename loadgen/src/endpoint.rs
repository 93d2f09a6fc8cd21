//! Where requests go: a base URL, and what it makes of a channel's dial.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tokenlag_channel::{Dial, tcp};
use tokenlag_dialect::Dialect;

/// The base address of an OpenAI-compatible server: `http://host:port`, with or without a path such as `/v1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    host: String,
    port: u16,
    /// What stands before `/v1`; empty or with a leading slash, never with a trailing one.
    prefix: String,
}

impl BaseUrl {
    /// The root of a server at `host:port`.
    pub fn of(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            prefix: String::new(),
        }
    }

    /// The same place at another host.
    pub fn at_host(self, host: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            ..self
        }
    }

    /// Host name or address, without the brackets of IPv6.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The `Host` field's value.
    pub fn authority(&self) -> String {
        tcp::authority(&self.host, self.port)
    }

    /// The path at which `path` (as in `/v1/models`) is found.
    pub fn path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.prefix)
    }
}

/// The text is no base URL that can be driven.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// Another scheme than `http`.
    #[error(
        "'{0}': https is not spoken yet; give an http:// address, or put a TLS-terminating proxy between"
    )]
    Https(String),
    /// No `http://` URL.
    #[error("'{0}' is no address; write it like http://127.0.0.1:8080")]
    Malformed(String),
}

impl FromStr for BaseUrl {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, BadUrl> {
        if text.starts_with("https://") {
            return Err(BadUrl::Https(text.to_owned()));
        }
        let malformed = || BadUrl::Malformed(text.to_owned());
        let rest = text.strip_prefix("http://").unwrap_or(text);
        if rest.contains("://") || rest.contains(['@', '?', '#', ' ']) {
            return Err(malformed());
        }
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => {
                let (host, after) = v6.split_once(']').ok_or_else(malformed)?;
                (host, after.strip_prefix(':'))
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = match port {
            Some(port) => port.parse().map_err(|_| malformed())?,
            None => 80,
        };
        if host.is_empty() {
            return Err(malformed());
        }
        // Users give the base with and without the version; requests name it themselves.
        let path = path.trim_end_matches('/');
        let prefix = path.strip_suffix("/v1").unwrap_or(path);
        Ok(Self {
            host: host.to_owned(),
            port,
            prefix: prefix.to_owned(),
        })
    }
}

/// How long to wait for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Name, connection and handshake together.
    pub connect: Duration,
    /// A whole exchange; a reply may be silent for as long.
    pub exchange: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            exchange: Duration::from_secs(300),
        }
    }
}

/// One row's other end.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Where to dial, and how.
    pub dial: Dial,
    /// Path of the requests.
    pub path: String,
    /// The `Host` that they name.
    pub authority: String,
}

impl Endpoint {
    /// `dialect`'s endpoint at `base`, with `headers` (authorization, and what the user gave) on every request.
    pub fn new(
        base: &BaseUrl,
        dialect: Dialect,
        headers: Vec<(String, String)>,
        limits: Limits,
    ) -> Self {
        let path = base.path(dialect.path());
        Self {
            dial: Dial {
                host: base.host.clone(),
                port: base.port,
                path: path.clone(),
                headers,
                connect_timeout: limits.connect,
                idle_timeout: limits.exchange,
                trust: None,
            },
            path,
            authority: base.authority(),
        }
    }

    /// The same, dialling another port of the same host and trusting a certificate: how `quic` differs.
    pub fn over_quic(mut self, host: String, port: u16, trust: Option<Vec<u8>>) -> Self {
        self.dial.host = host;
        self.dial.port = port;
        self.dial.trust = trust;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_people_write_them() {
        for (text, canonical, models) in [
            (
                "http://127.0.0.1:8080",
                "http://127.0.0.1:8080",
                "/v1/models",
            ),
            (
                "http://127.0.0.1:8080/",
                "http://127.0.0.1:8080",
                "/v1/models",
            ),
            (
                "http://127.0.0.1:8080/v1/",
                "http://127.0.0.1:8080",
                "/v1/models",
            ),
            ("127.0.0.1:8080", "http://127.0.0.1:8080", "/v1/models"),
            (
                "http://gateway/openai/v1",
                "http://gateway:80/openai",
                "/openai/v1/models",
            ),
            ("http://[::1]:9000", "http://[::1]:9000", "/v1/models"),
        ] {
            let base: BaseUrl = text.parse().unwrap();
            assert_eq!(base.to_string(), canonical, "{text}");
            assert_eq!(base.path("/v1/models"), models, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_says_so() {
        for bad in [
            "",
            "http://",
            "ftp://a",
            "http://a:b",
            "http://u@h:1",
            "http://[::1",
        ] {
            assert!(
                matches!(bad.parse::<BaseUrl>(), Err(BadUrl::Malformed(_))),
                "{bad}"
            );
        }
        assert!(matches!(
            "https://a".parse::<BaseUrl>(),
            Err(BadUrl::Https(_))
        ));
    }
}
