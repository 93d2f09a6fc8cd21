//! The `tokenlag` command: reads flags, starts what is missing, calls a crate, chooses the exit code.

mod admin;
mod alarm;
mod allocations;
mod args;
mod book;
mod certificates;
mod clocks;
mod command_line;
mod compare;
mod conditions;
mod cpu;
mod ends;
mod exit;
mod finish;
mod floor;
mod host;
mod http;
mod kept;
mod lanes;
mod ledger;
mod legs;
mod limits;
mod link;
mod load;
mod lost;
mod measure;
mod models;
mod output;
mod pinning;
mod plan;
mod plan_file;
mod price;
mod profile;
mod program;
mod progress;
mod report;
mod rig;
mod rows;
mod serve;
mod signals;
mod sweep;
mod threshold;
mod topology;
mod writer;

use std::process::ExitCode;

use args::Command;
use command_line::Parsed;
use exit::{Exit, USAGE, Usage};

fn main() -> ExitCode {
    match run() {
        Ok(exit) => exit.into(),
        Err(error) => {
            let usage = error.downcast_ref::<Usage>().is_some();
            output::failure(&error);
            if usage {
                ExitCode::from(USAGE)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn run() -> anyhow::Result<Exit> {
    let command = match command_line::parse()? {
        Parsed::One(command) => command,
        Parsed::Sweep(swept) => return sweep::run(&swept),
    };
    if !matches!(command, Command::Report(_)) {
        limits::open_all_that_we_may();
    }
    match command {
        Command::Compare(args) => compare::run(*args),
        Command::Load(args) => load::run(*args),
        Command::Profile(args) => profile::run(*args),
        Command::Proxy(args) => serve::proxy(*args),
        #[cfg(feature = "backend")]
        Command::Backend(args) => serve::backend(args),
        Command::Link(args) => link::run(*args),
        Command::Report(args) => report::run(args.command),
    }
}
