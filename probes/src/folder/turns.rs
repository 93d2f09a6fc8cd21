//! One figure by turn, from `exchanges.jsonl`: how it grows with the conversation.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::Deserialize;

use crate::histogram::nearest_rank;
use crate::metric::Metric;
use crate::row::Row;

use super::error::{FolderError, reading};
use super::{EXCHANGES, RunFolder};

/// Values of each row's turn that are kept; those after them are left out of its median.
const KEPT: usize = 100_000;

/// The median of one figure at each turn of each row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turns {
    /// The figure; of one that an exchange has for each delta, the exchanges' means.
    pub metric: Metric,
    /// Nanoseconds, by row and turn, from 0. A turn without a value is absent.
    pub p50_ns: BTreeMap<Row, BTreeMap<u32, i64>>,
}

/// What is read of a line.
#[derive(Deserialize)]
struct Line {
    row: String,
    turn: u32,
    #[serde(default)]
    figures: BTreeMap<String, f64>,
    #[serde(default)]
    means: BTreeMap<String, f64>,
}

impl RunFolder {
    /// The medians of one figure by turn, of the run at `folder`.
    ///
    /// # Errors
    /// The run's exchanges cannot be read, or are none. A last line that an interruption cut is passed over.
    pub fn turns(folder: &Path, metric: Metric) -> Result<Turns, FolderError> {
        let path = folder.join(EXCHANGES);
        let mut file = BufReader::new(File::open(&path).map_err(reading(&path))?);
        let mut values: BTreeMap<(Row, u32), Vec<i64>> = BTreeMap::new();
        let mut text = Vec::new();
        loop {
            text.clear();
            if file.read_until(b'\n', &mut text).map_err(reading(&path))? == 0 {
                break;
            }
            let (row, turn, value) = match value(&text, metric) {
                Ok(read) => read,
                Err(_) if !text.ends_with(b"\n") => break,
                Err(reason) => return Err(FolderError::Content { path, reason }),
            };
            let kept = values.entry((row, turn)).or_default();
            if let Some(value) = value.filter(|_| kept.len() < KEPT) {
                kept.push(value);
            }
        }
        let mut p50_ns: BTreeMap<Row, BTreeMap<u32, i64>> = BTreeMap::new();
        for ((row, turn), mut values) in values {
            values.sort_unstable();
            let rank = nearest_rank(0.5, values.len() as u64) as usize;
            if let Some(&median) = values.get(rank.saturating_sub(1)) {
                p50_ns.entry(row).or_default().insert(turn, median);
            }
        }
        Ok(Turns { metric, p50_ns })
    }
}

/// The row, the turn and the figure of a line.
fn value(text: &[u8], metric: Metric) -> Result<(Row, u32, Option<i64>), String> {
    let line: Line = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let row = line
        .row
        .parse()
        .map_err(|_| format!("no row is named '{}'", line.row))?;
    let name = metric.name();
    let value = line.figures.get(name).or(line.means.get(name));
    Ok((row, line.turn, value.map(|nanos| *nanos as i64)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn read(text: &[u8]) -> Result<Turns, FolderError> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(EXCHANGES), text).unwrap();
        RunFolder::turns(folder.path(), Metric::RequestTransfer)
    }

    fn line(row: &str, turn: u32, nanos: i64) -> String {
        format!(
            r#"{{"row":"{row}","turn":{turn},"figures":{{"request_transfer":{nanos}}},"means":{{}},"more":1}}"#
        ) + "\n"
    }

    #[test]
    fn medians_stand_by_row_and_turn() {
        let mut text = String::new();
        for (turn, nanos) in [(0, 5), (1, 50), (0, 7), (1, 10), (1, 70)] {
            text += &line("ws/full", turn, nanos);
        }
        text += &line("quic/full/compact", 3, -4);
        // Not joined: it has no such figure.
        text += "{\"row\":\"direct/full\",\"turn\":0,\"figures\":{},\"means\":{}}\n";
        // Cut by an interruption.
        text += "{\"row\":\"ws/fu";
        let turns = read(text.as_bytes()).unwrap();
        let of = |row: &str| turns.p50_ns.get(&row.parse().unwrap()).cloned();
        assert_eq!(of("ws/full"), Some([(0, 5), (1, 50)].into()));
        assert_eq!(of("quic/full/compact"), Some([(3, -4)].into()));
        assert_eq!(of("direct/full"), None);
    }

    #[test]
    fn what_is_no_exchange_is_told_with_the_file() {
        for text in ["{}\n", "{\"row\":\"moon\",\"turn\":0}\n", "x\n"] {
            let told = read(text.as_bytes()).unwrap_err().to_string();
            assert!(told.contains("exchanges.jsonl is damaged"), "{told}");
        }
        let nowhere = RunFolder::turns(Path::new("/nowhere"), Metric::Ttft);
        assert!(
            nowhere
                .unwrap_err()
                .to_string()
                .contains("is this the folder of a run")
        );
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(
            noise in prop::collection::vec(any::<u8>(), 0..200), turn in any::<u32>(), nanos in any::<i64>()
        ) {
            let mut text = line("http/full", turn, nanos).into_bytes();
            text.extend_from_slice(&noise);
            let _ = read(&text);
            let _ = read(&noise);
        }
    }
}
