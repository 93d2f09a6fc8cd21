//! Which rows a comparison has.

use std::str::FromStr;

use tokenlag_probes::{Encoding, Row, State, Transport};

/// The rows of a comparison where none are asked for.
const DEFAULT: [Row; 7] = [
    Row::events(Transport::Direct, State::Full),
    Row::HTTP_COLD_FULL,
    Row::HTTP_FULL,
    Row::events(Transport::Ws, State::Full),
    Row::events(Transport::Ws, State::Incremental),
    Row::events(Transport::Quic, State::Full),
    Row::events(Transport::Quic, State::Incremental),
];

/// A row as it is written: `ws/incremental`, `quic/full/compact`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowName(pub Row);

impl FromStr for RowName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split('/');
        let transport: Transport = part(parts.next(), "a channel")?;
        let state: State = part(parts.next(), "a state, as in http/full")?;
        let encoding = match parts.next() {
            Some(name) => part(Some(name), "an encoding")?,
            None => Encoding::Events,
        };
        if parts.next().is_some() {
            return Err(format!(
                "'{text}' has too many parts; write it like ws/incremental"
            ));
        }
        Ok(Self(Row {
            transport,
            state,
            encoding,
        }))
    }
}

fn part<T: FromStr<Err: ToString>>(text: Option<&str>, what: &str) -> Result<T, String> {
    let text = text.ok_or_else(|| format!("it lacks {what}"))?;
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// The rows to run, in the order of the tables. Channels and states that are both named are crossed; one alone picks
/// from the default rows. The control and the baselines come along unless it is said otherwise.
pub fn select(
    channels: &[Transport],
    states: &[State],
    baselines: &[RowName],
    direct: bool,
) -> Result<Vec<Row>, String> {
    let mut rows: Vec<Row> = if channels.is_empty() || states.is_empty() {
        let picked = |row: &Row| {
            (channels.is_empty() || channels.contains(&row.transport))
                && (states.is_empty() || states.contains(&row.state))
        };
        DEFAULT.into_iter().filter(picked).collect()
    } else {
        let crossed = channels.iter().flat_map(|&transport| {
            let rows = states
                .iter()
                .map(move |&state| Row::events(transport, state));
            rows.filter(keeps_state)
        });
        crossed.collect()
    };
    rows.extend(baselines.iter().map(|name| name.0));
    rows.retain(|row| row.transport != Transport::Direct);
    if direct {
        rows.push(Row::events(Transport::Direct, State::Full));
    }
    rows.sort_unstable();
    rows.dedup();
    let asked = rows.iter().map(|row| row.transport);
    for transport in asked.chain(channels.iter().copied()) {
        check_built(transport)?;
    }
    if let Some(row) = rows.iter().find(|row| !keeps_state(row)) {
        return Err(format!("{row}: {STATELESS}"));
    }
    let lacks_encoding = |row: &&Row| !row.transport.has_encoding(row.encoding);
    if let Some(row) = rows.iter().find(lacks_encoding) {
        return Err(format!("{row}: only quic has the compact encoding"));
    }
    match rows[..] {
        [] => Err(format!("no row is left to run; {STATELESS}")),
        _ => Ok(rows),
    }
}

/// Refuses a channel that has a name and is not built into this command.
pub fn check_built(transport: Transport) -> Result<(), String> {
    match transport {
        Transport::Http2 | Transport::Http3 => {
            Err(format!("{transport}: this build cannot dial it"))
        }
        _ if transport.is_pair() => Err(format!(
            "{transport}: this build cannot put two proxies in line"
        )),
        _ => Ok(()),
    }
}

/// Why some channels have one state only.
const STATELESS: &str =
    "the proxy keeps conversations on ws and quic alone, so other channels have --state full";

/// Whether the row's state can be had on its channel: HTTP passes through the proxy untouched.
fn keeps_state(row: &Row) -> bool {
    row.state == State::Full || matches!(row.transport, Transport::Ws | Transport::Quic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(channels: &[Transport], states: &[State], baselines: &[&str], direct: bool) -> String {
        let baselines: Vec<RowName> = baselines.iter().map(|name| name.parse().unwrap()).collect();
        let rows = select(channels, states, &baselines, direct).unwrap();
        let names: Vec<String> = rows.iter().map(Row::to_string).collect();
        names.join(" ")
    }

    #[test]
    fn what_is_named_is_what_runs() {
        use State::{Full, Incremental};
        use Transport::{Http, Ws};
        assert_eq!(
            names(&[], &[], &[], true),
            "direct/full http-cold/full http/full ws/full ws/incremental quic/full quic/incremental"
        );
        assert_eq!(
            names(&[Ws, Http], &[], &[], true),
            "direct/full http/full ws/full ws/incremental"
        );
        assert_eq!(
            names(&[], &[Incremental], &[], false),
            "ws/incremental quic/incremental"
        );
        assert_eq!(
            names(&[Http, Ws], &[Full, Incremental], &[], false),
            "http/full ws/full ws/incremental"
        );
        assert_eq!(
            names(&[Ws], &[Full], &["http-cold/full"], false),
            "http-cold/full ws/full"
        );
        assert!(select(&[Transport::Direct], &[], &[], false).is_err());
        assert!(select(&[Http], &[Incremental], &[], false).is_err());
    }

    #[test]
    fn row_names_read_back() {
        for name in ["http/full", "quic/incremental/compact"] {
            assert_eq!(name.parse::<RowName>().unwrap().0.to_string(), name);
        }
        let error = "http/fulll".parse::<RowName>().unwrap_err();
        assert_eq!(error, "unknown state 'fulll'; known: full, incremental");
        assert!("http".parse::<RowName>().is_err());
    }
}
