//! Spans, rates, sizes and shares as people write them in a link's parameters, and back.

use std::time::Duration;

/// The longest delay or jitter: a minute is beyond any link.
const LONGEST: Duration = Duration::from_secs(60);
/// The slowest and the fastest rate, in bits per second.
const RATES: std::ops::RangeInclusive<u64> = 1_000..=100_000_000_000;
/// The largest queue, in bytes.
pub(crate) const LARGEST: u64 = 1 << 30;
/// The smallest share that is not nothing at all: a billionth, less what rounding takes of it.
const SMALLEST: f64 = 0.999_999e-9;

const SPANS: [(&str, f64); 4] = [("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9)];
const BITS: [(&str, f64); 4] = [("bit", 1.0), ("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9)];
const BYTES: [(&str, f64); 5] = [
    ("b", 1.0),
    ("kb", 1e3),
    ("mb", 1e6),
    ("kib", 1024.0),
    ("mib", 1_048_576.0),
];

/// A span: `40ms`, `2.5ms`, `300us`, `1s`, or `0`.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let nanos = number_with(text, &SPANS).ok_or("write a span with its unit, as in 40ms")?;
    let span = Duration::from_nanos(nanos.round() as u64);
    match span <= LONGEST {
        true => Ok(span),
        false => Err("at most 60s".to_owned()),
    }
}

/// A rate in bits per second: `100mbit`, `1gbit`; `None` for `unlimited`.
pub(crate) fn rate(text: &str) -> Result<Option<u64>, String> {
    if text == "unlimited" {
        return Ok(None);
    }
    let text = text.strip_suffix("/s").unwrap_or(text);
    let bits = number_with(text, &BITS)
        .ok_or("write bits per second with their unit, as in 100mbit or 1gbit, or unlimited")?;
    let bits = bits.round() as u64;
    match RATES.contains(&bits) {
        true => Ok(Some(bits)),
        false => Err("from 1kbit to 100gbit".to_owned()),
    }
}

/// A size in bytes: `256kb`, `1mib`, `3000b`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let bytes = number_with(text, &BYTES).ok_or("write bytes with their unit, as in 256kb")?;
    match bytes <= LARGEST as f64 {
        true => Ok(bytes.round() as u64),
        false => Err("at most 1024mib".to_owned()),
    }
}

/// A share: `0.1%`, or `0.001`.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let (number, unit) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    let share = plain(number).map(|it| it / unit);
    let share = share
        .filter(|share| *share <= 1.0)
        .ok_or_else(|| "write a share, as in 0.1%, from 0% to 100%".to_owned())?;
    match share == 0.0 || share >= SMALLEST {
        true => Ok(share),
        false => Err("at least 0.0000001%, or 0%".to_owned()),
    }
}

fn number_with(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let text = text.to_ascii_lowercase();
    let end = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(end);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    Some(plain(number.trim())? * factor)
}

/// A number without a sign or an exponent.
fn plain(text: &str) -> Option<f64> {
    let is_plain = text.chars().all(|c| c.is_ascii_digit() || c == '.');
    text.parse()
        .ok()
        .filter(|it: &f64| is_plain && it.is_finite())
}

/// A span as [`span`] reads it.
pub(crate) fn show_span(span: Duration) -> String {
    show(span.as_nanos() as f64, &SPANS[1..]).unwrap_or_else(|| "0".to_owned())
}

/// A rate as [`rate`] reads it.
pub(crate) fn show_rate(bits: Option<u64>) -> String {
    match bits {
        Some(bits) => show(bits as f64, &BITS).unwrap_or_else(|| "0bit".to_owned()),
        None => "unlimited".to_owned(),
    }
}

/// A size as [`size`] reads it.
pub(crate) fn show_size(bytes: u64) -> String {
    show(bytes as f64, &BYTES[..3]).unwrap_or_else(|| "0b".to_owned())
}

/// A share as [`share`] reads it: in percent, but where rounding would make it another one.
pub(crate) fn show_share(given: f64) -> String {
    let percent = format!("{:.10}", given * 100.0);
    let percent = percent.trim_end_matches('0').trim_end_matches('.');
    let percent = format!("{percent}%");
    match share(&percent) == Ok(given) {
        true => percent,
        false => given.to_string(),
    }
}

/// In the largest unit that leaves something before the point; `None` for nothing at all.
fn show(value: f64, units: &[(&str, f64)]) -> Option<String> {
    let (first, _) = units.split_first()?;
    let fits = |unit: &&(&str, f64)| value >= unit.1;
    let (name, factor) = units.iter().rev().find(fits).unwrap_or(first);
    (value > 0.0).then(|| format!("{}{name}", value / factor))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_as_people_write_them() {
        assert_eq!(span("40ms"), Ok(Duration::from_millis(40)));
        assert_eq!(span("2.5ms"), Ok(Duration::from_micros(2_500)));
        assert_eq!(span("0"), Ok(Duration::ZERO));
        assert!(span("40").is_err() && span("-1ms").is_err() && span("2m").is_err());
        assert!(span("1e3ms").is_err() && span("61s").is_err() && span("ms").is_err());
        assert_eq!(rate("100mbit"), Ok(Some(100_000_000)));
        assert_eq!(rate("1.5Gbit/s"), Ok(Some(1_500_000_000)));
        assert_eq!(rate("unlimited"), Ok(None));
        assert!(rate("100").is_err() && rate("0mbit").is_err() && rate("100mb").is_err());
        assert_eq!(size("256kb"), Ok(256_000));
        assert_eq!(size("1MiB"), Ok(1_048_576));
        assert!(size("4096").is_err() && size("2000mib").is_err());
        assert_eq!(share("0.1%"), Ok(0.001));
        assert_eq!(share("1"), Ok(1.0));
        assert!(share("0.0000001%").is_ok() && share("0.000000001").is_ok());
        assert!(share("0.00000001%").is_err_and(|told| told.contains("at least")));
        assert!(share("101%").is_err() && share("").is_err() && share("-1%").is_err());
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(
            nanos in 0..=LONGEST.as_nanos() as u64,
            bits in proptest::option::of(RATES),
            bytes in 0..=LARGEST,
            given in prop_oneof![Just(0.0), SMALLEST..1e-6, 1e-6..=1.0],
        ) {
            let length = Duration::from_nanos(nanos);
            prop_assert_eq!(span(&show_span(length)), Ok(length));
            prop_assert_eq!(rate(&show_rate(bits)), Ok(bits));
            prop_assert_eq!(size(&show_size(bytes)), Ok(bytes));
            prop_assert_eq!(share(&show_share(given)), Ok(given));
        }
    }

    #[test]
    fn what_is_shown_is_short() {
        assert_eq!(show_rate(Some(100_000_000)), "100mbit");
        assert_eq!(show_size(256_000), "256kb");
        assert_eq!(show_share(0.001), "0.1%");
        assert_eq!(show_share(0.0), "0%");
        let billionth = share("0.0000001%").unwrap();
        assert_eq!(show_share(billionth), "0.0000001%");
        assert_eq!(show_share(1.0 / 3.0), "0.3333333333333333");
    }
}
