//! Values of flags, parsed where they come in.

use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;
use tokenlag_loadgen::{Burstiness, Rate};

/// A span as people write it: `20s`, `1m 30s`, or plain seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let span = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?,
        Err(_) => humantime::parse_duration(text)
            .map_err(|error| format!("{error}; write it like 20s or 1m30s"))?,
    };
    if span.is_zero() {
        return Err("must be longer than nothing".to_owned());
    }
    Ok(span)
}

/// A share as people write it: `2%`, or `0.02`.
pub fn share(text: &str) -> Result<f64, String> {
    let (number, unit) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    let share = number.trim().parse::<f64>().ok().map(|it| it / unit);
    share
        .filter(|share| (0.0001..=1.0).contains(share))
        .ok_or_else(|| "write it like 2%, from 0.01% to 100%".to_owned())
}

/// Arrivals per second.
pub fn rate(text: &str) -> Result<Rate, String> {
    let number: f64 = text.parse().map_err(|_| "must be a number".to_owned())?;
    Rate::new(number).ok_or_else(|| "must lie between 0.00001 and 10000000 a second".to_owned())
}

/// The shape of gamma gaps.
pub fn burstiness(text: &str) -> Result<Burstiness, String> {
    let number: f64 = text.parse().map_err(|_| "must be a number".to_owned())?;
    Burstiness::new(number).ok_or_else(|| "must lie between 0.01 and 1000".to_owned())
}

/// A header field: `Name: value`.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value: may be a secret.
    pub value: String,
}

/// Keeps the value out of logs.
impl std::fmt::Debug for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: ...", self.name)
    }
}

impl FromStr for Header {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text
            .split_once(':')
            .ok_or("a header is written 'Name: value'")?;
        let (name, value) = (name.trim(), value.trim());
        // RFC 9110, section 5.6.2.
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(is_allowed) {
            return Err("a header is written 'Name: value'".to_owned());
        }
        Ok(Self {
            name: name.to_owned(),
            value: value.to_owned(),
        })
    }
}

/// A key that must not be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("...")
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

/// How progress is shown, on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Ui {
    /// A progress bar where standard error is a terminal
    #[default]
    Auto,
    /// A line now and then
    Simple,
    /// Nothing but errors
    None,
}

/// What goes to standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Tables for people
    #[default]
    Table,
    /// report.json
    Json,
    /// A line per row and figure
    Csv,
}

/// What makes sessions arrive in an open loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pattern {
    /// Equal gaps
    Constant,
    /// Exponential gaps
    Poisson,
    /// Gamma gaps, see --burstiness
    Gamma,
}

/// What may be done, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Where it can be
    #[value(alias = "true")]
    On,
    /// Never
    #[value(alias = "false")]
    Off,
}

impl Switch {
    /// It may.
    pub fn is_on(self) -> bool {
        self == Self::On
    }
}

/// Whether processes are bound to cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pin {
    /// The backend on the last core, generator and proxies on the others
    #[default]
    Auto,
    /// Where the system puts them
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_headers_as_people_write_them() {
        assert_eq!(duration("20"), Ok(Duration::from_secs(20)));
        assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert!(duration("0").is_err());
        assert!(duration("soon").is_err());
        assert_eq!(share("2%"), Ok(0.02));
        assert_eq!(share("0.5"), Ok(0.5));
        assert!(share("0%").is_err() && share("200%").is_err() && share("x").is_err());
        let header: Header = "X-Team: a:b".parse().unwrap();
        assert_eq!((&*header.name, &*header.value), ("X-Team", "a:b"));
        assert!("no colon".parse::<Header>().is_err());
        assert!("X\r\nY: b".parse::<Header>().is_err());
        assert_eq!(format!("{header:?}"), "X-Team: ...");
    }
}
