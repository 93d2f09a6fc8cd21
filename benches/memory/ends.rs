//! The proxy between this process's connections and the upstream, and what its memory was at each stage.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokenlag_channel::tls::ClientTls;
use tokenlag_channel::{Ask, Channel, Dial, Reply, Request, Stamping};
use tokenlag_probes::{Encoding, TraceId, Transport};

use crate::upstream::{HOLD, WORD};

/// What went wrong, in words.
pub type Failure = Box<dyn std::error::Error>;

const PATIENCE: Duration = Duration::from_secs(120);
/// Memory is looked at so often until it stays as it is.
const SETTLING: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// A process that ends with this value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The processes that a measurement has.
pub struct Ends {
    transport: Transport,
    proxy: Process,
    _upstream: Process,
    dial: Dial,
}

impl Ends {
    /// Starts upstream and proxy.
    pub async fn start(transport: Transport) -> Result<Self, Failure> {
        let (upstream, address) = first_line(
            Command::new(std::env::current_exe()?)
                .arg(WORD)
                .stdin(Stdio::piped()),
        )?;
        let to = format!("http://{}", address.trim());
        let (proxy, ready) = first_line(
            Command::new(env!("CARGO_BIN_EXE_tokenlag"))
                .args(["proxy", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
                .args(["--upstream", &to, "--upstream-api", "responses"])
                .args(["--max-connections", "65536", "--report-ready"])
                .stdin(Stdio::null()),
        )?;
        let ready: serde_json::Value = serde_json::from_str(&ready)?;
        let place = |name: &str| ready[name].as_str().ok_or("the proxy says no address");
        let over_quic = matches!(transport, Transport::Quic | Transport::Http3);
        let door = if over_quic { "quic" } else { "listen" };
        let (host, port) = place(door)?.rsplit_once(':').ok_or("no port")?;
        let mut dial = Dial {
            host: host.to_owned(),
            port: port.parse()?,
            path: "/v1/responses".to_owned(),
            headers: Vec::new(),
            connect_timeout: PATIENCE,
            idle_timeout: PATIENCE,
            tls: None,
            stamping: Stamping::default(),
            nagle: false,
        };
        if over_quic {
            let certificate = certificate(place("admin")?)?;
            dial.tls = Some(ClientTls::trusting(certificate.as_bytes())?);
        }
        Ok(Self {
            transport,
            proxy,
            _upstream: upstream,
            dial,
        })
    }

    /// KiB of each of `count` connections, idle, and with an exchange under way on the first `active` of them.
    pub async fn measure(&self, count: u64, active: u64) -> Result<(f64, f64), Failure> {
        // What is made once is no connection's.
        let first = self.channel();
        self.exchange(&first, "first").await?;
        let before = self.settled().await?;
        let mut channels = Vec::new();
        for _ in 0..count {
            let channel = self.channel();
            self.exchange(&channel, "one").await?;
            channels.push(channel);
        }
        let resting = self.settled().await?;
        let idle = (resting as f64 - before as f64) / count as f64;
        let mut replies = Vec::new();
        for channel in channels.iter().take(usize::try_from(active)?) {
            replies.push(self.begin(channel, HOLD).await?);
        }
        let grown = self.settled().await? as f64 - resting as f64;
        Ok((idle, idle + grown / active as f64))
    }

    fn channel(&self) -> Channel {
        Channel::new(self.transport, self.dial.clone())
    }

    /// A reply whose first bytes are there.
    async fn begin(&self, channel: &Channel, model: &str) -> Result<Reply, Failure> {
        let body = format!(r#"{{"model":"{model}","input":"a word","stream":true}}"#);
        let ask = Ask {
            path: "/v1/responses",
            authority: "127.0.0.1",
            headers: &[],
            body: body.as_bytes(),
            trace: TraceId::from_bits(1),
            encoding: Encoding::Events,
        };
        let request = Request::render(self.transport, &ask)?;
        let mut reply = channel.open(&request).await?;
        loop {
            let chunk = reply.next().await?.ok_or("the reply has no delta")?;
            if is_said(&chunk.bytes, "output_text.delta") {
                return Ok(reply);
            }
        }
    }

    /// A whole exchange, after which the connection is idle.
    async fn exchange(&self, channel: &Channel, model: &str) -> Result<(), Failure> {
        let mut reply = self.begin(channel, model).await?;
        if matches!(reply, Reply::Ws(_)) {
            while let Some(chunk) = reply.next().await? {
                if is_said(&chunk.bytes, "response.completed") {
                    break;
                }
            }
        }
        Ok(reply.finish().await?)
    }

    /// Its anonymous resident memory in KiB, once that stays as it is.
    async fn settled(&self) -> Result<u64, Failure> {
        let mut last = self.memory()?;
        for _ in 0..SETTLING {
            tokio::time::sleep(PAUSE).await;
            let now = self.memory()?;
            if now == last {
                break;
            }
            last = now;
        }
        Ok(last)
    }

    fn memory(&self) -> Result<u64, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.proxy.0.id()))?;
        let anonymous = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = anonymous.ok_or("the system does not tell the proxy's memory")?;
        Ok(kib.trim().trim_end_matches("kB").trim().parse()?)
    }
}

fn is_said(bytes: &[u8], what: &str) -> bool {
    bytes
        .windows(what.len())
        .any(|part| part == what.as_bytes())
}

/// Starts a process, and waits for the line that it says first.
fn first_line(command: &mut Command) -> Result<(Process, String), Failure> {
    let mut process = Process(command.stdout(Stdio::piped()).spawn()?);
    let said = process.0.stdout.take().ok_or("it has no standard output")?;
    let mut line = String::new();
    BufReader::new(said).read_line(&mut line)?;
    match line.is_empty() {
        true => Err(format!("{:?} ended before it was ready", command.get_program()).into()),
        false => Ok((process, line)),
    }
}

fn certificate(admin: &str) -> Result<String, Failure> {
    use std::io::{Read, Write};

    let mut socket = std::net::TcpStream::connect(admin)?;
    let request =
        format!("GET /certificate HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes())?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("no certificate")?;
    Ok(body.to_owned())
}
