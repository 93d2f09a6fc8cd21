//! What physics leaves on the way to the proxy, where nobody knows it: measured once before the run, alike for all rows.

use std::time::Duration;

use tokenlag_loadgen::BaseUrl;
use tokenlag_probes::{Clock, Floor, MonoClock};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Connections that are made, of which the shortest counts: most of the others waited for a core.
const CONNECTS: usize = 50;
/// No connection is begun later: over a long way a few are as good.
const SPAN: Duration = Duration::from_secs(1);
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// The floor on the way to `proxy`; `None` where it cannot be reached. A connection is made when the SYN-ACK came: one round
/// trip, and what the two kernels take for it. Nothing is sent.
pub async fn measured(proxy: &BaseUrl) -> Option<Floor> {
    // The first one finds the address: no later one looks a name up.
    let first = timeout(PATIENCE, TcpStream::connect((proxy.host(), proxy.port())));
    let address = first.await.ok()?.ok()?.peer_addr().ok()?;
    let started = MonoClock.now();
    let mut shortest = None;
    for _ in 0..CONNECTS {
        let before = MonoClock.now();
        let Ok(Ok(_)) = timeout(PATIENCE, TcpStream::connect(address)).await else {
            break;
        };
        let now = MonoClock.now();
        let took = now.since(before);
        shortest = Some(shortest.map_or(took, |shortest: i64| shortest.min(took)));
        if now > started + SPAN {
            break;
        }
    }
    let shortest = u64::try_from(shortest?).ok()?;
    Some(Floor::of_connect(Duration::from_nanos(shortest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: std::net::SocketAddr) -> BaseUrl {
        format!("http://{address}").parse().unwrap()
    }

    #[tokio::test]
    async fn a_connection_takes_a_round_trip_and_nobody_there_has_none() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = at(listener.local_addr().unwrap());
        let floor = measured(&there).await.unwrap();
        assert!(floor.round_trip_ns > 0 && !floor.is_of_a_link());
        assert_eq!(floor.downlink_ns, floor.round_trip_ns / 2);
        drop(listener);
        assert_eq!(measured(&there).await, None);
    }
}
