//! What our channels add to the libraries under them:
//! `cargo bench --bench echo [-- CHANNEL... [one|two] [ours|bare [ROUND_TRIPS]]]`.
//!
//! For each channel, round trips of a small echo through our two ends and through the bare library's, in one process
//! over loopback. Printed is how much longer ours take, with a 95 % interval.
//!
//! A virtual machine changes its speed every few milliseconds. So the two sides take short turns in pairs of random order:
//! most pairs lie within one mood of the machine, and tell the ratio of the two turns' medians. Those that do not are far off
//! on either side, and are trimmed away: of each group of pairs the mean of the middle half counts, on the log scale. The
//! figure is the mean over the groups, and the interval is a bootstrap-t over them, so that what drifts from group to group
//! widens it.
//!
//! With two threads client and server have one each, as they have wherever they serve: that is the round trip. With one
//! thread nobody waits to be woken: what is left is the CPU of both ends and the kernel's, and the ratio is that of work.
//!
//! Both sides do the same job: they send the same fields and bodies (over a bare WebSocket or bare QUIC, as many bytes as ours),
//! announce the same windows, serve each exchange in a task of its own where several may run at once, and take the whole
//! body before they answer. What only our side does is what the channels are for: stamps, counters, limits of time and
//! size, requests and replies in a form that every channel has.
//!
//! With `ours` or `bare` one side runs alone, on one thread, for a profiler.

mod bare;
mod ours;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokenlag_probes::bootstrap::estimate;
use tokenlag_probes::{Clock, MonoClock, TraceId, Transport};
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};

/// Groups of pairs; the interval is over them.
const GROUPS: usize = 60;
/// Pairs of a group: a turn of each side, one right after the other.
const PAIRS: usize = 20;
/// Round trips of a turn: few, so that both of a pair nearly always meet the machine in one mood.
const ROUND_TRIPS: usize = 50;
/// Round trips before the first turn.
const WARM_UP: usize = 500;
/// What is sent and comes back: a JSON object, since the WebSocket channel carries nothing else.
const PAYLOAD: &[u8] = br#"{"model":"echo","input":"sixty-four bytes of question, and back"}"#;

/// Every request's name.
fn trace() -> TraceId {
    TraceId::from_bits(1)
}

/// A client and its server, connected.
trait Echo {
    /// Sends the payload and waits until it is back, whole.
    async fn round_trip(&mut self);
}

/// Where a server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Threads {
    /// On the client's thread.
    One,
    /// On a thread of its own.
    Two,
}

impl Threads {
    /// Starts a server, which says where it is once it is bound.
    async fn serve<S>(
        self,
        server: impl FnOnce(oneshot::Sender<SocketAddr>) -> S + Send + 'static,
    ) -> SocketAddr
    where
        S: Future<Output = ()> + 'static,
    {
        let (bound, address) = oneshot::channel();
        match self {
            Self::One => drop(spawn_local(server(bound))),
            Self::Two => drop(std::thread::spawn(|| {
                on_one_thread(async { server(bound).await })
            })),
        }
        address.await.expect("the server is bound")
    }
}

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let wanted = Wanted::read(&words).unwrap_or_else(|unknown| {
        eprintln!("'{unknown}' is no channel, no number of threads (one, two), no side (ours, bare) and no number of round trips");
        std::process::exit(2);
    });
    println!("echo of {} bytes over loopback", PAYLOAD.len());
    match wanted.side {
        None => println!(
            "{:<8} {:>7} {:>9} {:>9} {:>7}  95 % interval",
            "channel", "threads", "ours us", "bare us", "ratio"
        ),
        Some(_) => println!("{:<8} {:>9}", "channel", "us"),
    }
    for threads in [Threads::Two, Threads::One] {
        let http = (
            ours::over_tcp(Transport::Http, threads),
            bare::hyper(threads),
        );
        wanted.run("http", threads, http.0, http.1);
        let http2 = (ours::over_tcp(Transport::Http2, threads), bare::h2(threads));
        wanted.run("http2", threads, http2.0, http2.1);
        let http3 = (ours::over_udp(Transport::Http3, threads), bare::h3(threads));
        wanted.run("http3", threads, http3.0, http3.1);
        let length = ours::request(Transport::Ws).len();
        let bare = bare::tungstenite(length, threads);
        let ws = (ours::over_tcp(Transport::Ws, threads), bare);
        wanted.run("ws", threads, ws.0, ws.1);
        let lengths = (ours::request(Transport::Quic).len(), ours::quic_reply());
        let bare = bare::quinn(lengths.0, lengths.1, threads);
        let quic = (ours::over_udp(Transport::Quic, threads), bare);
        wanted.run("quic", threads, quic.0, quic.1);
    }
}

