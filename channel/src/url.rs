//! The base URL of an OpenAI-compatible server, as people write it.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::tcp;

/// The base address of an OpenAI-compatible server: `http://host:port` or `https://host:port`, with or without a path such
/// as `/v1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    tls: bool,
    host: String,
    port: u16,
    /// What stands before `/v1`; empty or with a leading slash, never with a trailing one.
    prefix: String,
}

impl BaseUrl {
    /// The root of a server at `host:port`, in clear.
    pub fn of(host: impl Into<String>, port: u16) -> Self {
        Self {
            tls: false,
            host: host.into(),
            port,
            prefix: String::new(),
        }
    }

    /// The same place at another host.
    #[must_use]
    pub fn at_host(self, host: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            ..self
        }
    }

    /// The same place over TLS, or in clear.
    #[must_use]
    pub fn with_tls(self, tls: bool) -> Self {
        Self { tls, ..self }
    }

    /// Whether it begins with `https://`.
    pub fn is_tls(&self) -> bool {
        self.tls
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
    pub fn path<'a>(&self, path: &'a str) -> Cow<'a, str> {
        match self.prefix.is_empty() {
            true => Cow::Borrowed(path),
            false => Cow::Owned([&self.prefix, path].concat()),
        }
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.prefix)
    }
}

/// The text is no base URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is no base URL: {reason}; write it like http://127.0.0.1:8080")]
pub struct BadUrl {
    text: String,
    reason: &'static str,
}

impl FromStr for BaseUrl {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, BadUrl> {
        let bad = |reason| BadUrl {
            text: text.to_owned(),
            reason,
        };
        let (tls, rest) = match text.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("http://").unwrap_or(text)),
        };
        if rest.contains("://") {
            return Err(bad("its scheme is neither http nor https"));
        }
        if rest.contains(['@', '?', '#'])
            || rest.contains(|c: char| c.is_whitespace() || c.is_control())
        {
            return Err(bad("it has credentials, a query, a fragment or a space"));
        }
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => {
                let (host, after) = v6
                    .split_once(']')
                    .ok_or(bad("its bracket is never closed"))?;
                match after.strip_prefix(':') {
                    None if !after.is_empty() => return Err(bad("something follows its bracket")),
                    port => (host, port),
                }
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = match port {
            Some(port) => port.parse().ok().filter(|&port| port != 0),
            None => Some(if tls { 443 } else { 80 }),
        };
        if host.is_empty() {
            return Err(bad("it has no host"));
        }
        // Users give the base with and without the version; requests name it themselves.
        let path = path.trim_end_matches('/');
        let prefix = path.strip_suffix("/v1").unwrap_or(path);
        Ok(Self {
            tls,
            host: host.to_owned(),
            port: port.ok_or(bad("its port is no number from 1 to 65535"))?,
            prefix: prefix.trim_end_matches('/').to_owned(),
        })
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
            (
                "http://gateway/openai-v1",
                "http://gateway:80/openai-v1",
                "/openai-v1/v1/models",
            ),
            ("http://[::1]:9000", "http://[::1]:9000", "/v1/models"),
            (
                "https://api.example.com/v1",
                "https://api.example.com:443",
                "/v1/models",
            ),
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
            "http://a:0",
            "http://u@h:1",
            "http://[::1",
            "http://[::1]x",
            "http://a?b",
        ] {
            assert!(bad.parse::<BaseUrl>().is_err(), "{bad}");
        }
    }
}
