//! The pieces: what a token meets on its way, each by itself.

mod bridge;
mod decode;
mod ends;
mod frames;
mod history;
mod record;
mod relay;

/// Does as many rounds of a piece as it is told.
pub type Rounds = Box<dyn FnMut(u64)>;

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// What it belongs to: frames, relay and so on.
    pub group: &'static str,
    /// What it is.
    pub name: &'static str,
    /// How many rounds are counted: enough for what the process does beside them to vanish, and few enough for valgrind.
    pub rounds: u64,
    /// Makes it ready. What that costs is in no round.
    pub prepare: fn() -> Rounds,
}

impl Piece {
    const fn new(
        group: &'static str,
        name: &'static str,
        rounds: u64,
        prepare: fn() -> Rounds,
    ) -> Self {
        Self {
            group,
            name,
            rounds,
            prepare,
        }
    }

    /// Group and name.
    pub fn label(&self) -> String {
        format!("{}/{}", self.group, self.name)
    }

    /// The piece of that label.
    pub fn of_label(label: &str) -> Option<&'static Self> {
        PIECES.iter().find(|piece| piece.label() == label)
    }
}

/// All of them. A round is one token's, but for `record`, `relay/exchange` and `history`, whose names say what it is.
pub const PIECES: &[Piece] = &[
    Piece::new("decode", "responses", 1000, decode::responses),
    Piece::new("decode", "chat", 1000, decode::chat),
    Piece::new("decode", "completions", 1000, decode::completions),
    Piece::new("decode", "anthropic", 1000, decode::anthropic),
    Piece::new("decode", "ollama", 1000, decode::ollama),
    Piece::new("record", "exchange of 1,000 tokens", 64, record::exchange),
    Piece::new("frames", "http chunk written", 2000, frames::chunk_written),
    Piece::new("frames", "http chunk read", 2000, frames::chunk_read),
    Piece::new("frames", "http2 frame walked", 2000, frames::http2_walked),
    Piece::new("frames", "quic event written", 2000, frames::event_written),
    Piece::new("frames", "quic event read", 2000, frames::event_read),
    Piece::new("frames", "quic token written", 2000, frames::token_written),
    Piece::new("frames", "quic token read", 2000, frames::token_read),
    Piece::new("frames", "ws message, both ends", 1000, ends::ws),
    Piece::new("frames", "http2 data, both ends", 1000, ends::http2),
    Piece::new("relay", "http to http", 1000, relay::http_to_http),
    Piece::new("relay", "http to ws", 1000, relay::http_to_ws),
    Piece::new("relay", "exchange", 200, relay::exchange),
    Piece::new("bridge", "chat to responses", 2000, bridge::chat),
    Piece::new("history", "turn appended", 2048, history::append),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_piece_does_its_rounds() {
        for piece in PIECES {
            let mut rounds = (piece.prepare)();
            rounds(2);
            rounds(3);
        }
    }

    #[test]
    fn labels_tell_pieces_apart() {
        for piece in PIECES {
            let found = Piece::of_label(&piece.label()).map(|found| found.name);
            assert_eq!(found, Some(piece.name));
        }
        assert!(Piece::of_label("decode/nothing").is_none());
    }
}
