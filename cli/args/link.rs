//! Flags of `link`, and those by which other commands put a leg behind a link.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;
use tokenlag_link::Forward;

use super::values::Output;

/// How a link is emulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// What there is: tun
    #[default]
    Auto,
    /// Two TUN devices and a relay of this program's own between them
    Tun,
    /// The kernel's network emulator: not driven by this program, an error that says so
    Netem,
}

/// By which `compare` and `load` put the leg from the load generator behind a link.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Link")]
pub struct LinkedArgs {
    /// Put the way from the load generator to the proxy (load: to the URL) behind an emulated link: lan, metro, cross-country,
    /// transatlantic, wifi-lossy, lte, loopback (none), a FILE.toml, or parameters as in rtt=40ms,rate=100mbit,loss=0.1%; see
    /// `tokenlag link --help`
    #[arg(long, value_name = "LINK")]
    pub link: Option<String>,
    /// How it is emulated
    #[arg(long, value_name = "WAY", value_enum, default_value_t)]
    pub link_via: Via,
}

/// Flags of `link`.
#[derive(Debug, Args)]
pub struct LinkArgs {
    /// A link to begin with: lan, metro, cross-country, transatlantic, wifi-lossy, lte, loopback, a FILE.toml, or parameters
    /// as in rtt=40ms,rate=100mbit; the flags below change it
    #[arg(long, value_name = "LINK")]
    pub link: Option<String>,
    /// What it is like.
    #[command(flatten)]
    pub ways: WayArgs,
    /// Carry what reaches this port of the server's side on to the host, TCP and UDP: PORT for the same port of 127.0.0.1, or
    /// PORT=HOST:PORT; may be repeated
    #[arg(long, value_name = "PORT[=HOST:PORT]", value_delimiter = ',')]
    pub forward: Vec<Forward>,
    /// How it is emulated
    #[arg(long, value_name = "WAY", value_enum, default_value_t)]
    pub link_via: Via,
    /// Measure the emulation itself, and print what was asked beside what was found; without a link, of three that differ
    #[arg(long, conflicts_with = "forward")]
    pub check: bool,
    /// Print the file of a named link, to copy and to change
    #[arg(long, value_name = "NAME", conflicts_with_all = ["check", "forward"])]
    pub show: Option<String>,
    /// What goes to standard output with --check
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
    /// A file with a key for each flag; flags override it
    #[arg(long, value_name = "FILE.toml")]
    pub plan: Option<PathBuf>,
    /// Become the command, and end when this process does
    #[arg(long, hide = true, value_name = "PID")]
    pub die_with_parent: Option<i32>,
    /// What to run on the client's side, and its arguments, after --
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// A link's parameters as flags: each is the text of the key of its name.
#[derive(Debug, Args)]
#[command(next_help_heading = "Parameters, in both directions or in one (up: from the client)")]
pub struct WayArgs {
    /// The least round trip, as in 40ms: half of it each way
    #[arg(long, value_name = "SPAN", conflicts_with = "delay")]
    pub rtt: Option<String>,
    /// The least time one way
    #[arg(long, value_name = "SPAN")]
    pub delay: Option<String>,
    /// How much longer a packet may take, each way: drawn evenly from nothing to so much
    #[arg(long, value_name = "SPAN")]
    pub jitter: Option<String>,
    /// Bits per second, as in 100mbit, or unlimited
    #[arg(long, value_name = "RATE")]
    pub rate: Option<String>,
    /// The share of packets that is lost, as in 0.1%, or bursts as in ge:P/R[/BAD[/GOOD]] (Gilbert-Elliott)
    #[arg(long, value_name = "LOSS")]
    pub loss: Option<String>,
    /// Bytes that may wait before the line, as in 256kb; the tail is dropped [default: a round trip at the rate, at least 20ms
    /// of it and 64kib]
    #[arg(long, value_name = "SIZE")]
    pub queue: Option<String>,
    /// As --delay, one way
    #[arg(long, value_name = "SPAN")]
    pub up_delay: Option<String>,
    /// As --jitter, one way
    #[arg(long, value_name = "SPAN")]
    pub up_jitter: Option<String>,
    /// As --rate, one way
    #[arg(long, value_name = "RATE")]
    pub up_rate: Option<String>,
    /// As --loss, one way
    #[arg(long, value_name = "LOSS")]
    pub up_loss: Option<String>,
    /// As --queue, one way
    #[arg(long, value_name = "SIZE")]
    pub up_queue: Option<String>,
    /// As --delay, the other way
    #[arg(long, value_name = "SPAN")]
    pub down_delay: Option<String>,
    /// As --jitter, the other way
    #[arg(long, value_name = "SPAN")]
    pub down_jitter: Option<String>,
    /// As --rate, the other way
    #[arg(long, value_name = "RATE")]
    pub down_rate: Option<String>,
    /// As --loss, the other way
    #[arg(long, value_name = "LOSS")]
    pub down_loss: Option<String>,
    /// As --queue, the other way
    #[arg(long, value_name = "SIZE")]
    pub down_queue: Option<String>,
    /// Let jitter make packets overtake one another
    #[arg(long)]
    pub reorder: bool,
    /// The seed of jitter and loss [default: 1]
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<String>,
    /// The largest IP packet, in bytes [default: 1500]
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<String>,
    /// TCP's congestion control on both sides, by the kernel's name [default: the system's]
    #[arg(long, value_name = "NAME")]
    pub cc: Option<String>,
    /// Segments that a new TCP connection may send before the first acknowledgement, on both sides [default: the kernel's 10]
    #[arg(long, value_name = "SEGMENTS")]
    pub initcwnd: Option<String>,
    /// Whether TCP's congestion window shrinks while a connection is idle, on both sides: on or off [default: on]
    #[arg(long, value_name = "SWITCH")]
    pub idle_restart: Option<String>,
}

impl WayArgs {
    /// Those that were given, as a link's keys and values.
    pub fn settings(&self) -> Vec<(String, String)> {
        let given = [
            ("rtt", &self.rtt),
            ("delay", &self.delay),
            ("jitter", &self.jitter),
            ("rate", &self.rate),
            ("loss", &self.loss),
            ("queue", &self.queue),
            ("up-delay", &self.up_delay),
            ("up-jitter", &self.up_jitter),
            ("up-rate", &self.up_rate),
            ("up-loss", &self.up_loss),
            ("up-queue", &self.up_queue),
            ("down-delay", &self.down_delay),
            ("down-jitter", &self.down_jitter),
            ("down-rate", &self.down_rate),
            ("down-loss", &self.down_loss),
            ("down-queue", &self.down_queue),
            ("seed", &self.seed),
            ("mtu", &self.mtu),
            ("cc", &self.cc),
            ("initcwnd", &self.initcwnd),
            ("idle-restart", &self.idle_restart),
        ];
        let reorder = self.reorder.then(|| ("reorder", "true".to_owned()));
        given
            .into_iter()
            .filter_map(|(key, value)| Some((key, value.clone()?)))
            .chain(reorder)
            .map(|(key, value)| (key.to_owned(), value))
            .collect()
    }
}
