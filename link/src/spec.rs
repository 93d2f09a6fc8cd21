//! A link's parameters: read from `rtt=40ms,rate=100mbit`, from a named link or from a file, and checked.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use toml::{Table, Value};

use crate::LinkError;
use crate::loss::Loss;
use crate::named;
use crate::units::{self, show_rate, show_size, show_span};

/// MTU of Ethernet, and of nearly every way through the internet.
pub const MTU: u16 = 1_500;
/// The smallest MTU that IPv6 allows (RFC 8200, section 5).
const SMALLEST_MTU: u16 = 1_280;
/// A queue holds at least so many bytes.
const SMALLEST_QUEUE: u64 = 64 * 1024;
/// A queue that nobody sized holds what the line carries in a round trip, or in so much time where that is longer.
const SHORTEST_QUEUE: Duration = Duration::from_millis(20);

/// Keys of both directions at once; with `up-` or `down-` before them they are of one.
const WAY_KEYS: [&str; 5] = ["delay", "jitter", "rate", "loss", "queue"];
/// Keys of the link as a whole.
const LINK_KEYS: [&str; 7] = [
    "rtt",
    "reorder",
    "seed",
    "mtu",
    "cc",
    "initcwnd",
    "idle-restart",
];

/// One direction's parameters.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Way {
    /// The least time that a packet is on its way, after its last bit left the queue.
    pub delay: Duration,
    /// How much longer it may take: drawn for each packet, evenly from nothing to so much.
    pub jitter: Duration,
    /// Bits per second, IP headers included; `None`: a packet takes no time to be sent.
    pub rate: Option<u64>,
    /// How packets are lost.
    pub loss: Loss,
    /// Bytes that may wait before the line; `None`: by rate and round trip.
    pub queue: Option<u64>,
}

impl Default for Way {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            rate: None,
            loss: Loss::NONE,
            queue: None,
        }
    }
}

/// A link's parameters.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LinkSpec {
    /// From the client to the server.
    pub up: Way,
    /// From the server to the client.
    pub down: Way,
    /// Whether jitter may make packets overtake one another.
    pub reorder: bool,
    /// The seed of jitter and loss.
    pub seed: u64,
    /// The largest IP packet, in bytes.
    pub mtu: u16,
    /// TCP's congestion control on both sides, by the kernel's name; `None`: the system's default.
    pub cc: Option<String>,
    /// Segments that a new TCP connection may send before the first acknowledgement, on both sides; `None`: the kernel's, which
    /// is 10 (RFC 6928).
    pub initcwnd: Option<u16>,
    /// Whether TCP's congestion window shrinks again while a connection is idle (RFC 5681, section 4.1), on both sides;
    /// `None`: as the kernel has it in a new namespace, which is that it does.
    pub idle_restart: Option<bool>,
}

impl Default for LinkSpec {
    fn default() -> Self {
        Self {
            up: Way::default(),
            down: Way::default(),
            reorder: false,
            seed: 1,
            mtu: MTU,
            cc: None,
            initcwnd: None,
            idle_restart: None,
        }
    }
}

impl LinkSpec {
    /// Reads `NAME`, `FILE.toml`, `key=value,...`, or a name or a file with keys after it that change it.
    ///
    /// # Errors
    /// No such name, a file that cannot be read, or a key or value that makes no sense.
    pub fn parse(text: &str) -> Result<Self, LinkError> {
        let wrong = |reason: String| LinkError::Spec {
            given: text.to_owned(),
            reason,
        };
        let mut items: Vec<&str> = text.split(',').map(str::trim).collect();
        let mut spec = Self::default();
        if let Some(first) = items.first().copied().filter(|item| !item.contains('=')) {
            spec = match first {
                "" => return Err(wrong("it is empty".to_owned())),
                file if file.ends_with(".toml") => Self::read(Path::new(file))?,
                name => named::find(name).ok_or_else(|| wrong(named::unknown(name)))?,
            };
            items.remove(0);
        }
        let mut settings = Vec::new();
        for item in items {
            let setting = item
                .split_once('=')
                .ok_or_else(|| wrong(format!("'{item}' is no key=value")))?;
            settings.push((setting.0.trim().to_owned(), setting.1.trim().to_owned()));
        }
        spec.change(&settings).map_err(wrong)?;
        Ok(spec)
    }

