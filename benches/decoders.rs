//! What reading one event costs, for each dialect: cargo bench --bench decoders. The figures are per event of one delta; those of
//! the Responses API have 250 bytes of JSON.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokenlag_dialect::{Decoder, Dialect, Framing};
use tokenlag_instructions::events::{delta, framed};
use tokenlag_probes::Stamp;

fn decoders(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    for dialect in Dialect::ALL {
        for framing in [dialect.framing(), Framing::Messages] {
            let (name, data) = delta(dialect);
            let bytes = framed(framing, name, &data);
            let mut decoder = Decoder::new(dialect, framing);
            let mut marks = Vec::with_capacity(16);
            group.throughput(Throughput::Bytes(bytes.len() as u64));
            group.bench_function(format!("{dialect}/{framing:?}"), |bencher| {
                bencher.iter(|| {
                    marks.clear();
                    let fed = decoder.feed(Stamp::default(), 0, black_box(&bytes), &mut marks);
                    assert!(fed.is_ok() && marks.len() == 1);
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, decoders);
criterion_main!(benches);
