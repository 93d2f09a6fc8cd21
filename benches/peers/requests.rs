//! The client of the rows about requests: one after the other, at a fixed rate, and as many as will go.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tokenlag_probes::{Clock, MonoClock, Stamp, TraceId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::origin::whole;
use crate::quantile::quantile;

const BODY: &str = r#"{"model":"scripted","messages":[{"role":"user","content":"sixty-four bytes of question, and back"}],"max_completion_tokens":1}"#;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Median and 99th percentile of the round trips of a turn, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Trips {
    pub p50: f64,
    pub p99: f64,
}

/// A request as a load generator sends it.
fn request() -> Vec<u8> {
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n\
         traceparent: {}\r\ncontent-length: {}\r\n\r\n",
        TraceId::from_bits(1).traceparent(),
        BODY.len()
    );
    [head.as_bytes(), BODY.as_bytes()].concat()
}

/// A connection that is kept.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    fn dial(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            buffer: vec![0; 16 << 10],
        })
    }

    fn round_trip(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request)?;
        let mut filled = 0;
        loop {
            filled += match self.stream.read(&mut self.buffer[filled..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => count,
            };
            if is_answered(&self.buffer[..filled])? {
                return Ok(());
            }
        }
    }
}

/// Whether that is the whole of a good answer.
fn is_answered(bytes: &[u8]) -> io::Result<bool> {
    let Some((_, length)) = whole(bytes) else {
        return Ok(false);
    };
    let status = bytes.get(9..12).unwrap_or_default();
    match (status, bytes.len()) {
        (b"200", all) if all == length => Ok(true),
        (b"200", _) => Err(io::Error::other("more came than was asked for")),
        (status, _) => {
            let status = String::from_utf8_lossy(status);
            Err(io::Error::other(format!("it was answered with {status}")))
        }
    }
}

/// So many requests on one connection, each after the answer to the one before.
pub fn one_by_one(address: SocketAddr, count: usize) -> io::Result<Trips> {
    let mut client = Client::dial(address)?;
    let request = request();
    let clock = MonoClock;
    let mut took = Vec::with_capacity(count);
    for _ in 0..count {
        let start = clock.now();
        client.round_trip(&request)?;
        took.push(clock.now().since(start) as f64);
    }
    Ok(Trips {
        p50: quantile(&mut took, 0.5),
        p99: quantile(&mut took, 0.99),
    })
}

/// Connections that take requests in turn, each at its moment: what a program costs that is not busy. Returns how many were
/// sent.
pub fn at_rate(
    address: SocketAddr,
    connections: usize,
    gap: Duration,
    span: Duration,
) -> io::Result<u64> {
    let mut clients = (0..connections)
        .map(|_| Client::dial(address))
        .collect::<io::Result<Vec<_>>>()?;
    let request = request();
    let clock = MonoClock;
    let (mut due, mut sent) = (clock.now(), 0);
    let end = due + span;
    while due < end {
        let left = due.since(clock.now());
        if left > 0 {
            std::thread::sleep(Duration::from_nanos(left as u64));
        }
        clients[sent as usize % connections].round_trip(&request)?;
        due = due + gap;
        sent += 1;
    }
    Ok(sent)
}

/// What came of as many as will go.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    pub requests: u64,
    /// How long it took.
    pub nanos: f64,
}

/// As many as will go for so long, each connection with one under way.
pub fn as_many_as_go(address: SocketAddr, connections: usize, span: Duration) -> io::Result<Flood> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let request = request();
    runtime.block_on(async {
        let mut streams = Vec::new();
        for _ in 0..connections {
            let stream = tokio::net::TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            streams.push(stream);
        }
        let start = MonoClock.now();
        let end = start + span;
        let local = tokio::task::LocalSet::new();
        let requests = local
            .run_until(async {
                let mut tasks = JoinSet::new();
                for stream in streams {
                    tasks.spawn_local(keep_asking(stream, request.clone(), end));
                }
                let mut requests = 0;
                while let Some(done) = tasks.join_next().await {
                    requests += done.map_err(io::Error::other)??;
                }
                io::Result::Ok(requests)
            })
            .await?;
        Ok(Flood {
            requests,
            nanos: MonoClock.now().since(start) as f64,
        })
    })
}

async fn keep_asking(
    mut stream: tokio::net::TcpStream,
    request: Vec<u8>,
    end: Stamp,
) -> io::Result<u64> {
    let mut buffer = vec![0; 16 << 10];
    let mut count = 0;
    while MonoClock.now() < end {
        stream.write_all(&request).await?;
        let mut filled = 0;
        while !is_answered(&buffer[..filled])? {
            filled += match stream.read(&mut buffer[filled..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => count,
            };
        }
        count += 1;
    }
    Ok(count)
}
