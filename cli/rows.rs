//! Which rows a comparison has.

use std::str::FromStr;

use tokenlag_probes::{Encoding, Row, State, StateAt, Transport};

/// The rows of a comparison where none are asked for: each channel as its users have it, and all but the cold one with
/// both states.
const DEFAULT: [Row; 12] = [
    DIRECT,
    Row::HTTP_COLD_FULL,
    Row::HTTP_FULL,
    Row::events(Transport::Http, State::Incremental),
    Row::events(Transport::Http2, State::Full),
    Row::events(Transport::Http2, State::Incremental),
    Row::events(Transport::Http3, State::Full),
    Row::events(Transport::Http3, State::Incremental),
    Row::events(Transport::Ws, State::Full),
    Row::events(Transport::Ws, State::Incremental),
    Row::events(Transport::Quic, State::Full),
    Row::events(Transport::Quic, State::Incremental),
];

/// The same where little time may be spent: the channels that the question is about, and their baselines.
const QUICK: [Row; 7] = [
    DIRECT,
    Row::HTTP_COLD_FULL,
    Row::HTTP_FULL,
    Row::events(Transport::Ws, State::Full),
    Row::events(Transport::Ws, State::Incremental),
    Row::events(Transport::Quic, State::Full),
    Row::events(Transport::Quic, State::Incremental),
];

/// The control.
const DIRECT: Row = Row::events(Transport::Direct, State::Full);

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

/// What is asked for; an empty list: nothing is said.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Channels.
    pub channels: &'a [Transport],
    /// States.
    pub states: &'a [State],
    /// Encodings.
    pub encodings: &'a [Encoding],
    /// Rows that come along, whatever else is asked for.
    pub baselines: &'a [RowName],
    /// The control comes along.
    pub direct: bool,
    /// Fewer rows, where no channel is asked for.
    pub quick: bool,
    /// Where conversations are kept; `None`: where the proxy keeps them unless it is told otherwise.
    pub state_at: Option<StateAt>,
}

/// The rows to run, in the order of the tables: channels, states and encodings crossed. A channel that lacks all of the
/// encodings asked for has the events that it always has, so that others can be compared with it. The control and the
/// baselines come along unless it is said otherwise.
///
/// # Errors
/// A row that cannot be had, and what to ask for instead; or no row at all.
pub fn select(wanted: &Wanted<'_>) -> Result<Vec<Row>, String> {
    let mut rows = crossed(wanted);
    rows.extend(wanted.baselines.iter().map(|name| name.0));
    if wanted.direct {
        rows.push(DIRECT);
    } else {
        rows.retain(|row| row.transport != Transport::Direct);
    }
    rows.sort_unstable();
    rows.dedup();
    for row in &rows {
        check(row, wanted.state_at)?;
    }
    let compact = |row: &Row| row.encoding == Encoding::Compact;
    if wanted.encodings.contains(&Encoding::Compact) && !rows.iter().any(compact) {
        return Err(format!("{NOT_COMPACT}; name one of them in --channels"));
    }
    match rows[..] {
        [] => Err("no row is left to run; name some in --channels".to_owned()),
        _ => Ok(rows),
    }
}

/// The rows that the others are compared with: those that are named; else the two that are usual; where neither of them
/// runs, the first that does.
pub fn baselines(named: &[RowName], rows: &[Row]) -> Vec<Row> {
    let usual = [Row::HTTP_COLD_FULL, Row::HTTP_FULL];
    let is_control = |row: &&Row| row.transport == Transport::Direct;
    match rows.iter().find(|row| !is_control(row)) {
        _ if !named.is_empty() => named.iter().map(|name| name.0).collect(),
        Some(&first) if !usual.iter().any(|row| rows.contains(row)) => vec![first],
        _ => usual.to_vec(),
    }
}

fn crossed(wanted: &Wanted<'_>) -> Vec<Row> {
    let usual = match wanted.quick {
        true => &QUICK[..],
        false => &DEFAULT,
    };
    let pairs: Vec<(Transport, State)> = match wanted.channels {
        [] => usual
            .iter()
            .map(|row| (row.transport, row.state))
            .filter(|(_, state)| wanted.states.is_empty() || wanted.states.contains(state))
            .collect(),
        channels => channels
            .iter()
            .flat_map(|&transport| {
                let states = states_of(transport, wanted.states);
                states.iter().map(move |&state| (transport, state))
            })
            .collect(),
    };
    let rows = pairs.into_iter().flat_map(|(transport, state)| {
        let has = |encoding: &Encoding| transport.has_encoding(*encoding);
        let mut encodings: Vec<Encoding> = wanted.encodings.iter().copied().filter(has).collect();
        if encodings.is_empty() {
            encodings.push(Encoding::Events);
        }
        encodings.into_iter().map(move |encoding| Row {
            transport,
            state,
            encoding,
        })
    });
    rows.collect()
}

/// The states of a channel that was named. The control resends the conversation unless it is said otherwise.
fn states_of(transport: Transport, asked: &[State]) -> &[State] {
    match (asked, transport) {
        ([], Transport::Direct) => &[State::Full],
        ([], _) => &[State::Full, State::Incremental],
        (asked, _) => asked,
    }
}

const NOT_COMPACT: &str = "only quic and pair-quic have the compact encoding";

/// Refuses what cannot be had.
fn check(row: &Row, state_at: Option<StateAt>) -> Result<(), String> {
    if !row.transport.has_encoding(row.encoding) {
        return Err(format!("{row}: {NOT_COMPACT}"));
    }
    let kept_by_proxy = state_at != Some(StateAt::Upstream);
    if row.transport == Transport::Direct && row.state == State::Incremental && kept_by_proxy {
        return Err(format!(
            "{row}: there is no proxy on its way that keeps conversations; leave direct out of --channels ({DIRECT} comes \
             along by itself), or let the backend keep them for all rows with --state-at upstream"
        ));
    }
    Ok(())
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
