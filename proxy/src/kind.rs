//! What the upstream speaks: found out once, by requests that nobody can answer with a token.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokenlag_channel::http::Connection;
use tokenlag_channel::http::render::{push_field, start_request};
use tokenlag_channel::ws::{self, NotOpened};
use tokenlag_channel::{BaseUrl, ChannelError, Dial};
use tokenlag_probes::{Clock, MonoClock, Stamp};

use crate::options::UpstreamApi;
use crate::translation::chat_target;

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long nothing is asked after the first time that no answer told; it doubles with each further time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// As long as the pause gets.
const LONGEST_PAUSE: Duration = Duration::from_secs(64);

/// What an upstream speaks where the Responses API is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// The Responses API over HTTP, and over WebSocket.
    WebSocket,
    /// The Responses API over HTTP.
    Responses,
    /// Chat completions alone.
    Chat,
}

/// What is known of the upstream. Shared by the proxy's threads.
#[derive(Debug)]
pub(crate) struct Kinds {
    told: UpstreamApi,
    upstream: BaseUrl,
    dial: Dial,
    state: Mutex<State>,
    /// A create went well, whatever else the upstream may speak.
    answers_creates: AtomicBool,
    /// Held while the upstream is asked: it is asked once, whoever waits.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    kind: Option<Kind>,
    /// By which answer it was found, or was not.
    how: String,
    attempts: u32,
    asked: Option<Stamp>,
}

/// As it is shown.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    told: &'static str,
    /// `null` where it is not known yet.
    kind: Option<Kind>,
    how: String,
}

/// What came of one question.
enum Answer {
    Yes,
    No,
    /// Someone without the right key, or someone who is not there, learns nothing.
    Unclear,
}

impl Kinds {
    pub(crate) fn new(told: UpstreamApi, upstream: BaseUrl, dial: Dial) -> Self {
        let kind = match told {
            UpstreamApi::Auto | UpstreamApi::Http => None,
            UpstreamApi::Responses => Some(Kind::Responses),
            UpstreamApi::Chat => Some(Kind::Chat),
            UpstreamApi::WebSocket => Some(Kind::WebSocket),
        };
        let how = match kind {
            Some(_) => "told so",
            None => "nobody asked yet",
        };
        Self {
            told,
            upstream,
            dial: Dial {
                connect_timeout: dial.connect_timeout.min(PATIENCE),
                idle_timeout: PATIENCE,
                ..dial
            },
            state: Mutex::new(State {
                kind,
                how: how.to_owned(),
                ..State::default()
            }),
            answers_creates: AtomicBool::new(false),
            asking: tokio::sync::Mutex::default(),
        }
    }

    /// What was told or found; `None` where it is not known yet.
    pub(crate) fn known(&self) -> Option<Kind> {
        self.state().kind
    }

    /// What the upstream speaks, found out now where it is not known; `None` where its answers do not tell. `target` is where
    /// a response would be asked for, `credentials` are the client's fields by which it is known.
    pub(crate) async fn find(&self, target: &str, credentials: &[(&[u8], &[u8])]) -> Option<Kind> {
        if let Some(kind) = self.known() {
            return Some(kind);
        }
        let _asking = self.asking.lock().await;
        // Somebody else may have found it, or asked in vain just now.
        if self.known().is_some() || self.state().pauses(MonoClock.now()) {
            return self.known();
        }
        let (kind, how) = self.ask(target, credentials).await;
        let mut state = self.state();
        state.kind = kind;
        state.how = how;
        state.attempts = state.attempts.saturating_add(1);
        state.asked = Some(MonoClock.now());
        kind
    }

