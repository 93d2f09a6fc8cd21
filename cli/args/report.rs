//! Flags of `report`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use tokenlag_probes::Metric;

use super::values::Output;
use crate::rows::RowName;

/// Flags of `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ReportCommand,
}

/// What to do with a recorded run.
#[derive(Debug, Subcommand)]
pub enum ReportCommand {
    /// Make a run's report again, from its folder
    Show {
        /// The run's folder
        folder: PathBuf,
        /// A row to compare the others with, as in http/incremental, whatever the run's own baselines were; may be repeated
        #[arg(long, value_name = "ROW")]
        baseline: Vec<RowName>,
        /// What goes to standard output
        #[arg(long, value_enum, default_value_t)]
        output: Output,
        /// Show the legs of the first token, and each overhead beyond its floor
        #[arg(long)]
        legs: bool,
    },
    /// Show how a figure grows over a session: its median at each turn, row by row
    Turns {
        /// The run's folder
        folder: PathBuf,
        /// The figure, by its name in docs/metrics.md
        #[arg(long, default_value = "request_transfer")]
        figure: Metric,
    },
    /// Print a run in a format that other tools read
    Export {
        /// The run's folder
        folder: PathBuf,
        /// The format
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

/// A format of `report export`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// report.json
    #[default]
    Json,
    /// A line per row and figure
    Csv,
    /// HdrHistogram's percentile distributions, one after the other
    Hgrm,
}
