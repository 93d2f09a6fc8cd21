//! Models, health, metrics.

use serde_json::json;

use crate::harness::check;

#[test]
fn the_model_is_listed_and_found_by_name() {
    check(async |server| {
        let list = server.client.get("/v1/models").await.ok();
        assert_eq!(list["object"], "list");
        let model = &list["data"][0];
        assert_eq!(
            (&model["object"], &model["owned_by"]),
            (&json!("model"), &json!("tokenlag"))
        );
        assert!(model["created"].as_u64().unwrap() > 1_700_000_000);

        let id = model["id"].as_str().unwrap();
        assert_eq!(
            &server.client.get(&format!("/v1/models/{id}")).await.ok(),
            model
        );
        let missing = server.client.get("/v1/models/gpt-9").await;
        assert_eq!(
            (missing.status, &missing.json()["error"]["code"]),
            (404, &json!("model_not_found"))
        );
    });
}

#[test]
fn health_and_metrics() {
    check(async |server| {
        assert_eq!(server.client.get("/health").await.ok()["status"], "ok");
        let ask = json!({"prompt": "Once upon a time", "max_tokens": 5, "ignore_eos": true});
        let reply = server.client.post("/v1/completions", &ask).await.ok();

        assert_eq!(
            server
                .metric("tokenlag_backend_generated_tokens_total")
                .await,
            5
        );
        let prompt = reply["usage"]["prompt_tokens"].as_u64().unwrap();
        assert_eq!(
            server.metric("tokenlag_backend_prompt_tokens_total").await,
            prompt
        );
        assert_eq!(server.metric("tokenlag_backend_jobs_active").await, 0);
        assert_eq!(server.metric("tokenlag_backend_slots").await, 8);
        let requests =
            "tokenlag_backend_requests_total{endpoint=\"/v1/completions\",status=\"200\"}";
        assert_eq!(server.metric(requests).await, 1);
        let page = server.client.get("/metrics").await;
        assert!(
            page.head
                .contains("content-type: text/plain; version=0.0.4"),
            "{}",
            page.head
        );
        assert!(
            page.text().contains("tokenlag_backend_model_info{model="),
            "{}",
            page.text()
        );
    });
}
