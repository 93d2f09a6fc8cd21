//! How far another end is: the quickest of a few connections that are made and closed again, with nothing asked on them.

use std::time::Duration;

use tokenlag_probes::{Clock, MonoClock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{ChannelError, tcp};

/// Connections that are made at most, one after the other.
const TRIES: u32 = 5;
/// No other one is made after so long.
const LONG_ENOUGH: Duration = Duration::from_secs(1);
/// What is nearer is on this host or beside it, and need not be known better.
const BESIDE: Duration = Duration::from_micros(200);
/// How long one connection may take to be made.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long an end may take to close its half after ours.
const PARTING: Duration = Duration::from_millis(500);

/// The round trip to a TCP port. Two are timed on each connection, and the longer one counts: until it is made, which kernels
/// settle between them; and from our end of it to theirs, which goes through whatever carries connections on (a tunnel answers
/// the first itself, and must ask its other end for the second). An end that keeps its half open is told by the first alone.
///
/// The least of a few is given, so that a server that was busy, or a host, does not look far.
///
/// # Errors
/// The name is not known, or nothing takes connections there.
pub async fn round_trip(host: &str, port: u16) -> Result<Duration, ChannelError> {
    let clock = MonoClock;
    let started = clock.now();
    let since = |then| Duration::from_nanos(clock.now().since(then).unsigned_abs());
    let mut least = Duration::MAX;
    let addresses = tcp::resolve(host, port).await?;
    for _ in 0..TRIES {
        let began = clock.now();
        let connecting = tcp::first_that_answers(addresses.clone());
        let connected = timeout(PATIENCE, connecting).await;
        let mut stream =
            connected.unwrap_or_else(|_| Err(tcp::connect_timeout(host, port, PATIENCE)))?;
        let made = since(began);
        let closed = clock.now();
        let ended = timeout(PARTING, until_closed(&mut stream)).await.is_ok();
        let round_trip = match ended {
            true => made.max(since(closed)),
            false => made,
        };
        least = least.min(round_trip);
        if least < BESIDE || since(started) > LONG_ENOUGH {
            break;
        }
    }
    Ok(least)
}

/// Closes our half, and reads on until the other is closed as well: with an end, or with a reset, which comes as far.
async fn until_closed(stream: &mut TcpStream) {
    let mut parting = [0; 512];
    if stream.shutdown().await.is_ok() {
        while let Ok(1..) = stream.read(&mut parting).await {}
    }
}
