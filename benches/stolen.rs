//! What the hypervisor gave to others of the cores' time, as `/proc/stat` counts it: in ticks of ten milliseconds, mostly.

use std::fs;

/// Of one core, or of all.
#[derive(Clone, Copy, Debug, Default)]
struct Ticks {
    all: u64,
    stolen: u64,
}

/// Ticks of each core, by its number, since the system began; or in some time.
#[derive(Clone, Debug, Default)]
pub struct Stolen(Vec<Option<Ticks>>);

impl Stolen {
    /// Since the system began. Nothing where it does not tell.
    pub fn now() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let mut cores = Vec::new();
        for (core, ticks) in text.lines().filter_map(of_line) {
            if cores.len() <= core {
                cores.resize(core + 1, None);
            }
            cores[core] = Some(ticks);
        }
        Self(cores)
    }

    /// Adds what passed between two moments.
    pub fn add(&mut self, before: &Self, after: &Self) {
        self.0.resize(after.0.len().max(self.0.len()), None);
        let moments = before.0.iter().zip(&after.0);
        for (sum, (before, after)) in self.0.iter_mut().zip(moments) {
            if let (Some(before), Some(after)) = (before, after) {
                let sum = sum.get_or_insert_default();
                sum.all += after.all.saturating_sub(before.all);
                sum.stolen += after.stolen.saturating_sub(before.stolen);
            }
        }
    }

    /// Of this core's time, in per cent; zero where the system does not tell.
    pub fn percent(&self, core: usize) -> f64 {
        let ticks = self.0.get(core).copied().flatten().unwrap_or_default();
        ticks.stolen as f64 / ticks.all.max(1) as f64 * 100.0
    }
}

/// `cpu1 ...`: user, nice, system, idle, iowait, irq, softirq, steal. The guests' time behind them is in the first two already.
fn of_line(line: &str) -> Option<(usize, Ticks)> {
    let (core, counts) = line.strip_prefix("cpu")?.split_once(' ')?;
    let core = core.parse().ok().filter(|core| *core < 1 << 16)?;
    let counts = counts.split_whitespace().take(8).map(str::parse);
    let counts: Vec<u64> = counts.collect::<Result<_, _>>().ok()?;
    let ticks = Ticks {
        all: counts.iter().sum(),
        stolen: *counts.get(7)?,
    };
    Some((core, ticks))
}
