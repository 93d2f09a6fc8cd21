//! Flags that `compare` and `load` share, as the values that they mean.

use serde_json::{Map, Value};
use tokenlag_loadgen::{Arrivals, Burstiness, Preset, Workload};
use tokenlag_probes::clock;

use crate::args::shared::{TargetArgs, WorkArgs};
use crate::args::values::Pattern;
use crate::exit::Usage;

/// Sessions that an open loop may have open at the same time where nothing else is said.
const OPEN_LOOP_SESSIONS: usize = 4_096;

/// The sessions' shape: a preset, or `default`, with what the flags change.
pub(super) fn shape(work: &WorkArgs, default: Workload) -> Workload {
    let preset = work.workload.map_or(default, Preset::workload);
    Workload {
        turns: work.turns.unwrap_or(preset.turns),
        first_input: work.isl.unwrap_or(preset.first_input),
        later_input: work.later_isl.unwrap_or(preset.later_input.max(1)),
        output: work.osl.unwrap_or(preset.output),
        least_output: preset.least_output.filter(|_| work.osl.is_none()),
        tool_calls: preset.tool_calls,
    }
}

/// What makes sessions arrive.
pub(super) fn arrivals(work: &WorkArgs) -> Arrivals {
    let Some(rate) = work.request_rate else {
        return Arrivals::Closed;
    };
    let burstiness = work.burstiness.or_else(|| Burstiness::new(1.0));
    match (work.arrival_pattern, burstiness) {
        (Some(Pattern::Constant), _) => Arrivals::Constant { rate },
        (Some(Pattern::Gamma), Some(burstiness)) => Arrivals::Gamma { rate, burstiness },
        _ => Arrivals::Poisson { rate },
    }
}

/// Sessions that may run side by side.
pub(super) fn concurrency(work: &WorkArgs) -> usize {
    match (work.concurrency, work.request_rate) {
        (Some(sessions), _) => sessions as usize,
        (None, Some(_)) => OPEN_LOOP_SESSIONS,
        (None, None) => 1,
    }
}

/// The headers of every request: the key first.
///
/// # Errors
/// One of them would break the head that it is written into. It is not shown: it may be a secret.
pub(super) fn headers(target: &TargetArgs) -> Result<Vec<(String, String)>, Usage> {
    let from_environment = || {
        std::env::var("OPENAI_API_KEY")
            .ok()
            .filter(|key| !key.is_empty())
    };
    let key = target
        .api_key
        .as_ref()
        .map(|key| key.0.clone())
        .or_else(from_environment);
    if key.as_deref().is_some_and(breaks_the_line) {
        let what =
            "the key (--api-key, OPENAI_API_KEY) has control characters, such as a line's end";
        return Err(Usage(what.to_owned()));
    }
    if let Some(header) = (target.header.iter()).find(|header| breaks_the_line(&header.value)) {
        return Err(Usage(format!(
            "the value of --header {} has control characters, such as a line's end",
            header.name
        )));
    }
    let authorization = key.map(|key| ("authorization".to_owned(), format!("Bearer {key}")));
    let given = target
        .header
        .iter()
        .map(|header| (header.name.clone(), header.value.clone()));
    Ok(authorization.into_iter().chain(given).collect())
}

/// What no field's value may hold (RFC 9110, section 5.5).
fn breaks_the_line(value: &str) -> bool {
    value.contains(|c: char| c.is_control() && c != '\t')
}

/// Further members of every body.
pub(super) fn extra_body(target: &TargetArgs) -> anyhow::Result<Map<String, Value>> {
    let Some(text) = &target.extra_body else {
        return Ok(Map::new());
    };
    let parsed = serde_json::from_str(text);
    Ok(parsed.map_err(|error| Usage(format!("--extra-body must be a JSON object: {error}")))?)
}

/// Another seed for each run, so that a backend that saw an earlier run finds none of its prompts cached.
pub(super) fn fresh_seed() -> u64 {
    let since = clock::wall_clock()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    // Kept below 2^53: the manifest is read by programs that know no larger whole numbers.
    (since.as_nanos() as u64 ^ u64::from(std::process::id()) << 20) & ((1 << 53) - 1)
}
