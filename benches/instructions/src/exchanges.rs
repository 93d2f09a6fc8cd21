//! Exchanges as the load generator and the proxy record them, with the number of tokens that is wanted.

use tokenlag_probes::{
    DeltaKind, Exchange, HopExchange, JoinedExchange, Outcome, Place, Stamp, TokenMark, TraceId,
    Usage,
};

/// Where delta `k` of exchange `of` stands, at the proxy and at the client: about 10 ms after the one before, and never quite;
/// the proxy had it 40 to 140 microseconds earlier.
pub fn stamps(of: u64, k: usize) -> (Stamp, Stamp) {
    let noise = |salt: u64| {
        let mixed = (of << 32 | (k as u64) << 8 | salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed >> 44
    };
    let up = 1_000_000_000 * of + 10_000_000 * (k as u64 + 1) + noise(1);
    let down = up + 40_000 + noise(2) / 10;
    (Stamp::from_nanos(up), Stamp::from_nanos(down))
}

/// Exchange `of`, as the client has it.
pub fn exchange(of: u64, tokens: usize) -> Exchange {
    let started = Stamp::from_nanos(1_000_000_000 * of);
    let trace = TraceId::from_bits(u128::from(of) + 1);
    let mut exchange = Exchange::begin(trace, Place::default(), started, started, tokens);
    exchange.connected = Some(started);
    exchange.written = Some(started);
    exchange.tokens.extend((0..tokens).map(|k| TokenMark {
        at: stamps(of, k).1,
        chunk: k as u32,
        kind: DeltaKind::Content,
    }));
    exchange.end = exchange.tokens.last().map(|mark| mark.at);
    exchange.chunks = tokens as u32;
    exchange.usage = Some(Usage {
        input: 100,
        cached_input: None,
        output: tokens as u64,
    });
    exchange.outcome = Outcome::Complete;
    exchange
}

/// Exchange `of`, as both ends have it.
pub fn joined(of: u64, tokens: usize) -> JoinedExchange {
    let exchange = exchange(of, tokens);
    let hop = HopExchange {
        trace: Some(exchange.trace),
        channel: "ws".into(),
        in_head: exchange.dispatched,
        in_body: exchange.dispatched,
        up_written: Some(exchange.dispatched),
        up_token: (0..tokens).map(|k| stamps(of, k).0).collect(),
        up_coalesced: 0,
        out_token: (0..tokens).map(|k| stamps(of, k).0).collect(),
        up_end: exchange.end,
        usage: None,
        up_connected_anew: false,
        overlapped: false,
        outcome: Outcome::Complete,
    };
    JoinedExchange {
        exchange,
        hop: Some(hop),
    }
}