    /// Notes the status of a reply to a create: one that went well says that there is a Responses API.
    pub(crate) fn saw(&self, status: u16) {
        if (200..300).contains(&status) {
            self.answers_creates.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the upstream may have chat completions alone.
    pub(crate) fn may_be_chat(&self) -> bool {
        match self.known() {
            Some(kind) => kind == Kind::Chat,
            None => !self.answers_creates.load(Ordering::Relaxed),
        }
    }

    /// For `/config`.
    pub(crate) fn shown(&self) -> Shown {
        let state = self.state();
        Shown {
            told: self.told.name(),
            kind: state.kind,
            how: state.how.clone(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, target: &str, credentials: &[(&[u8], &[u8])]) -> (Option<Kind>, String) {
        // A path with a slash at its end is another one to a strict router, and says nothing of the API.
        let (route, query) = target.split_at(path(target).len());
        let target = &format!("{}{query}", route.trim_end_matches('/'));
        let responses = self.upstream.path(target);
        let (answer, opening) = match self.told {
            UpstreamApi::Http => (Answer::No, "WebSocket is not to be used".to_owned()),
            _ => self.opens_websocket(&responses, credentials).await,
        };
        if let Answer::Yes = answer {
            return (Some(Kind::WebSocket), opening);
        }
        let (has_responses, posted) = self.takes(&responses, credentials).await;
        let told = format!("{opening}; {posted}");
        match (answer, has_responses) {
            (Answer::No, Answer::Yes) => return (Some(Kind::Responses), told),
            (_, Answer::No) => {}
            (_, _) => return (None, told),
        }
        let chat = chat_target(target);
        let chat = self.upstream.path(&chat);
        let (has_chat, asked) = self.takes(&chat, credentials).await;
        let told = format!("{told}; {asked}");
        match has_chat {
            // What answered a create has an API for it, whatever it says of this path.
            Answer::Yes if self.answers_creates.load(Ordering::Relaxed) => (None, told),
            Answer::Yes => (Some(Kind::Chat), told),
            // A gateway says so, too, before it knows its routes.
            Answer::No | Answer::Unclear => (None, told),
        }
    }

    /// Whether a WebSocket can be opened there.
    async fn opens_websocket(
        &self,
        target: &str,
        credentials: &[(&[u8], &[u8])],
    ) -> (Answer, String) {
        let fields = credentials.iter().copied();
        match ws::dial(&self.dial, target, fields, PATIENCE).await {
            Ok((socket, head)) => {
                socket.close(None).await;
                (
                    Answer::Yes,
                    format!("GET {} with Upgrade answered {}", path(target), head.status),
                )
            }
            Err(NotOpened::Refused { head, .. }) => {
                let answer = match judged(head.status) {
                    Answer::Unclear => Answer::Unclear,
                    // Whatever it is, it is no WebSocket.
                    Answer::Yes | Answer::No => Answer::No,
                };
                (
                    answer,
                    format!("GET {} with Upgrade answered {}", path(target), head.status),
                )
            }
            Err(NotOpened::Failed(error)) => (Answer::Unclear, error.to_string()),
        }
    }

    /// Whether there is an API there: what is sent is no JSON, so that it can only be refused.
    async fn takes(&self, target: &str, credentials: &[(&[u8], &[u8])]) -> (Answer, String) {
        match self.post(target, credentials).await {
            Ok(status) => (
                judged(status),
                format!("POST {} answered {status}", path(target)),
            ),
            Err(error) => (Answer::Unclear, error.to_string()),
        }
    }

    async fn post(
        &self,
        target: &str,
        credentials: &[(&[u8], &[u8])],
    ) -> Result<u16, ChannelError> {
        let mut request = Vec::with_capacity(512);
        start_request(&mut request, "POST", target, &self.upstream.authority());
        for (name, value) in credentials {
            push_field(&mut request, name, value);
        }
        push_field(&mut request, b"content-type", b"application/json");
        push_field(&mut request, b"content-length", b"1");
        push_field(&mut request, b"connection", b"close");
        request.extend_from_slice(b"\r\n{");
        let mut connection = Connection::dial(&self.dial).await?.connection;
        connection.send(&request).await?;
        let response = connection.response("POST", self.dial.idle_timeout).await?;
        Ok(response.head.status)
    }
}

impl State {
    /// Whether it is too soon to ask again.
    fn pauses(&self, now: Stamp) -> bool {
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.attempts.saturating_sub(1).min(16));
        let pause = doubled.min(LONGEST_PAUSE).as_nanos() as i64;
        self.asked.is_some_and(|asked| now.since(asked) < pause)
    }
}

/// What is shown of a target: a query may hold a key.
fn path(target: &str) -> &str {
    target.split('?').next().unwrap_or_default()
}

/// What a status says of whether there is something at a path.
fn judged(status: u16) -> Answer {
    match status {
        404 | 405 | 501 => Answer::No,
        401 | 403 | 407 | 408 | 429 | 500.. => Answer::Unclear,
        _ => Answer::Yes,
    }
}

/// Whether a status of an answer to a create may mean that the upstream has no Responses API.
pub(crate) fn may_lack_responses(status: u16) -> bool {
    matches!(judged(status), Answer::No)
}
