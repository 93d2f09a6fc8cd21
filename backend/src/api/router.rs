//! From a request's method and path to its endpoint.

use std::rc::Rc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};

use super::body::{self, Body};
use super::error::ApiError;
use super::service::Service;
use super::{chat, completions, metrics, models, responses};

/// Answers one request. A fault becomes an error reply.
pub(crate) async fn respond(service: Rc<Service>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().trim_end_matches('/').to_owned();
    let route = route(&path);
    let endpoint = route.as_ref().map_or("unknown", Route::name);
    let answered = match route {
        None => Err(not_found(&path)),
        Some(route) if *request.method() != route.method() => {
            Err(ApiError::wrong_method(match route.method() {
                Method::POST => "POST",
                _ => "GET",
            }))
        }
        Some(Route::Post(_, post)) => match body::read(request).await {
            Ok(body) => post.answer(service.clone(), body).await,
            Err(error) => Err(error),
        },
        Some(Route::Get(_, get)) => get.answer(&service),
    };
    let response = answered.unwrap_or_else(|error| error.response());
    service
        .requests
        .borrow_mut()
        .count(endpoint, response.status());
    response
}

enum Route<'a> {
    Get(&'static str, Get<'a>),
    Post(&'static str, Post),
}

enum Get<'a> {
    Health,
    Metrics,
    Models,
    Model(&'a str),
}

enum Post {
    Completions,
    Chat,
    Responses,
}

fn route(path: &str) -> Option<Route<'_>> {
    Some(match path {
        "/health" => Route::Get("/health", Get::Health),
        "/metrics" => Route::Get("/metrics", Get::Metrics),
        "/v1/models" => Route::Get("/v1/models", Get::Models),
        "/v1/completions" => Route::Post("/v1/completions", Post::Completions),
        "/v1/chat/completions" => Route::Post("/v1/chat/completions", Post::Chat),
        "/v1/responses" => Route::Post("/v1/responses", Post::Responses),
        _ => Route::Get("/v1/models", Get::Model(path.strip_prefix("/v1/models/")?)),
    })
}

impl Route<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Get(name, _) | Self::Post(name, _) => name,
        }
    }

    fn method(&self) -> Method {
        match self {
            Self::Get(..) => Method::GET,
            Self::Post(..) => Method::POST,
        }
    }
}

impl Get<'_> {
    fn answer(&self, service: &Service) -> Result<Response<Body>, ApiError> {
        match self {
            Self::Health => Ok(Body::bytes("application/json", r#"{"status":"ok"}"#)),
            Self::Metrics => Ok(metrics::page(service)),
            Self::Models => Ok(models::list(service)),
            Self::Model(id) => models::retrieve(service, id),
        }
    }
}

impl Post {
    async fn answer(&self, service: Rc<Service>, body: Bytes) -> Result<Response<Body>, ApiError> {
        match self {
            Self::Completions => completions::handle(service, &body).await,
            Self::Chat => chat::handle(service, &body).await,
            Self::Responses => responses::handle(service, &body).await,
        }
    }
}

fn not_found(path: &str) -> ApiError {
    let message = format!(
        "there is nothing at `{path}`; this server has /v1/models, /v1/completions, /v1/chat/completions, /v1/responses, /health and /metrics"
    );
    ApiError::new(StatusCode::NOT_FOUND, message).code("not_found")
}
