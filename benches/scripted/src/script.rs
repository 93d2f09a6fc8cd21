//! What a reply does and when: written in code, or in a line of `key=value` pairs.

use std::str::FromStr;
use std::time::Duration;

use tokenlag_dialect::Dialect;

/// Most events, writes and pings that a script may ask for.
const MOST: u32 = 100_000;
/// Most tokens of a reply.
const MOST_TOKENS: u32 = 4_000_000;
/// The longest time that a script may ask for.
const LONGEST: Duration = Duration::from_secs(120);

/// When the events go out that stand before the first delta (the role chunk of chat, `response.created`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Early {
    /// With the head of the reply, long before the first token, as most servers do it.
    #[default]
    WithHead,
    /// In the write of the first delta.
    WithFirstToken,
}

/// How a reply ends. Tokens count from 1; an ending at token k takes place at the moment of token k, in its stead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// With the dialect's terminal event.
    #[default]
    Complete,
    /// The body ends as HTTP has it, without the terminal event.
    Truncate(u32),
    /// The connection is closed in the middle of the body.
    Close(u32),
    /// The connection is reset (RST) in the middle of the body.
    Reset(u32),
}

/// A pause: token `token` (from 1) and all after it come `pause` later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// The first token that is late.
    pub token: u32,
    /// By how much.
    pub pause: Duration,
}

/// What one reply does and when. Times count from the read of the request's last byte.
///
/// As text: `ttft=5ms,gap=1ms,tokens=20`, each key the name of a field, or of an ending (`truncate=K`, `close=K`, `reset=K`),
/// with `early=head|token` for [`Early`], `stall=K:20ms` and `usage=yes|no`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Until the first token.
    pub ttft: Duration,
    /// Between tokens.
    pub gap: Duration,
    /// Tokens that are due at the same moment, that of the first of them, each in a write of its own. The mean gap stays.
    pub burst: u32,
    /// Tokens of the reply; `None`: as many as the request asks for, else 16.
    pub tokens: Option<u32>,
    /// Tokens in one event, which is one delta. It leaves when its last token is due.
    pub tokens_per_event: u32,
    /// Events in one write, which leaves when its last event is due: what a buffering server does.
    pub events_per_write: u32,
    /// Writes (and HTTP chunks) into which each event is cut.
    pub writes_per_event: u32,
    /// Between the pieces of an event.
    pub piece_pause: Duration,
    /// When the events before the first delta go out.
    pub early: Early,
    /// Comments (`: ping`) between head and first token, evenly spread.
    pub pings: u32,
    /// Until the head of the reply.
    pub head: Duration,
    /// A pause in the middle.
    pub stall: Option<Stall>,
    /// How it ends.
    pub ending: Ending,
    /// This token's event (from 1) is broken JSON.
    pub malformed: Option<u32>,
    /// The one API that there is; the others answer 404. `None`: all are there.
    pub only: Option<Dialect>,
    /// Answer with this HTTP status and an error body instead.
    pub status: Option<u16>,
    /// Prompt tokens of the usage; `None`: the words of the request's body.
    pub input: Option<u64>,
    /// Cached prompt tokens of the usage.
    pub cached: u64,
    /// The reply tells its usage where the request asked for it (the Responses API always does).
    pub usage: bool,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            ttft: Duration::from_millis(5),
            gap: Duration::from_millis(1),
            burst: 1,
            tokens: None,
            tokens_per_event: 1,
            events_per_write: 1,
            writes_per_event: 1,
            piece_pause: Duration::from_micros(200),
            early: Early::default(),
            pings: 0,
            head: Duration::ZERO,
            stall: None,
            ending: Ending::default(),
            malformed: None,
            only: None,
            status: None,
            input: None,
            cached: 0,
            usage: true,
        }
    }
}

/// A line that is no script; says which pair and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("script: '{pair}': {reason}")]
pub struct BadScript {
    pair: String,
    reason: String,
}