    /// Changes what `settings` name, and checks the whole.
    ///
    /// # Errors
    /// A key that no link has, one that is there twice, a value that makes no sense: says which, and what to write.
    pub fn change(&mut self, settings: &[(String, String)]) -> Result<(), String> {
        for (at, (key, _)) in settings.iter().enumerate() {
            if !is_key(key) {
                return Err(format!("no link has '{key}'; known: {}", keys().join(", ")));
            }
            if settings[..at].iter().any(|(earlier, _)| earlier == key) {
                return Err(format!("{key} is there twice"));
            }
        }
        let has = |name: &str| settings.iter().any(|(key, _)| key == name);
        if has("rtt") && has("delay") {
            return Err("rtt is twice the delay: give one of them".to_owned());
        }
        // What is said of one direction goes before what is said of both, wherever it stands.
        let of_one = |key: &str| key.starts_with("up-") || key.starts_with("down-");
        let (one, both): (Vec<_>, Vec<_>) = settings.iter().partition(|(key, _)| of_one(key));
        for (key, value) in both.into_iter().chain(one) {
            self.set(key, value)
                .map_err(|reason| format!("{key}: {reason}"))?;
        }
        self.check()
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        if let Some(key) = key.strip_prefix("up-") {
            return self.up.set(key, value);
        }
        if let Some(key) = key.strip_prefix("down-") {
            return self.down.set(key, value);
        }
        match key {
            "rtt" => {
                let rtt = units::span(value)?;
                self.up.delay = rtt / 2;
                self.down.delay = rtt - rtt / 2;
            }
            "reorder" => {
                let given = value.parse();
                self.reorder = given.map_err(|_| "write true or false".to_owned())?;
            }
            "seed" => {
                let given = value.parse();
                self.seed = given.map_err(|_| "write a whole number".to_owned())?;
            }
            "mtu" => {
                let given = value.parse().ok().filter(|mtu| *mtu >= SMALLEST_MTU);
                self.mtu = given.ok_or_else(|| format!("write {SMALLEST_MTU} to 65535 bytes"))?;
            }
            "cc" => {
                // The kernel's names are shorter than 16 bytes (TCP_CA_NAME_MAX).
                let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                if value.is_empty() || value.len() > 15 || !value.chars().all(is_name) {
                    return Err("write a name that the kernel knows, as in reno".to_owned());
                }
                self.cc = Some(value.to_owned());
            }
            "initcwnd" => {
                let given = value.parse().ok().filter(|segments| *segments > 0);
                let refused = || "write 1 to 65535 segments".to_owned();
                self.initcwnd = Some(given.ok_or_else(refused)?);
            }
            "idle-restart" => {
                self.idle_restart = match value {
                    "on" | "true" => Some(true),
                    "off" | "false" => Some(false),
                    _ => return Err("write on or off".to_owned()),
                }
            }
            key => {
                self.up.set(key, value)?;
                self.down.set(key, value)?;
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        for way in [&self.up, &self.down] {
            if way.queue.is_some_and(|bytes| bytes < self.mtu.into()) {
                return Err(format!(
                    "queue: a packet of {} bytes must fit into it",
                    self.mtu
                ));
            }
        }
        Ok(())
    }

    /// Reads a link from a file with a key for each parameter.
    ///
    /// # Errors
    /// It cannot be read, is no TOML, or a key or value makes no sense.
    pub fn read(path: &Path) -> Result<Self, LinkError> {
        let wrong = |reason: String| LinkError::Spec {
            given: path.display().to_string(),
            reason,
        };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        Self::of_toml(&text).map_err(wrong)
    }

    pub(crate) fn of_toml(text: &str) -> Result<Self, String> {
        let table: Table = text
            .parse()
            .map_err(|error| format!("it is no TOML: {error}"))?;
        let mut settings = Vec::new();
        for (key, value) in table {
            let value = match value {
                Value::String(text) => text,
                Value::Integer(number) => number.to_string(),
                Value::Float(number) => number.to_string(),
                Value::Boolean(on) => on.to_string(),
                _ => return Err(format!("{key}: write text, a number, true or false")),
            };
            settings.push((key, value));
        }
        let mut spec = Self::default();
        spec.change(&settings)?;
        Ok(spec)
    }

    /// The least round trip: what physics leaves.
    pub fn rtt(&self) -> Duration {
        self.up.delay + self.down.delay
    }

    /// Bytes that may wait before the line of `way`.
    pub fn queue_of(&self, way: &Way) -> u64 {
        let span = self.rtt().max(SHORTEST_QUEUE);
        let by_rate = way
            .rate
            .map(|rate| (u128::from(rate) * span.as_nanos() / 8_000_000_000) as u64);
        way.queue
            .or(by_rate.map(|bytes| bytes.clamp(SMALLEST_QUEUE, units::LARGEST)))
            .unwrap_or(SMALLEST_QUEUE)
    }
}

impl Way {
    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "delay" => self.delay = units::span(value)?,
            "jitter" => self.jitter = units::span(value)?,
            "rate" => self.rate = units::rate(value)?,
            "loss" => self.loss = Loss::parse(value)?,
            "queue" => self.queue = Some(units::size(value)?),
            _ => return Err("no link has it".to_owned()),
        }
        Ok(())
    }
}

fn is_key(key: &str) -> bool {
    let one = key.strip_prefix("up-").or(key.strip_prefix("down-"));
    one.map_or(LINK_KEYS.contains(&key) || WAY_KEYS.contains(&key), |key| {
        WAY_KEYS.contains(&key)
    })
}

fn keys() -> Vec<String> {
    let link = LINK_KEYS.iter().map(|key| (*key).to_owned());
    let ways = ["", "up-", "down-"]
        .into_iter()
        .flat_map(|prefix| WAY_KEYS.map(|key| format!("{prefix}{key}")));
    link.chain(ways).collect()
}

/// Every parameter, in the words that [`LinkSpec::parse`] reads.
impl fmt::Display for LinkSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |prefix: &str, way: &Way| {
            let mut words = vec![
                format!("{prefix}delay={}", show_span(way.delay)),
                format!("{prefix}jitter={}", show_span(way.jitter)),
                format!("{prefix}rate={}", show_rate(way.rate)),
                format!("{prefix}loss={}", way.loss),
            ];
            if way.rate.is_some() {
                words.push(format!("{prefix}queue={}", show_size(self.queue_of(way))));
            }
            words
        };
        let mut words = match show("", &self.up) {
            both if both == show("", &self.down) => both,
            _ => [show("up-", &self.up), show("down-", &self.down)].concat(),
        };
        words.push(format!("reorder={}", self.reorder));
        words.push(format!("seed={}", self.seed));
        words.push(format!("mtu={}", self.mtu));
        if let Some(name) = &self.cc {
            words.push(format!("cc={name}"));
        }
        if let Some(segments) = self.initcwnd {
            words.push(format!("initcwnd={segments}"));
        }
        if let Some(on) = self.idle_restart {
            words.push(format!("idle-restart={}", if on { "on" } else { "off" }));
        }
        f.write_str(&words.join(","))
    }
}

#[cfg(test)]
mod tests;
