//! The engine on a generated model: fairness, batch invariance, caching, windows, limits.

mod support;

use std::{collections::HashMap, sync::Arc};

use support::{SMALL, Sizes};
use tokenlag_backend::{
    Engine, EngineOptions, Finish, Job, JobId, Model, Output, Refusal, Sampling,
};

const GREEDY: Sampling = Sampling {
    temperature: 0.0,
    top_p: 1.0,
    seed: None,
    ignore_eos: true,
};

fn model(sizes: Sizes) -> Arc<Model> {
    Arc::new(Model::from_bytes(&support::model(sizes, 1).bytes()).expect("a generated model loads"))
}

fn job(prompt: &[u32], max_tokens: usize) -> Job {
    Job {
        prompt: prompt.to_vec(),
        max_tokens: Some(max_tokens),
        sampling: GREEDY,
    }
}

fn prompt(length: usize, seed: u32) -> Vec<u32> {
    (0..length as u32)
        .map(|i| ((i + seed * 100_003).wrapping_mul(2_654_435_761) >> 16) % 256)
        .collect()
}

/// All outputs of a run, in order.
fn drain(engine: &mut Engine) -> Vec<(JobId, Output)> {
    let mut outputs = Vec::new();
    while engine.step(&mut |id, output| outputs.push((id, output))) {}
    outputs
}

/// Runs one job alone: its tokens, how many prompt tokens were cached, how it ended.
fn complete(engine: &mut Engine, job: Job) -> (Vec<u32>, usize, Finish) {
    engine.submit(job).expect("accepted");
    let (mut tokens, mut cached, mut end) = (Vec::new(), 0, Finish::Stop);
    for (_, output) in drain(engine) {
        match output {
            Output::Started { cached_tokens, .. } => cached = cached_tokens,
            Output::Token(token) => tokens.push(token),
            Output::Finished(finish) => end = finish,
        }
    }
    (tokens, cached, end)
}

#[test]
fn greedy_tokens_are_the_same_alone_and_in_company() {
    let model = model(SMALL);
    let jobs: Vec<Job> = (0..11)
        .map(|i| job(&prompt(5 + 13 * i, i as u32), 20 + i))
        .collect();
    let mut alone = Vec::new();
    for job in &jobs {
        let mut engine = Engine::new(
            model.clone(),
            EngineOptions {
                slots: 1,
                ..EngineOptions::default()
            },
        );
        alone.push(complete(&mut engine, job.clone()).0);
    }
    for (slots, prefill_chunk) in [(4, 7), (8, 32), (3, 1)] {
        let options = EngineOptions {
            slots,
            prefill_chunk,
            ..EngineOptions::default()
        };
        let mut engine = Engine::new(model.clone(), options);
        let ids: Vec<JobId> = jobs
            .iter()
            .map(|job| engine.submit(job.clone()).expect("accepted"))
            .collect();
        let mut together: HashMap<JobId, Vec<u32>> = HashMap::new();
        for (id, output) in drain(&mut engine) {
            if let Output::Token(token) = output {
                together.entry(id).or_default().push(token);
            }
        }
        for (id, alone) in ids.iter().zip(&alone) {
            assert_eq!(
                &together[id], alone,
                "{slots} slots, chunks of {prefill_chunk}"
            );
        }
    }
    assert!(
        alone
            .iter()
            .any(|tokens| tokens.windows(2).any(|pair| pair[0] != pair[1])),
        "the model says something"
    );
}