impl Script {
    /// This script with the changes of a line of `key=value` pairs.
    ///
    /// # Errors
    ///
    /// [`BadScript`] names the pair that is wrong.
    pub fn with(mut self, line: &str) -> Result<Self, BadScript> {
        for pair in line.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            self.set(pair).map_err(|reason| BadScript {
                pair: pair.to_owned(),
                reason,
            })?;
        }
        Ok(self)
    }

    /// When token `k` (from 1) is due, counted from the request's last byte.
    pub fn due(&self, token: u32) -> Duration {
        let late = match self.stall {
            Some(stall) if token >= stall.token => stall.pause,
            _ => Duration::ZERO,
        };
        let before = token.saturating_sub(1) / self.burst * self.burst;
        self.ttft + self.gap * before + late
    }

    fn set(&mut self, pair: &str) -> Result<(), String> {
        let (key, value) = pair.split_once('=').ok_or("write it as key=value")?;
        match key {
            "ttft" => self.ttft = duration(value)?,
            "gap" => self.gap = duration(value)?,
            "burst" => self.burst = count(value, 1)?,
            "tokens" => self.tokens = Some(number(value, 0, MOST_TOKENS)?),
            "tokens_per_event" => self.tokens_per_event = count(value, 1)?,
            "events_per_write" => self.events_per_write = count(value, 1)?,
            "writes_per_event" => self.writes_per_event = count(value, 1)?,
            "piece_pause" => self.piece_pause = duration(value)?,
            "early" => {
                self.early = match value {
                    "head" => Early::WithHead,
                    "token" => Early::WithFirstToken,
                    _ => return Err("is head or token".to_owned()),
                }
            }
            "pings" => self.pings = count(value, 0)?,
            "head" => self.head = duration(value)?,
            "stall" => {
                let (token, pause) = value.split_once(':').ok_or("write it as stall=7:20ms")?;
                self.stall = Some(Stall {
                    token: number(token, 1, MOST_TOKENS)?,
                    pause: duration(pause)?,
                });
            }
            "truncate" => self.ending = Ending::Truncate(number(value, 1, MOST_TOKENS)?),
            "close" => self.ending = Ending::Close(number(value, 1, MOST_TOKENS)?),
            "reset" => self.ending = Ending::Reset(number(value, 1, MOST_TOKENS)?),
            "malformed" => self.malformed = Some(number(value, 1, MOST_TOKENS)?),
            "only" => {
                let only = value
                    .parse()
                    .map_err(|_| "is responses, chat or completions")?;
                self.only = Some(only);
            }
            "status" => {
                let status = value.parse().ok().filter(|code| (400..600).contains(code));
                self.status = Some(status.ok_or("is an HTTP error status, 400 to 599")?);
            }
            "input" => self.input = Some(u64::from(count(value, 0)?)),
            "cached" => self.cached = u64::from(count(value, 0)?),
            "usage" => {
                self.usage = match value {
                    "yes" => true,
                    "no" => false,
                    _ => return Err("is yes or no".to_owned()),
                }
            }
            _ => {
                return Err("unknown key; known: ttft, gap, burst, tokens, tokens_per_event, events_per_write, \
                            writes_per_event, piece_pause, early, pings, head, stall, truncate, close, reset, \
                            malformed, only, status, input, cached, usage"
                    .to_owned());
            }
        }
        Ok(())
    }
}

impl FromStr for Script {
    type Err = BadScript;

    fn from_str(line: &str) -> Result<Self, BadScript> {
        Script::default().with(line)
    }
}

fn count(value: &str, least: u32) -> Result<u32, String> {
    number(value, least, MOST)
}

fn number(value: &str, least: u32, most: u32) -> Result<u32, String> {
    let number = value.parse().ok();
    number
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("is a number from {least} to {most}"))
}

fn duration(value: &str) -> Result<Duration, String> {
    // humantime wants a unit; a bare zero needs none.
    let duration = match value {
        "0" => Ok(Duration::ZERO),
        _ => humantime::parse_duration(value),
    };
    let duration = duration.map_err(|error| format!("is a time as in 5ms or 200us: {error}"))?;
    match duration <= LONGEST {
        true => Ok(duration),
        false => Err(format!(
            "is no longer than {}",
            humantime::format_duration(LONGEST)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_error(line: &str, words: &str) {
        let message = line.parse::<Script>().unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }

    #[test]
    fn a_line_sets_every_field() {
        let script: Script = "ttft=5ms, gap=200us,burst=8,tokens=9,tokens_per_event=2,events_per_write=3,writes_per_event=4,\
                              piece_pause=0,early=token,pings=2,head=1ms,stall=3:20ms,reset=7,malformed=4,only=chat,status=503,\
                              input=11,cached=5,usage=no"
            .parse()
            .unwrap();
        let expected = Script {
            ttft: Duration::from_millis(5),
            gap: Duration::from_micros(200),
            burst: 8,
            tokens: Some(9),
            tokens_per_event: 2,
            events_per_write: 3,
            writes_per_event: 4,
            piece_pause: Duration::ZERO,
            early: Early::WithFirstToken,
            pings: 2,
            head: Duration::from_millis(1),
            stall: Some(Stall {
                token: 3,
                pause: Duration::from_millis(20),
            }),
            ending: Ending::Reset(7),
            malformed: Some(4),
            only: Some(Dialect::Chat),
            status: Some(503),
            input: Some(11),
            cached: 5,
            usage: false,
        };
        assert_eq!(script, expected);
        assert_eq!("".parse(), Ok(Script::default()));
    }

    #[test]
    fn errors_name_the_pair_and_what_it_should_be() {
        check_error("ttft=5", "'ttft=5': is a time as in 5ms");
        check_error("gap=1h", "no longer than 2m");
        check_error("tokens", "'tokens': write it as key=value");
        check_error("tokens_per_event=0", "is a number from 1 to");
        check_error("tokens=5000000", "is a number from 0 to");
        check_error("status=200", "400 to 599");
        check_error("stall=20ms", "stall=7:20ms");
        check_error("tokns=3", "unknown key; known: ttft");
        check_error("only=soap", "is responses, chat or completions");
        check_error("early=soon", "is head or token");
        check_error("usage=maybe", "is yes or no");
    }

    #[test]
    fn tokens_are_due_on_an_absolute_schedule() {
        let script: Script = "ttft=10ms,gap=2ms,stall=3:5ms".parse().unwrap();
        let due: Vec<u128> = (1..=4).map(|k| script.due(k).as_millis()).collect();
        assert_eq!(due, [10, 12, 19, 21]);
        let script: Script = "ttft=10ms,gap=2ms,burst=3".parse().unwrap();
        let due: Vec<u128> = (1..=7).map(|k| script.due(k).as_millis()).collect();
        assert_eq!(due, [10, 10, 10, 16, 16, 16, 22]);
    }
}
