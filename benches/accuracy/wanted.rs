//! What the command line asks for.

use std::time::Duration;

use tokenlag_probes::{StampSource, Transport};

use crate::CELLS;
use crate::cell::{Cell, Way};

pub struct Wanted {
    pub cells: Vec<Cell>,
    pub ways: Vec<Way>,
    pub channels: Vec<Transport>,
    /// How the proxy dials the instrument.
    pub upstream: Transport,
    /// Who stamps what generator and proxy dialled for.
    pub stamp: StampSource,
    /// When no further cell begins; `None`: all do.
    pub limit: Option<Duration>,
    /// Whether AIPerf is to measure too.
    aiperf: Peer,
    /// What it counts tokens with.
    pub tokenizer: String,
}

/// Whether another tool measures the same cells.
enum Peer {
    /// Where its command is installed.
    IfInstalled,
    /// It must be there, by this name.
    Named(String),
    Never,
}

/// Its command.
const AIPERF: &str = "aiperf";

const CHANNELS: [Transport; 6] = [
    Transport::HttpCold,
    Transport::Http,
    Transport::Http2,
    Transport::Http3,
    Transport::Ws,
    Transport::Quic,
];

impl Wanted {
    /// Reads the words; the error says what they may be.
    pub fn read(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut wanted = Self {
            cells: Vec::new(),
            ways: Vec::new(),
            channels: Vec::new(),
            upstream: Transport::Http,
            stamp: StampSource::User,
            limit: None,
            aiperf: Peer::IfInstalled,
            tokenizer: "builtin".to_owned(),
        };
        for word in words {
            if wanted.take(&word).is_none() {
                return Err(format!(
                    "'{word}' is no cell (as in 64@1ms), no way (direct, proxy), no channel (http-cold, http, http2, http3, \
                     ws, quic), no upstream (as in upstream=http2), no stamp=kernel, no minutes=NUMBER and not --aiperf[=COMMAND], no-aiperf or tokenizer=DIRECTORY"
                ));
            }
        }
        fill(&mut wanted.cells, &CELLS);
        fill(&mut wanted.ways, &[Way::Direct, Way::Proxy]);
        fill(&mut wanted.channels, &CHANNELS);
        Ok(wanted)
    }

    /// What is measured, in this order.
    pub fn rows(&self) -> Vec<(Way, Cell, Transport)> {
        let mut rows = Vec::new();
        for &way in &self.ways {
            for &cell in &self.cells {
                let channels = self.channels.iter().filter(|channel| way.has(**channel));
                rows.extend(channels.map(|&channel| (way, cell, channel)));
            }
        }
        rows
    }

    /// AIPerf's command, where it is to measure too. It asks the backend itself, over HTTP/1.1.
    pub fn aiperf(&self) -> Option<String> {
        let alike = self.ways.contains(&Way::Direct) && self.channels.contains(&Transport::Http);
        match &self.aiperf {
            Peer::Named(command) => Some(command.clone()),
            Peer::IfInstalled if alike && is_on_the_path(AIPERF) => Some(AIPERF.to_owned()),
            Peer::IfInstalled | Peer::Never => None,
        }
    }

    fn take(&mut self, word: &str) -> Option<()> {
        if let Some(name) = word.strip_prefix("upstream=") {
            self.upstream = channel(name)?;
        } else if let Some(name) = word.strip_prefix("stamp=") {
            self.stamp = match name {
                "user" => StampSource::User,
                "kernel" => StampSource::Kernel,
                _ => return None,
            };
        } else if let Some(minutes) = word.strip_prefix("minutes=") {
            self.limit = Some(Duration::from_secs(60) * minutes.parse::<u16>().ok()?.into());
        } else if let Some(folder) = word.strip_prefix("tokenizer=") {
            self.tokenizer = folder.to_owned();
        } else if let Some(rest) = word.strip_prefix("--aiperf") {
            self.aiperf = Peer::Named(match rest {
                "" => AIPERF.to_owned(),
                command => command.strip_prefix('=')?.to_owned(),
            });
        } else if word == "no-aiperf" {
            self.aiperf = Peer::Never;
        } else if let Some((streams, gap)) = word.split_once('@') {
            let millis = gap.strip_suffix("ms")?.parse().ok()?;
            let streams = streams
                .parse()
                .ok()
                .filter(|count| (1..=2_000).contains(count))?;
            let gap = Duration::from_millis(millis);
            let known = CELLS
                .iter()
                .find(|cell| cell.streams == streams && cell.gap == gap);
            let other = Cell::new(
                streams,
                millis,
                (1_200 / millis.max(1)).clamp(20, 300) as u32,
                2,
                3,
            );
            self.cells.push(known.copied().unwrap_or(other));
        } else {
            match word {
                "direct" => self.ways.push(Way::Direct),
                "proxy" => self.ways.push(Way::Proxy),
                name => self.channels.push(channel(name)?),
            }
        }
        Some(())
    }
}

fn is_on_the_path(command: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(command).is_file())
}

fn channel(name: &str) -> Option<Transport> {
    CHANNELS
        .into_iter()
        .find(|channel| channel.to_string() == name)
}

fn fill<T: Copy>(list: &mut Vec<T>, usual: &[T]) {
    if list.is_empty() {
        list.extend_from_slice(usual);
    }
}