#[test]
fn every_step_gives_every_decoding_job_one_token() {
    let mut engine = Engine::new(
        model(SMALL),
        EngineOptions {
            slots: 3,
            ..EngineOptions::default()
        },
    );
    let ids: Vec<JobId> = (0..3)
        .map(|i| engine.submit(job(&prompt(4, i), 10)).expect("accepted"))
        .collect();
    let mut steps: Vec<Vec<JobId>> = Vec::new();
    loop {
        let mut tokens = Vec::new();
        let more = engine.step(&mut |id, output| {
            tokens.extend(matches!(output, Output::Token(_)).then_some(id))
        });
        steps.push(tokens);
        if !more {
            break;
        }
    }
    // A prompt a step: the first job has its third token when the last has its first.
    let counts: Vec<usize> = steps.iter().map(Vec::len).collect();
    assert_eq!(counts, [1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 2, 1]);
    for id in ids {
        assert_eq!(
            steps.iter().flatten().filter(|&&other| other == id).count(),
            10
        );
    }
}

#[test]
fn a_long_prompt_does_not_stop_the_others() {
    let mut engine = Engine::new(
        model(SMALL),
        EngineOptions {
            slots: 2,
            ..EngineOptions::default()
        },
    );
    let short = engine.submit(job(&prompt(4, 1), 8)).expect("accepted");
    let mut gaps = 0;
    engine.step(&mut |_, _| {});
    engine.submit(job(&prompt(150, 2), 1)).expect("accepted");
    for _ in 0..7 {
        let mut got = false;
        engine.step(&mut |id, output| got |= id == short && matches!(output, Output::Token(_)));
        gaps += usize::from(!got);
    }
    assert_eq!(gaps, 0);
}

#[test]
fn a_second_turn_computes_only_what_is_new() {
    let model = model(SMALL);
    let mut engine = Engine::new(model.clone(), EngineOptions::default());
    let first = prompt(30, 3);
    let (answer, cached, _) = complete(&mut engine, job(&first, 12));
    assert_eq!(cached, 0);
    let second = [first.clone(), answer, prompt(9, 4)].concat();
    let (tokens, cached, _) = complete(&mut engine, job(&second, 12));
    assert_eq!(
        cached,
        30 + 11,
        "all but the last token of the answer, which was never computed"
    );
    let mut fresh = Engine::new(model, EngineOptions::default());
    assert_eq!(tokens, complete(&mut fresh, job(&second, 12)).0);
    assert_eq!(engine.status().cached_tokens, 41);

    let (again, cached, _) = complete(&mut engine, job(&second, 12));
    assert_eq!(
        (again, cached),
        (tokens, second.len() - 1),
        "the same prompt again computes its last token"
    );
}

#[test]
fn a_shared_beginning_is_copied_even_from_a_busy_slot() {
    let model = model(SMALL);
    let mut engine = Engine::new(
        model.clone(),
        EngineOptions {
            slots: 3,
            ..EngineOptions::default()
        },
    );
    let system = prompt(40, 5);
    let a = [system.clone(), prompt(50, 6)].concat();
    let b = [system.clone(), prompt(20, 7)].concat();
    engine.submit(job(&a, 30)).expect("accepted");
    for _ in 0..4 {
        engine.step(&mut |_, _| {});
    }
    engine.submit(job(&b, 10)).expect("accepted");
    let mut cached = None;
    let mut tokens = Vec::new();
    let mut second = None;
    while engine.step(&mut |id, output| match output {
        Output::Started { cached_tokens, .. } => {
            cached = Some(cached_tokens);
            second = Some(id);
        }
        Output::Token(token) if Some(id) == second => tokens.push(token),
        _ => {}
    }) {}
    assert_eq!(cached, Some(40));
    let mut fresh = Engine::new(model, EngineOptions::default());
    assert_eq!(tokens, complete(&mut fresh, job(&b, 10)).0);
    // The long history is still there.
    let longer = [a, prompt(3, 8)].concat();
    assert_eq!(complete(&mut engine, job(&longer, 1)).1, 90);
}

