//! The event that tells a client of the WebSocket mode what its response took.

use std::time::Duration;

use serde::Serialize;

/// The header by which a client asks for the event, with the value `true`.
pub const TIMING_HEADER: &str = "x-responsesapi-include-timing-metrics";

/// What one response took, as the one who passes it on sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// All but the engine: from the request's last byte to the terminal event, without `engine`.
    pub overhead: Duration,
    /// From the request's last byte to the engine, to the engine's terminal event.
    pub engine: Duration,
    /// From the request's last byte to the engine, to its first delta; `None` where there was none.
    pub first_delta: Option<Duration>,
    /// The mean gap between the engine's deltas; `None` below two of them.
    pub between_deltas: Option<Duration>,
}

/// The JSON of the `responsesapi.websocket_timing` event. Milliseconds, with fractions. The names tell the engine from
/// the service around it; from outside both are the same, and so both have the same figure.
pub fn timing_event(timing: &Timing) -> Vec<u8> {
    #[derive(Serialize)]
    struct Event {
        r#type: &'static str,
        timing_metrics: Metrics,
    }

    #[derive(Serialize)]
    struct Metrics {
        responses_duration_excl_engine_and_client_tool_time_ms: f64,
        engine_service_total_ms: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        engine_iapi_ttft_total_ms: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        engine_service_ttft_total_ms: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        engine_iapi_tbt_across_engine_calls_ms: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        engine_service_tbt_across_engine_calls_ms: Option<f64>,
    }

    let millis = |span: Duration| span.as_nanos() as f64 / 1e6;
    let first = timing.first_delta.map(millis);
    let between = timing.between_deltas.map(millis);
    let event = Event {
        r#type: "responsesapi.websocket_timing",
        timing_metrics: Metrics {
            responses_duration_excl_engine_and_client_tool_time_ms: millis(timing.overhead),
            engine_service_total_ms: millis(timing.engine),
            engine_iapi_ttft_total_ms: first,
            engine_service_ttft_total_ms: first,
            engine_iapi_tbt_across_engine_calls_ms: between,
            engine_service_tbt_across_engine_calls_ms: between,
        },
    };
    let mut out = Vec::new();
    crate::json::write(&mut out, &event);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape() {
        let micros = Duration::from_micros;
        let whole = timing_event(&Timing {
            overhead: micros(250),
            engine: micros(512_000),
            first_delta: Some(micros(36_700)),
            between_deltas: Some(micros(22_500)),
        });
        assert_eq!(
            String::from_utf8(whole).unwrap(),
            concat!(
                r#"{"type":"responsesapi.websocket_timing","timing_metrics":{"#,
                r#""responses_duration_excl_engine_and_client_tool_time_ms":0.25,"#,
                r#""engine_service_total_ms":512.0,"#,
                r#""engine_iapi_ttft_total_ms":36.7,"#,
                r#""engine_service_ttft_total_ms":36.7,"#,
                r#""engine_iapi_tbt_across_engine_calls_ms":22.5,"#,
                r#""engine_service_tbt_across_engine_calls_ms":22.5}}"#
            )
        );
        let without_output = timing_event(&Timing::default());
        assert_eq!(
            String::from_utf8(without_output).unwrap(),
            r#"{"type":"responsesapi.websocket_timing","timing_metrics":{"responses_duration_excl_engine_and_client_tool_time_ms":0.0,"engine_service_total_ms":0.0}}"#
        );
    }
}
