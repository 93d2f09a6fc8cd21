//! What the command line asks for.

use std::time::Duration;

use crate::streams::Streams;

/// The bench's parts, in their order.
pub const PARTS: [&str; 4] = ["proxy", "sse", "load", "bare"];
/// With whom tokenlag is compared.
const PEERS: [&str; 8] = [
    "haproxy",
    "nginx",
    "oha",
    "wrk",
    "aiperf",
    "hyper",
    "tungstenite",
    "quinn",
];
/// The cells of the part about streams.
const CELLS: [Streams; 2] = [
    Streams::USUAL,
    Streams {
        count: 1_000,
        gap: Duration::from_millis(50),
        tokens: 200,
        turns: 1,
    },
];

#[derive(Debug, Default)]
pub struct Wanted {
    parts: Vec<String>,
    peers: Vec<String>,
    pub cells: Vec<Streams>,
    /// A few short turns: to see that it works, not to learn anything.
    pub quick: bool,
    turns: Option<usize>,
}

impl Wanted {
    /// Reads the words; the error says what they may be.
    pub fn read(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut wanted = Self::default();
        for word in words {
            if PARTS.contains(&word.as_str()) {
                wanted.parts.push(word);
            } else if PEERS.contains(&word.as_str()) {
                wanted.peers.push(word);
            } else if let Some(cell) = CELLS.into_iter().find(|cell| cell.name() == word) {
                wanted.cells.push(cell);
            } else if word == "quick" {
                wanted.quick = true;
            } else if let Some(turns) = word
                .strip_prefix("turns=")
                .and_then(|word| word.parse().ok())
            {
                wanted.turns = Some(turns);
            } else {
                return Err(format!(
                    "'{word}' is no part ({}), no peer ({}), no cell ({}), not quick, and not turns=NUMBER",
                    PARTS.join(", "),
                    PEERS.join(", "),
                    CELLS.map(Streams::name).join(", ")
                ));
            }
        }
        if wanted.cells.is_empty() {
            wanted.cells.extend(CELLS);
        }
        Ok(wanted)
    }

    pub fn has_part(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|known| known == part)
    }

    pub fn has_peer(&self, peer: &str) -> bool {
        self.peers.is_empty() || self.peers.iter().any(|known| known == peer)
    }

    /// Turns of each side, where usually there are so many.
    pub fn turns(&self, usual: usize) -> usize {
        self.turns.unwrap_or(if self.quick { 2 } else { usual })
    }
}

impl Streams {
    /// Where there is one cell.
    pub const USUAL: Self = Self {
        count: 64,
        gap: Duration::from_millis(2),
        tokens: 200,
        turns: 3,
    };

    /// As it is named on the command line.
    pub fn name(self) -> String {
        format!("{}@{}ms", self.count, self.gap.as_millis())
    }
}
