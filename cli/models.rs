//! Which model to ask for, where none was named.

use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;
use tokenlag_channel::tls::ClientTls;
use tokenlag_loadgen::BaseUrl;

use crate::exit::Usage;
use crate::http;

const PATIENCE: Duration = Duration::from_secs(10);

/// The name of the only model that the backend lists; for `trust` see [`http::get`].
///
/// # Errors
/// The backend does not answer, or lists none or several: then they are named.
pub async fn only_one(
    base: &BaseUrl,
    trust: Option<&ClientTls>,
    headers: &[(String, String)],
) -> anyhow::Result<String> {
    #[derive(Deserialize)]
    struct List {
        data: Vec<Model>,
    }
    #[derive(Deserialize)]
    struct Model {
        id: String,
    }
    let body = http::get(base, trust, &base.path("/v1/models"), headers, PATIENCE)
        .await
        .context("cannot ask the backend for its models; name one with --model")?;
    let list: List = serde_json::from_slice(&body)
        .context("the backend's list of models is not OpenAI's; name one with --model")?;
    match &list.data[..] {
        [only] => Ok(only.id.clone()),
        [] => Err(Usage("the backend lists no model; name one with --model".to_owned()).into()),
        several => {
            let names: Vec<&str> = several.iter().map(|model| &*model.id).collect();
            let what = format!(
                "the backend has several models; name one with --model: {}",
                names.join(", ")
            );
            Err(Usage(what).into())
        }
    }
}
