//! What each piece of a token's path costs: `cargo bench --bench pieces [-- GROUP]`. A round is one token's, but where the name says
//! something else; the proxy, its client and its upstream share one thread.
//!
//! Their instructions are counted by `cargo bench -p tokenlag-instructions`, which a busy machine does not disturb.

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use tokenlag_instructions::PIECES;
use tokenlag_probes::{Clock, MonoClock};

fn pieces(criterion: &mut Criterion) {
    for piece in PIECES {
        let mut group = criterion.benchmark_group(piece.group);
        // Made ready where it is wanted alone: a filter passes most of them over.
        let mut ready = None;
        group.bench_function(piece.name, |bencher| {
            let rounds = ready.get_or_insert_with(piece.prepare);
            bencher.iter_custom(|count| {
                let begun = MonoClock.now();
                rounds(count);
                let nanos = MonoClock.now().since(begun);
                Duration::from_nanos(nanos.unsigned_abs())
            });
        });
        group.finish();
    }
}

criterion_group!(benches, pieces);
criterion_main!(benches);
