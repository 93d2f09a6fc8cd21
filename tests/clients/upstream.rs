//! An upstream that has a client call a tool: one call, then a farewell once the call's output is there.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

/// Which API it has; every other path is unknown to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// `/v1/responses`.
    Responses,
    /// `/v1/chat/completions` alone.
    Chat,
}

/// A server on a port of its own; its threads end with the test's process.
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    speaks: Speaks,
    /// The tool's name and its arguments.
    call: (String, String),
    /// The requests that it understood, in order.
    requests: Mutex<Vec<Value>>,
}

const CALL_ID: &str = "call_of_the_test";
const FAREWELL: &str = "The tool has spoken.";
/// A member of the call's item that no client knows: it comes back only from where the item itself was kept.
const MARK: &str = "x_kept_by_the_proxy";

impl Upstream {
    pub fn start(speaks: Speaks, tool: &str, arguments: &Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            speaks,
            call: (tool.to_owned(), arguments.to_string()),
            requests: Mutex::default(),
        });
        let served = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = served.clone();
                // A client that goes away has its reasons.
                thread::spawn(move || shared.serve(stream));
            }
        });
        Self { address, shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it says in the end.
    pub fn farewell(&self) -> &'static str {
        FAREWELL
    }

    /// Fails unless the second of two requests was whole: the question, the call as it was made, and its output.
    #[track_caller]
    pub fn assert_the_call_came_back(&self, output: &str) {
        let requests = self.shared.requests.lock().expect("no thread panicked");
        let [first, second] = &requests[..] else {
            panic!("{} requests: {requests:#?}", requests.len());
        };
        let items = match self.shared.speaks {
            Speaks::Responses => "input",
            Speaks::Chat => "messages",
        };
        let (first, second) = (items_of(first, items), items_of(second, items));
        assert_eq!(second.len(), first.len() + 2, "{second:#?}");
        let (question, rest) = second.split_at(first.len());
        assert_eq!(question, first);
        let [call, told] = rest else {
            unreachable!("there are two more");
        };
        let told = match self.shared.speaks {
            Speaks::Responses => {
                assert_eq!(call["call_id"], CALL_ID, "{call:#}");
                // The client sent the output alone, and the proxy put before it what it had kept.
                assert_eq!(call[MARK], true, "{call:#}");
                assert_eq!(told["call_id"], CALL_ID, "{told:#}");
                &told["output"]
            }
            Speaks::Chat => {
                let call = &call["tool_calls"][0];
                assert_eq!(call["id"], CALL_ID, "{call:#}");
                let (name, arguments) = &self.shared.call;
                assert_eq!(call["function"]["name"], **name);
                assert_eq!(call["function"]["arguments"], **arguments);
                assert_eq!(told["role"], "tool", "{told:#}");
                assert_eq!(told["tool_call_id"], CALL_ID, "{told:#}");
                &told["content"]
            }
        };
        assert!(told.to_string().contains(output), "{told}");
    }
}

fn items_of<'a>(request: &'a Value, member: &str) -> &'a [Value] {
    request[member]
        .as_array()
        .unwrap_or_else(|| panic!("{member} is no list: {request:#}"))
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(stream);
        while let Some((target, body)) = next_request(&mut reader)? {
            let known = match self.speaks {
                Speaks::Responses => "/v1/responses",
                Speaks::Chat => "/v1/chat/completions",
            };
            let (status, kind, reply) = match self.answer(&body) {
                _ if target != known => {
                    ("404 Not Found", "application/json", error("no such path"))
                }
                None => ("400 Bad Request", "application/json", error("no items")),
                Some(reply) => ("200 OK", "text/event-stream", reply),
            };
            let length = reply.len();
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
            );
            reader.get_mut().write_all(head.as_bytes())?;
            reader.get_mut().write_all(reply.as_bytes())?;
        }
        Ok(())
    }

    /// `None` where the request has no items: somebody asks whether the path is known.
    fn answer(&self, body: &[u8]) -> Option<String> {
        let request: Value = serde_json::from_slice(body).ok()?;
        // The output of the call is in the request where it has been made.
        let is_over = match self.speaks {
            Speaks::Responses => has(&request["input"], "type", "function_call_output")?,
            Speaks::Chat => has(&request["messages"], "role", "tool")?,
        };
        self.requests
            .lock()
            .expect("no thread panicked")
            .push(request);
        let (name, arguments) = &self.call;
        Some(match self.speaks {
            Speaks::Responses => responses_reply(is_over, name, arguments),
            Speaks::Chat => chat_reply(is_over, name, arguments),
        })
    }
}

fn has(items: &Value, member: &str, value: &str) -> Option<bool> {
    let items = items.as_array()?;
    Some(items.iter().any(|item| item[member] == value))
}

fn error(message: &str) -> String {
    json!({"error": {"message": message, "type": "invalid_request_error"}}).to_string()
}

fn responses_reply(is_over: bool, name: &str, arguments: &str) -> String {
    let (id, item) = if is_over {
        let content = json!([{"type": "output_text", "text": FAREWELL, "annotations": []}]);
        let item = json!({
            "type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content,
        });
        ("resp_2", item)
    } else {
        let item = json!({
            "type": "function_call", "id": "fc_1", "call_id": CALL_ID, "name": name, "arguments": arguments,
            "status": "completed", MARK: true,
        });
        ("resp_1", item)
    };
    let response = |status: &str, output: &[&Value]| {
        let usage = json!({
            "input_tokens": 10, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 5, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 15,
        });
        json!({"id": id, "object": "response", "status": status, "output": output, "usage": usage})
    };
    [
        json!({"type": "response.created", "response": response("in_progress", &[])}),
        json!({"type": "response.output_item.added", "output_index": 0, "item": item}),
        json!({"type": "response.output_item.done", "output_index": 0, "item": item}),
        json!({"type": "response.completed", "response": response("completed", &[&item])}),
    ]
    .iter()
    .enumerate()
    .map(|(number, event)| {
        let mut event = event.clone();
        event["sequence_number"] = number.into();
        let kind = event["type"].as_str().unwrap_or_default();
        format!("event: {kind}\ndata: {event}\n\n")
    })
    .collect()
}

fn chat_reply(is_over: bool, name: &str, arguments: &str) -> String {
    let (delta, reason) = if is_over {
        (json!({"role": "assistant", "content": FAREWELL}), "stop")
    } else {
        let call = json!({
            "index": 0, "id": CALL_ID, "type": "function", "function": {"name": name, "arguments": arguments},
        });
        (
            json!({"role": "assistant", "tool_calls": [call]}),
            "tool_calls",
        )
    };
    let chunk = |choices: Value, usage: Value| {
        let chunk = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": choices, "usage": usage,
        });
        format!("data: {chunk}\n\n")
    };
    let usage = json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15});
    [
        chunk(
            json!([{"index": 0, "delta": delta, "finish_reason": null}]),
            Value::Null,
        ),
        chunk(
            json!([{"index": 0, "delta": {}, "finish_reason": reason}]),
            Value::Null,
        ),
        chunk(json!([]), usage),
        "data: [DONE]\n\n".to_owned(),
    ]
    .concat()
}

/// The target and the body of the next request of a connection; `None` where there is none.
fn next_request(reader: &mut BufReader<TcpStream>) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut target = None;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        match (&target, line.split_once(':')) {
            (None, _) => target = line.split(' ').nth(1).map(str::to_owned),
            (_, Some((name, value))) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().unwrap_or(0);
            }
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(target.map(|target| (target, body)))
}
