//! The upstream: where it is, and the warm connections to it that one thread keeps.

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tokenlag_channel::http::Connection;
use tokenlag_channel::{ChannelError, Dial, tcp};
use tokenlag_probes::{Clock, MonoClock, Stamp};

/// Idle connections that a thread keeps; more are closed as they come back.
const IDLE_CONNECTIONS: usize = 1024;

/// The address of an OpenAI-compatible HTTP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    host: String,
    port: u16,
    prefix: String,
}

/// A URL that is no upstream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{url}' is no upstream: {reason}; give one like http://127.0.0.1:8080")]
pub struct BadUpstream {
    url: String,
    reason: &'static str,
}

impl FromStr for Upstream {
    type Err = BadUpstream;

    fn from_str(url: &str) -> Result<Self, BadUpstream> {
        let bad = |reason| BadUpstream {
            url: url.to_owned(),
            reason,
        };
        if url.starts_with("https://") {
            return Err(bad("TLS to the upstream is not supported yet"));
        }
        let rest = url
            .strip_prefix("http://")
            .ok_or(bad("it does not begin with http://"))?;
        if rest.contains(['?', '#', '@']) || rest.contains(char::is_whitespace) {
            return Err(bad("it has a query, a fragment, credentials or a space"));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let port = port.parse().ok().filter(|&port| port != 0);
                (
                    host,
                    port.ok_or(bad("its port is no number from 1 to 65535"))?,
                )
            }
            _ => (authority, 80),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(bad("it has no host"));
        }
        // Clients' paths begin with /v1 already; a base URL as clients write it names the same place.
        let path = path.trim_end_matches('/');
        let path = match path.strip_suffix("v1") {
            Some(rest) if rest.is_empty() || rest.ends_with('/') => rest.trim_end_matches('/'),
            _ => path,
        };
        let prefix = if path.is_empty() {
            String::new()
        } else {
            format!("/{path}")
        };
        Ok(Self {
            host: host.to_owned(),
            port,
            prefix,
        })
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.prefix)
    }
}

impl Upstream {
    /// Host and port as a `Host` field has them.
    pub fn authority(&self) -> String {
        tcp::authority(&self.host, self.port)
    }

    /// The upstream's target for a client's.
    pub(crate) fn target(&self, target: &str) -> String {
        format!("{}{target}", self.prefix)
    }
}

/// How patient the proxy is with the upstream.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long name and connection may take together.
    pub connect: Duration,
    /// How long a reply may stay silent. There is no limit on its whole length.
    pub idle: Duration,
}

/// Whether an exchange failed on a connection that the upstream closed as idle just as it was taken: it can be repeated.
pub(crate) fn was_stale(anew: bool, error: &ChannelError, up_written: Option<Stamp>) -> bool {
    // Where nothing was written, nothing can have been worked on.
    let since = up_written.unwrap_or(MonoClock.now());
    !anew && error.is_stale(since)
}

/// Warm connections of one thread.
#[derive(Debug)]
pub(crate) struct Pool {
    dial: Dial,
    idle: RefCell<Vec<Connection>>,
}

impl Pool {
    pub(crate) fn new(upstream: &Upstream, patience: Patience) -> Self {
        Self {
            dial: Dial {
                host: upstream.host.clone(),
                port: upstream.port,
                path: String::new(),
                headers: Vec::new(),
                connect_timeout: patience.connect,
                idle_timeout: patience.idle,
                trust: None,
            },
            idle: RefCell::new(Vec::new()),
        }
    }

    /// A connection, the warmest first, and whether it was made anew.
    pub(crate) async fn take(&self) -> Result<(Connection, bool), ChannelError> {
        while let Some(mut connection) = self.pop() {
            if connection.is_fresh() {
                return Ok((connection, false));
            }
        }
        Ok((self.dial().await?, true))
    }

    /// A connection that nobody used yet.
    pub(crate) async fn dial(&self) -> Result<Connection, ChannelError> {
        let (connection, ..) = Connection::dial(&self.dial).await?;
        Ok(connection)
    }

    /// Gives a connection back whose exchange is over.
    pub(crate) fn put(&self, connection: Connection) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE_CONNECTIONS {
            idle.push(connection);
        }
    }

    pub(crate) fn idle_timeout(&self) -> Duration {
        self.dial.idle_timeout
    }

    fn pop(&self) -> Option<Connection> {
        self.idle.borrow_mut().pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_as_people_write_them() {
        for (url, shown) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("http://127.0.0.1:8080/v1", "http://127.0.0.1:8080"),
            ("http://127.0.0.1:8080/v1/", "http://127.0.0.1:8080"),
            ("http://model/base/v1", "http://model:80/base"),
            ("http://model/openai-v1", "http://model:80/openai-v1"),
            ("http://[::1]:9", "http://[::1]:9"),
        ] {
            assert_eq!(url.parse::<Upstream>().unwrap().to_string(), shown, "{url}");
        }
    }

    #[test]
    fn what_is_no_upstream() {
        for url in [
            "",
            "127.0.0.1:80",
            "http://",
            "http://a:0",
            "http://a:x",
            "http://a?b",
            "https://a",
        ] {
            assert!(url.parse::<Upstream>().is_err(), "{url}");
        }
    }
}
