//! `/v1/models`: the one model that is served.

use hyper::{Response, StatusCode};
use serde::Serialize;

use super::body::Body;
use super::error::ApiError;
use super::service::Service;

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: [Model<'a>; 1],
}

#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
}

fn model(service: &Service) -> Model<'_> {
    Model {
        id: service.model.name(),
        object: "model",
        created: service.started_at,
        owned_by: "tokenlag",
    }
}

pub(super) fn list(service: &Service) -> Response<Body> {
    Body::json(&List {
        object: "list",
        data: [model(service)],
    })
}

pub(super) fn retrieve(service: &Service, id: &str) -> Result<Response<Body>, ApiError> {
    if id == service.model.name() {
        return Ok(Body::json(&model(service)));
    }
    let name = service.model.name();
    let message = format!("there is no model `{id}` here; this server has `{name}`");
    Err(ApiError::new(StatusCode::NOT_FOUND, message).code("model_not_found"))
}
