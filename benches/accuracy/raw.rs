//! The least that a client can do, beside which tokenlag stands: a read, a stamp, and the blank lines between events; no JSON, no
//! records. What this one cannot do on a machine, none can.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::ready;
use std::time::Duration;

use tokenlag_probes::{Clock, MonoClock, Stamp, TraceId};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::timeout;

use crate::cell::Cell;
use crate::cpu;

const EVENT: &[u8] = b"event: ";
const DELTA: &[u8] = b"event: response.output_text.delta";
const COMPLETED: &[u8] = b"event: response.completed";
/// The end of a chunked body.
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";
/// How long all replies of a stream may take.
const LIMIT: Duration = Duration::from_secs(120);
/// As long as the prompts of the load generator.
const WORDS: usize = 64;
/// Tells its exchanges from the load generator's, whose trace ids are random.
const ITS_TRACES: u128 = 0x7261_7700 << 96;

/// The tokens of a reply, under its trace id.
pub type Reply = (TraceId, Vec<Stamp>);

/// What its run leaves.
pub struct RawLoad {
    pub replies: Vec<Reply>,
    /// CPU time of its thread, in nanoseconds.
    pub cpu: u64,
    /// Why something did not complete.
    pub trouble: Option<String>,
}

/// One read's room, which all streams share: nothing stays in it.
type Room = Rc<RefCell<Vec<u8>>>;

/// Runs a cell on a thread of its own, bound to `core`. `number` tells its exchanges from those of other cells.
pub fn run(cell: Cell, address: SocketAddr, number: u32, core: usize) -> Result<RawLoad, String> {
    let client = std::thread::Builder::new()
        .name("raw".to_owned())
        .spawn(move || {
            cpu::bind(core);
            measure(cell, address, number)
        })
        .map_err(|error| error.to_string())?;
    let ended = client.join();
    ended.map_err(|_| "the raw-socket client panicked".to_owned())?
}

fn measure(cell: Cell, address: SocketAddr, number: u32) -> Result<RawLoad, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let room = Rc::new(RefCell::new(vec![0; 16 << 10]));
    let (mut replies, mut trouble) = (Vec::new(), None);
    LocalSet::new().block_on(&runtime, async {
        let mut streams = JoinSet::new();
        for stream in 0..cell.streams {
            let first = ITS_TRACES | u128::from(number) << 64 | u128::from(stream) << 32;
            streams.spawn_local(all_turns(cell, address, first, Rc::clone(&room)));
        }
        while let Some(ended) = streams.join_next().await {
            let (of_stream, why) =
                ended.unwrap_or_else(|error| (Vec::new(), error.to_string().into()));
            replies.extend(of_stream);
            trouble = trouble.take().or(why);
        }
    });
    Ok(RawLoad {
        replies,
        cpu: cpu::of_this_thread(),
        trouble,
    })
}

/// One stream: replies one after the other on a connection of its own, and why it ended early.
async fn all_turns(
    cell: Cell,
    address: SocketAddr,
    first: u128,
    room: Room,
) -> (Vec<Reply>, Option<String>) {
    let mut replies = Vec::with_capacity(cell.turns as usize);
    let turns = async {
        let mut socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        for turn in 0..cell.turns {
            let trace = TraceId::from_bits(first + u128::from(turn));
            let request = request(trace, address, cell.tokens);
            replies.push((trace, Vec::with_capacity(cell.tokens as usize)));
            socket.write_all(&request).await?;
            if let Some((_, tokens)) = replies.last_mut() {
                read_reply(&mut socket, &room, tokens).await?;
            }
        }
        io::Result::Ok(())
    };
    let trouble = match timeout(LIMIT, turns).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("raw-socket client: {error}")),
        Err(_) => Some(format!("raw-socket client: not at its end after {LIMIT:?}")),
    };
    (replies, trouble)
}

fn request(trace: TraceId, address: SocketAddr, tokens: u32) -> Vec<u8> {
    let input = "word ".repeat(WORDS);
    let body = format!(
        r#"{{"model":"scripted","stream":true,"store":false,"max_output_tokens":{tokens},"input":"{}"}}"#,
        input.trim_end()
    );
    format!(
        "POST /v1/responses HTTP/1.1\r\nhost: {address}\r\ntraceparent: {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        trace.traceparent(),
        body.len()
    )
    .into_bytes()
}

/// Reads one reply to its end: a stamp for each event that is a token.
async fn read_reply(
    socket: &mut TcpStream,
    room: &Room,
    tokens: &mut Vec<Stamp>,
) -> io::Result<()> {
    let (mut text, mut completed) = (Vec::new(), false);
    while !(completed && text.ends_with(LAST_CHUNK)) {
        let at = poll_fn(|cx| {
            let mut room = room.borrow_mut();
            let mut into = ReadBuf::new(&mut room);
            ready!(Pin::new(&mut *socket).poll_read(cx, &mut into))?;
            let at = MonoClock.now();
            text.extend_from_slice(into.filled());
            io::Result::Ok((!into.filled().is_empty()).then_some(at)).into()
        });
        let at = at.await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut from = 0;
        while let Some(length) = text[from..].windows(2).position(|pair| pair == b"\n\n") {
            // Before its name stands the framing of the chunk, and once the reply's head.
            let mut lines = text[from..from + length].split(|&byte| byte == b'\n');
            match lines.find(|line| line.starts_with(EVENT)) {
                Some(DELTA) => tokens.push(at),
                Some(COMPLETED) => completed = true,
                _ => {}
            }
            from += length + 2;
        }
        text.drain(..from);
    }
    Ok(())
}