#[test]
fn cancelling_frees_the_slot_and_keeps_the_prefix() {
    let mut engine = Engine::new(
        model(SMALL),
        EngineOptions {
            slots: 1,
            ..EngineOptions::default()
        },
    );
    let endless = engine
        .submit(Job {
            max_tokens: None,
            ..job(&prompt(20, 9), 0)
        })
        .expect("accepted");
    let queued = engine.submit(job(&prompt(5, 10), 3)).expect("accepted");
    let third = engine.submit(job(&prompt(20, 9), 3)).expect("accepted");
    for _ in 0..5 {
        engine.step(&mut |_, _| {});
    }
    assert_eq!((engine.status().active, engine.status().waiting), (1, 2));
    engine.cancel(endless);
    engine.cancel(queued);
    assert_eq!((engine.status().active, engine.status().waiting), (0, 1));
    let outputs = drain(&mut engine);
    assert_eq!(
        outputs[0],
        (
            third,
            Output::Started {
                prompt_tokens: 20,
                cached_tokens: 19
            }
        )
    );
    assert!(outputs.iter().all(|(id, _)| *id == third));
}

#[test]
fn refuses_what_it_cannot_hold() {
    let options = EngineOptions {
        context: Some(50),
        queue: 2,
        ..EngineOptions::default()
    };
    let mut engine = Engine::new(model(SMALL), options);
    assert_eq!(engine.submit(job(&[], 1)), Err(Refusal::EmptyPrompt));
    let refusal = Refusal::ContextExceeded {
        tokens: 50,
        limit: 50,
    };
    assert_eq!(engine.submit(job(&prompt(50, 1), 1)), Err(refusal));
    engine
        .submit(Job {
            max_tokens: None,
            ..job(&prompt(40, 1), 0)
        })
        .expect("accepted");
    engine.submit(job(&prompt(40, 1), 0)).expect("accepted");
    assert_eq!(
        engine.submit(job(&prompt(4, 1), 1)),
        Err(Refusal::QueueFull)
    );
    let outputs = drain(&mut engine);
    let tokens = outputs
        .iter()
        .filter(|(_, output)| matches!(output, Output::Token(_)))
        .count();
    assert_eq!(
        tokens, 10,
        "one job fills the context, the other wants none"
    );
    let ends = outputs
        .iter()
        .filter(|(_, output)| *output == Output::Finished(Finish::Length))
        .count();
    assert_eq!(ends, 2);
}

#[test]
fn an_end_of_generation_token_stops_unless_ignored() {
    let mut writer = support::model(SMALL, 1);
    let model = Arc::new(Model::from_bytes(&writer.bytes()).expect("loads"));
    let (tokens, ..) = complete(
        &mut Engine::new(model, EngineOptions::default()),
        job(&prompt(8, 1), 5),
    );
    // Now the third token is the end.
    writer.set("tokenizer.ggml.eos_token_id", support::Meta::U32(tokens[2]));
    let model = Arc::new(Model::from_bytes(&writer.bytes()).expect("loads"));
    let mut engine = Engine::new(model, EngineOptions::default());
    let stops = Job {
        sampling: Sampling {
            ignore_eos: false,
            ..GREEDY
        },
        ..job(&prompt(8, 1), 5)
    };
    let first = tokens
        .iter()
        .position(|token| *token == tokens[2])
        .expect("it is there");
    assert_eq!(
        complete(&mut engine, stops),
        (tokens[..first].to_vec(), 0, Finish::Stop)
    );
    let (ignoring, _, end) = complete(&mut engine, job(&prompt(8, 1), 5));
    assert_eq!((ignoring.len(), end), (5, Finish::Length));
    assert!(!ignoring.contains(&tokens[2]));
}

#[test]
fn sessions_run_on_far_beyond_the_window() {
    let mut engine = Engine::new(model(SMALL), EngineOptions::default());
    let (tokens, _, end) = complete(&mut engine, job(&prompt(10, 11), 3000));
    assert_eq!((tokens.len(), end), (3000, Finish::Length));
    let longer = [prompt(10, 11), tokens, prompt(5, 12)].concat();
    assert_eq!(complete(&mut engine, job(&longer, 1)).1, 3009);
}

