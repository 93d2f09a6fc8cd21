//! What the load generator asks of the scripted backend, in every bench that has the two: short prompts, and replies of one length.

use std::rc::Rc;

use tokenlag_dialect::Dialect;
use tokenlag_loadgen::{
    Asking, Form, Limits, Progress, Prompts, Shared, Stop, WordCount, Workload,
};

/// Sessions of so many turns, whose replies have `output` tokens each.
pub fn shared(
    seed: u64,
    dialect: Dialect,
    (turns, output): (u32, u32),
    limits: Limits,
    stop: Stop,
) -> Shared {
    Shared {
        form: Form::of(Asking {
            dialect,
            model: "scripted".to_owned(),
            tool_calls: false,
            seed,
            ignore_eos: true,
            store: false,
            extra: serde_json::Map::new(),
        }),
        prompts: Prompts {
            seed,
            workload: Workload {
                turns,
                first_input: 64,
                later_input: 16,
                output,
                least_output: None,
                tool_calls: false,
            },
            count: WordCount::GUESS,
        },
        limits,
        stop,
        progress: Rc::new(Progress::default()),
    }
}
