//! The proxy between a client's channel and the scripted backend, in one process, on loopback.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use tokenlag_channel::tls::ClientTls;
use tokenlag_channel::{Ask, BaseUrl, Channel, ChannelError, Dial, Reply, Request, Stamping};
use tokenlag_dialect::{Decoder, Dialect, Meaning, SseEvent};
use tokenlag_probes::{
    Clock, Encoding, HopExchange, MonoClock, Outcome, Stamp, TokenMark, TraceId, Transport,
};
use tokenlag_proxy::{Addresses, Proxy, ProxyOptions, UpstreamApi};
use tokenlag_scripted::{Script, ScriptedBackend};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

pub const IDLE: Duration = Duration::from_secs(5);

/// Every way through the proxy.
pub const CHANNELS: [(Transport, Encoding); 7] = [
    (Transport::HttpCold, Encoding::Events),
    (Transport::Http, Encoding::Events),
    (Transport::Ws, Encoding::Events),
    (Transport::Quic, Encoding::Events),
    (Transport::Quic, Encoding::Compact),
    (Transport::Http2, Encoding::Events),
    (Transport::Http3, Encoding::Events),
];

pub struct Stack {
    pub backend: ScriptedBackend,
    pub addresses: Addresses,
    certificate: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Stack {
    pub fn start(script: &str) -> Self {
        let script = Script::default().with(script).unwrap();
        let backend = ScriptedBackend::start(script).unwrap();
        let upstream = backend.url().parse().unwrap();
        Self::in_front_of(backend, upstream, |options| options)
    }

    pub fn in_front_of(
        backend: ScriptedBackend,
        upstream: BaseUrl,
        adjust: impl FnOnce(ProxyOptions) -> ProxyOptions,
    ) -> Self {
        let mut options = ProxyOptions::new(([127, 0, 0, 1], 0).into(), upstream);
        options.admin = ([127, 0, 0, 1], 0).into();
        options.grace = Duration::from_secs(2);
        // Where nothing is to be found out, the backend sees the test's own requests alone.
        options.upstream_api = UpstreamApi::Responses;
        let proxy = Proxy::bind(adjust(options)).unwrap();
        let (stop, stopped) = oneshot::channel();
        let addresses = proxy.addresses();
        let certificate = proxy.certificate().to_owned();
        let thread = std::thread::spawn(move || {
            let run = proxy.run(async {
                let _ = stopped.await;
            });
            LocalSet::new().block_on(&runtime(), run).unwrap();
        });
        Self {
            backend,
            addresses,
            certificate,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub fn dial(&self, transport: Transport) -> Dial {
        let address = match transport {
            Transport::Direct => self.backend.address(),
            Transport::Quic | Transport::Http3 => self.addresses.quic.unwrap(),
            _ => self.addresses.listen,
        };
        let mut dial = dial(address, &self.certificate);
        // TCP is in clear here.
        let over_udp = matches!(transport, Transport::Quic | Transport::Http3);
        dial.tls = dial.tls.filter(|_| over_udp);
        dial
    }

    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    pub fn channel(&self, transport: Transport) -> Channel {
        Channel::new(transport, self.dial(transport))
    }

    /// The proxy's record of an exchange, once it is booked.
    pub async fn record(&self, trace: TraceId) -> HopExchange {
        for _ in 0..200 {
            let target = format!("/exchanges?trace={trace}");
            let (status, body) = get(self.addresses.admin, &target).await;
            if status == 200 {
                return serde_json::from_str(&body).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the proxy booked no exchange {trace}");
    }

    /// Begins the shutdown; the thread ends when the drain does.
    pub fn begin_shutdown(&mut self) -> JoinHandle<()> {
        drop(self.stop.take());
        self.thread.take().unwrap()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
    }
}

pub fn dial(address: SocketAddr, certificate: &str) -> Dial {
    Dial {
        host: address.ip().to_string(),
        port: address.port(),
        path: "/v1/responses".to_owned(),
        headers: Vec::new(),
        connect_timeout: Duration::from_secs(2),
        idle_timeout: IDLE,
        tls: Some(ClientTls::trusting(certificate.as_bytes()).unwrap()),
        stamping: Stamping::default(),
        nagle: false,
    }
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Runs a test's future on a runtime as the load generator has it.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    runtime().block_on(test)
}

/// What a client saw of one exchange.
#[derive(Debug)]
pub struct Seen {
    pub status: u16,
    pub written: Stamp,
    pub head: Option<Stamp>,
    pub marks: Vec<TokenMark>,
    pub end: Option<Stamp>,
    pub outcome: Option<Outcome>,
    /// The text of all deltas.
    pub text: String,
    pub terminal: Vec<u8>,
    pub body: Vec<u8>,
}

/// A create of the Responses API, rendered for a channel.
pub fn request(
    (transport, encoding): (Transport, Encoding),
    trace: TraceId,
    body: &str,
    headers: &[(String, String)],
) -> Result<Request, ChannelError> {
    Request::render(
        transport,
        &Ask {
            path: "/v1/responses",
            authority: "test",
            headers,
            body: body.as_bytes(),
            trace,
            encoding,
        },
    )
}

/// One exchange of the Responses API over any channel.
pub async fn exchange(
    channel: &Channel,
    way: (Transport, Encoding),
    trace: TraceId,
    body: &str,
    headers: &[(String, String)],
) -> Result<Seen, ChannelError> {
    let request = request(way, trace, body, headers)?;
    let mut reply = channel.open(&request).await?;
    let seen = read(&mut reply).await?;
    reply.finish().await?;
    Ok(seen)
}

/// Reads a reply to its terminal event, or to its end.
pub async fn read(reply: &mut Reply) -> Result<Seen, ChannelError> {
    let mut decoder = Decoder::new(Dialect::Responses, reply.framing());
    let mut seen = Seen {
        status: reply.status(),
        written: reply.opening().written,
        head: None,
        marks: Vec::new(),
        end: None,
        outcome: None,
        text: String::new(),
        terminal: Vec::new(),
        body: Vec::new(),
    };
    while decoder.terminal().is_none() {
        let Some(chunk) = reply.next().await? else {
            break;
        };
        seen.body.extend_from_slice(&chunk.bytes);
        let text = &mut seen.text;
        let mut on_event = |event: SseEvent<'_>, meaning: &Meaning| {
            if meaning.deltas > 0 {
                let event: serde_json::Value = serde_json::from_slice(event.data).unwrap();
                text.push_str(event["delta"].as_str().unwrap());
            }
        };
        let (at, ordinal) = (chunk.at, chunk.ordinal);
        decoder
            .feed_events(at, ordinal, &chunk.bytes, &mut seen.marks, &mut on_event)
            .unwrap();
        if decoder.terminal().is_some() {
            seen.end = Some(chunk.at);
        }
    }
    seen.head = reply.head();
    seen.outcome = decoder.outcome();
    seen.terminal = decoder.terminal_event().unwrap_or_default().to_vec();
    Ok(seen)
}

pub fn create(input: &str, tokens: u32) -> String {
    format!(
        r#"{{"model":"scripted","input":"{input}","max_output_tokens":{tokens},"stream":true}}"#
    )
}

pub fn trace(number: u128) -> TraceId {
    TraceId::from_bits(number + ((MonoClock.now().as_nanos() as u128) << 32))
}

/// Sends raw bytes and reads to the end of the stream.
pub async fn raw(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(IDLE, stream.read_to_end(&mut answer))
        .await
        .expect("the connection is closed in time")
        .unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// A GET on a connection of its own: status and body.
pub async fn get(address: SocketAddr, target: &str) -> (u16, String) {
    let request = format!("GET {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    let answer = raw(address, request.as_bytes()).await;
    let status = answer[9..12].parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    (status, body)
}
