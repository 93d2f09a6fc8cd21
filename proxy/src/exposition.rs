//! Prometheus' older text format (version 0.0.4), made from OpenMetrics: for scrapers that do not ask for the newer one.

use std::collections::BTreeSet;

/// The same samples without exemplars, units and the end mark, and with counters named as their samples are.
pub(crate) fn prometheus_text(openmetrics: &str) -> String {
    let counters: BTreeSet<_> = openmetrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut text = String::with_capacity(openmetrics.len());
    for line in openmetrics.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        match described(line) {
            Some((head, name, rest)) if counters.contains(name) => {
                text.extend([head, name, "_total", rest]);
            }
            Some(_) => text.push_str(line),
            // Label values hold no " # {": they are names of channels, outcomes and bounds.
            None => text.push_str(line.split(" # {").next().unwrap_or(line)),
        }
        text.push('\n');
    }
    text
}

/// The parts of a line that describes a metric: `# HELP `, the name, the rest.
fn described(line: &str) -> Option<(&str, &str, &str)> {
    let length = line
        .strip_prefix("# HELP ")
        .or(line.strip_prefix("# TYPE "))
        .map(|_| "# HELP ".len())?;
    let (head, described) = line.split_at(length);
    let end = described.find(' ')?;
    let (name, rest) = described.split_at(end);
    Some((head, name, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_older_format_does_not_have_is_left_out() {
        let openmetrics = "# HELP a Things.\n# TYPE a counter\na_total{channel=\"ws\"} 3\n\
            # HELP b_seconds Time.\n# TYPE b_seconds histogram\n# UNIT b_seconds seconds\n\
            b_seconds_bucket{le=\"0.1\"} 1 # {trace_id=\"00ab\"} 0.05\nb_seconds_count 1\n# EOF\n";
        let text = "# HELP a_total Things.\n# TYPE a_total counter\na_total{channel=\"ws\"} 3\n\
            # HELP b_seconds Time.\n# TYPE b_seconds histogram\n\
            b_seconds_bucket{le=\"0.1\"} 1\nb_seconds_count 1\n";
        assert_eq!(prometheus_text(openmetrics), text);
    }
}