/// What the command line asks for.
#[derive(Debug, Default)]
struct Wanted {
    /// None: all.
    channels: Vec<String>,
    /// None: both.
    threads: Option<Threads>,
    /// One side alone, for a profiler.
    side: Option<Side>,
    /// Round trips of one side alone.
    round_trips: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Ours,
    Bare,
}

impl Wanted {
    fn read(words: &[String]) -> Result<Self, &str> {
        let mut wanted = Self::default();
        for word in words {
            match word.as_str() {
                "ours" => wanted.side = Some(Side::Ours),
                "bare" => wanted.side = Some(Side::Bare),
                "one" => wanted.threads = Some(Threads::One),
                "two" => wanted.threads = Some(Threads::Two),
                "http" | "http2" | "http3" | "ws" | "quic" => wanted.channels.push(word.clone()),
                number => wanted.round_trips = Some(number.parse().map_err(|_| number)?),
            }
        }
        if wanted.side.is_some() {
            wanted.threads = Some(Threads::One);
        }
        Ok(wanted)
    }

    fn run(
        &self,
        name: &str,
        threads: Threads,
        ours: impl Future<Output: Echo>,
        bare: impl Future<Output: Echo>,
    ) {
        let is_channel =
            self.channels.is_empty() || self.channels.iter().any(|known| known == name);
        if !is_channel || self.threads.is_some_and(|wanted| wanted != threads) {
            return;
        }
        let round_trips = self.round_trips.unwrap_or(GROUPS * PAIRS * ROUND_TRIPS);
        on_one_thread(async {
            match self.side {
                None => compare(name, threads, ours.await, bare.await).await,
                Some(Side::Ours) => alone(name, ours.await, round_trips).await,
                Some(Side::Bare) => alone(name, bare.await, round_trips).await,
            }
        });
    }
}

fn on_one_thread(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be made");
    let local = LocalSet::new();
    // A runtime with any timer asks the clock whenever it waits: both sides are to have that, as every process does that
    // gives up on peers.
    let far = local.spawn_local(async { tokio::time::sleep(Duration::from_secs(3600)).await });
    local.block_on(&runtime, work);
    far.abort();
}

async fn compare(name: &str, threads: Threads, mut ours: impl Echo, mut bare: impl Echo) {
    for _ in 0..WARM_UP {
        ours.round_trip().await;
        bare.round_trip().await;
    }
    let mut order = Order(0x9E37_79B9_7F4A_7C15);
    let (mut ratios, mut of_ours, mut of_bare) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..GROUPS * PAIRS {
        let (mine, theirs) = if order.heads() {
            let mine = turn(&mut ours, ROUND_TRIPS).await;
            (mine, turn(&mut bare, ROUND_TRIPS).await)
        } else {
            let theirs = turn(&mut bare, ROUND_TRIPS).await;
            (turn(&mut ours, ROUND_TRIPS).await, theirs)
        };
        ratios.push((mine / theirs).ln());
        of_ours.push(mine);
        of_bare.push(theirs);
    }
    let groups: Vec<f64> = ratios.chunks_mut(PAIRS).map(midmean).collect();
    let found = estimate(&groups, 1).expect("there are groups");
    let end = |end: Option<f64>| end.map_or(f64::NAN, f64::exp);
    println!(
        "{name:<8} {:>7} {:>9.1} {:>9.1} {:>7.3}  [{:.3} {:.3}]",
        if threads == Threads::One { 1 } else { 2 },
        median(&mut of_ours) / 1e3,
        median(&mut of_bare) / 1e3,
        found.mean.exp(),
        end(found.low),
        end(found.high),
    );
}

async fn alone(name: &str, mut echo: impl Echo, round_trips: usize) {
    let median = turn(&mut echo, round_trips).await;
    println!("{name:<8} {:>9.1}", median / 1e3);
}

/// The median of so many round trips, in nanoseconds.
async fn turn(echo: &mut impl Echo, round_trips: usize) -> f64 {
    let clock = MonoClock;
    let mut took = Vec::with_capacity(round_trips);
    for _ in 0..round_trips {
        let start = clock.now();
        echo.round_trip().await;
        took.push(clock.now().since(start) as f64);
    }
    median(&mut took)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The mean of the middle half.
fn midmean(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let quarter = values.len() / 4;
    let middle = &values[quarter..values.len() - quarter];
    middle.iter().sum::<f64>() / middle.len() as f64
}

/// Which side goes first: xorshift64, since nothing more is asked of it than to be unrelated to what drifts.
struct Order(u64);

impl Order {
    fn heads(&mut self) -> bool {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 & 1 == 0
    }
}
