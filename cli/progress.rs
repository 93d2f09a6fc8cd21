//! How far a run is, on standard error. Drawn between cells, or on a slow tick where a cell is long: drawing takes
//! CPU time from the core that measures.

use std::convert::Infallible;
use std::io::{self, IsTerminal};
use std::rc::Rc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokenlag_loadgen::Progress;

use crate::args::values::Ui;
use crate::output;

/// The display.
pub struct Display {
    bar: ProgressBar,
    counts: Rc<Progress>,
    simple: bool,
}

impl Display {
    /// A display of `counts` on their way to `total`.
    pub fn new(ui: Ui, counts: Rc<Progress>, total: Option<u64>) -> Self {
        let drawn = ui == Ui::Auto && io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(
            total,
            match drawn {
                true => ProgressDrawTarget::stderr_with_hz(10),
                false => ProgressDrawTarget::hidden(),
            },
        );
        let template = match total {
            Some(_) => "{msg:<28} {wide_bar} {pos}/{len} exchanges, {eta} left",
            None => "{msg:<28} {pos} exchanges, {elapsed}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self {
            bar,
            counts,
            simple: ui == Ui::Simple,
        }
    }

    /// Says what is being done now.
    pub fn stage(&self, what: &str) {
        if self.simple {
            let done = self.counts.complete() + self.counts.failed();
            output::note(&format!("{what} (exchanges so far: {done})"));
        }
        self.bar.set_message(what.to_owned());
        self.draw();
    }

    /// Draws the counts as they stand.
    pub fn draw(&self) {
        self.bar
            .set_position(self.counts.complete() + self.counts.failed());
    }

    /// Draws again every quarter second, for as long as it is polled; never returns.
    pub async fn tick(&self) -> Infallible {
        loop {
            tokio::time::sleep(Duration::from_millis(250)).await;
            self.draw();
        }
    }

    /// Lets `say` write to standard error, the bar out of its way.
    pub fn pause_for<T>(&self, say: impl FnOnce() -> T) -> T {
        self.bar.suspend(say)
    }

    /// Takes the display away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// A command that ends with an error leaves no bar behind.
impl Drop for Display {
    fn drop(&mut self) {
        self.clear();
    }
}
