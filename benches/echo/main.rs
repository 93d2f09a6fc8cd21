//! What our channels add to the libraries under them: `cargo bench --bench echo [-- CHANNEL...]`.
//!
//! For each channel, round trips of a small echo through our two ends and through the bare library's, in one process
//! on one thread over loopback, in turns of random order. Printed is the ratio of the turns' medians, with a 95 %
//! bootstrap interval over the turns.

mod bare;
mod ours;

use std::future::Future;

use tokenlag_probes::bootstrap::estimate;
use tokenlag_probes::{Clock, MonoClock, Transport};
use tokio::task::LocalSet;

/// Turns of each side; the interval is over them.
const TURNS: usize = 60;
/// Round trips of a turn.
const ROUND_TRIPS: usize = 300;
/// Round trips before the first turn.
const WARM_UP: usize = 500;
/// What is sent and comes back: a JSON object, since the WebSocket channel carries nothing else.
const PAYLOAD: &[u8] = br#"{"model":"echo","input":"sixty-four bytes of question, and back"}"#;

/// A client and its server, connected.
trait Echo {
    /// Sends the payload and waits until it is back, whole.
    async fn round_trip(&mut self);
}

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|known| known == name);
    println!("echo of {} bytes, one thread, loopback", PAYLOAD.len());
    println!(
        "{:<8} {:>9} {:>9} {:>7}  95 % interval",
        "channel", "ours us", "bare us", "ratio"
    );
    if is_wanted("http") {
        on_one_thread(async {
            compare(
                "http",
                ours::over_tcp(Transport::Http).await,
                bare::hyper().await,
            )
            .await
        });
    }
    if is_wanted("http2") {
        on_one_thread(async {
            compare(
                "http2",
                ours::over_tcp(Transport::Http2).await,
                bare::h2().await,
            )
            .await
        });
    }
    if is_wanted("http3") {
        on_one_thread(async {
            compare(
                "http3",
                ours::over_udp(Transport::Http3).await,
                bare::h3().await,
            )
            .await
        });
    }
    if is_wanted("ws") {
        on_one_thread(async {
            compare(
                "ws",
                ours::over_tcp(Transport::Ws).await,
                bare::tungstenite().await,
            )
            .await
        });
    }
    if is_wanted("quic") {
        on_one_thread(async {
            compare(
                "quic",
                ours::over_udp(Transport::Quic).await,
                bare::quinn().await,
            )
            .await
        });
    }
}

fn on_one_thread(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be made");
    LocalSet::new().block_on(&runtime, work);
}

async fn compare(name: &str, mut ours: impl Echo, mut bare: impl Echo) {
    for _ in 0..WARM_UP {
        ours.round_trip().await;
        bare.round_trip().await;
    }
    let mut order = Order(0x9E37_79B9_7F4A_7C15);
    let (mut ratios, mut of_ours, mut of_bare) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let (mine, theirs) = if order.heads() {
            let mine = turn(&mut ours).await;
            (mine, turn(&mut bare).await)
        } else {
            let theirs = turn(&mut bare).await;
            (turn(&mut ours).await, theirs)
        };
        ratios.push((mine / theirs).ln());
        of_ours.push(mine);
        of_bare.push(theirs);
    }
    let found = estimate(&ratios, 1).expect("there are turns");
    let end = |end: Option<f64>| end.map_or(f64::NAN, f64::exp);
    println!(
        "{name:<8} {:>9.1} {:>9.1} {:>7.3}  [{:.3} {:.3}]",
        median(&mut of_ours) / 1e3,
        median(&mut of_bare) / 1e3,
        found.mean.exp(),
        end(found.low),
        end(found.high),
    );
}

/// The median round trip of one turn, in nanoseconds.
async fn turn(echo: &mut impl Echo) -> f64 {
    let clock = MonoClock;
    let mut took = Vec::with_capacity(ROUND_TRIPS);
    for _ in 0..ROUND_TRIPS {
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