/// What lies out of reach of the last token is not computed, and that changes nothing: one engine computes everything, as
/// it generates or takes the prompt piece by piece, the other only the end.
#[test]
fn a_long_prompt_gives_what_full_computation_gives() {
    for sizes in [
        SMALL,
        Sizes {
            layers: 2,
            window: 40,
            ..SMALL
        },
        Sizes {
            layers: 5,
            window: 24,
            ..SMALL
        },
    ] {
        let model = model(sizes);
        let whole = prompt(1000, 13);
        let mut full = Engine::new(
            model.clone(),
            EngineOptions {
                slots: 1,
                ..EngineOptions::default()
            },
        );
        for end in (20..1000).step_by(20) {
            complete(&mut full, job(&whole[..end], 0));
        }
        let (expected, cached, _) = complete(&mut full, job(&whole, 50));
        assert_eq!(cached, 980);
        assert_eq!(full.status().skipped_tokens, 0);

        let mut shortcut = Engine::new(
            model,
            EngineOptions {
                slots: 1,
                ..EngineOptions::default()
            },
        );
        let (tokens, cached, _) = complete(&mut shortcut, job(&whole, 50));
        assert_eq!((tokens, cached), (expected, 0));
        assert!(
            shortcut.status().skipped_tokens > 700,
            "most of the prompt is out of reach"
        );
    }
}

#[test]
fn going_back_a_little_is_cheap_and_going_back_far_is_exact() {
    let model = model(SMALL);
    let whole = prompt(700, 14);
    for (kept, cheap) in [(690, true), (400, false), (60, false)] {
        let mut engine = Engine::new(
            model.clone(),
            EngineOptions {
                slots: 1,
                ..EngineOptions::default()
            },
        );
        complete(&mut engine, job(&whole, 5));
        let other = [whole[..kept].to_vec(), prompt(20, 15)].concat();
        let (tokens, cached, _) = complete(&mut engine, job(&other, 30));
        assert_eq!(cached, if cheap { kept } else { 0 }, "{kept}");
        let mut fresh = Engine::new(model.clone(), EngineOptions::default());
        assert_eq!(tokens, complete(&mut fresh, job(&other, 30)).0, "{kept}");
    }
}

#[test]
fn positions_beyond_a_hundred_thousand_are_exact() {
    // Attention sees differences of positions alone: a repeated prompt must give the same tokens far out.
    let model = model(SMALL);
    let period = prompt(500, 16);
    let mut near = Engine::new(model.clone(), EngineOptions::default());
    let near = complete(&mut near, job(&period.repeat(2), 20)).0;
    let mut far = Engine::new(model, EngineOptions::default());
    let far = complete(&mut far, job(&period.repeat(260), 20)).0;
    let same = near.iter().zip(&far).take_while(|(a, b)| a == b).count();
    assert!(same >= 5, "{near:?} {far:?}");
}

#[test]
fn sampling_depends_on_the_seed_alone() {
    let model = model(SMALL);
    let sampled = |seed| {
        let sampling = Sampling {
            temperature: 1.0,
            top_p: 0.9,
            seed: Some(seed),
            ignore_eos: true,
        };
        let mut engine = Engine::new(model.clone(), EngineOptions::default());
        complete(
            &mut engine,
            Job {
                sampling,
                ..job(&prompt(8, 1), 20)
            },
        )
        .0
    };
    assert_eq!(sampled(1), sampled(1));
    assert_ne!(sampled(1), sampled(2));
}

#[test]
fn the_window_can_be_set() {
    let model = |sizes| Model::from_bytes(&support::model(sizes, 1).bytes()).expect("loads");
    let narrow = model(Sizes {
        window: 32,
        ..SMALL
    });
    let tokens = prompt(200, 17);
    let set = model(SMALL).with_window(32);
    assert_eq!(set.window(), 32);
    assert_eq!(set.logits(&tokens), narrow.logits(&tokens));
    assert_ne!(set.logits(&tokens), model(SMALL).logits(&tokens));
}
