//! What the server answers to which path.
//!
//! | path | method | what |
//! |---|---|---|
//! | `/`, `/page.css`, `/page.js`, `/icon.svg` | GET | the page, which loads nothing from elsewhere |
//! | `/health` | GET | whether the server answers, and what became of requests |
//! | `/plans` | GET | every plan with its widths, bytes and what was measured |
//! | `/answer`, `/generate` | POST | an answer to a question about a text, a text continued |

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http_body_util::BodyExt as _;
use serde::Serialize;
use serde_json::json;

use switchable_quant::transformer::generate::GenerateOptions;

use super::catalogue::Catalogue;
use super::jobs::{Counts, Jobs};
use super::problem::Problem;
use super::requests::{AnswerBody, GenerateBody, parse};

/// The longest time that a body may take to come.
const BODY_TIME: Duration = Duration::from_secs(10);

/// What is the same for all requests.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) jobs: Jobs,
    pub(super) catalogue: Catalogue,
    pub(super) limits: Limits,
    /// Length, choice and end of texts where a request does not say them.
    pub(super) generation: GenerateOptions,
    /// The device, for people.
    pub(super) machine: String,
}

/// What a request may be at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Limits {
    /// Bytes of a body.
    pub(super) body_bytes: usize,
    /// Tokens of a question with its text, or of a prompt.
    pub(super) tokens: usize,
    /// Tokens that are generated.
    pub(super) new_tokens: usize,
    /// Connections at once.
    pub(super) connections: usize,
}

/// All paths.
pub(super) fn routes(site: Arc<Site>) -> Router {
    Router::new()
        .route("/", get(|| async { page("text/html; charset=utf-8", include_str!("page/page.html")) }))
        .route("/page.css", get(|| async { page("text/css; charset=utf-8", include_str!("page/page.css")) }))
        .route("/page.js", get(|| async { page("text/javascript; charset=utf-8", include_str!("page/page.js")) }))
        .route("/icon.svg", get(|| async { page("image/svg+xml", include_str!("page/icon.svg")) }))
        .route("/health", get(health))
        .route("/plans", get(plans))
        .route("/answer", post(answer))
        .route("/generate", post(generate))
        .fallback(|uri: Uri| async move { Problem::NoSuchPath { path: uri.path().to_owned() } })
        .method_not_allowed_fallback(other_method)
        .layer(middleware::from_fn(of_this_host))
        .with_state(site)
}

/// Refuses what is asked of another name: a page from elsewhere whose name was led to this address would count as of
/// the same origin.
async fn of_this_host(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    match host {
        Some(got) if !is_address(&got) => Problem::Host { got }.into_response(),
        _ => next.run(request).await,
    }
}

/// Whether a `host` is `localhost` or an address, with a port or without.
fn is_address(host: &str) -> bool {
    let name = host
        .rsplit_once(':')
        .map_or(host, |(name, port)| if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host });
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

/// Nothing but the page's own files is loaded, and no other page shows it in a frame.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn page(kind: &'static str, text: &'static str) -> Response {
    let headers: [(HeaderName, &str); 5] = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}

/// JSON that is of this moment.
fn data(value: impl Serialize) -> Response {
    let headers = [(header::CACHE_CONTROL, "no-store"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, Json(value)).into_response()
}

async fn health(State(site): State<Arc<Site>>) -> Response {
    #[derive(Serialize)]
    struct Health<'a> {
        status: &'static str,
        model: &'a str,
        device: &'a str,
        limits: Limits,
        requests: Counts,
    }
    let (model, requests) = (site.catalogue.model(), site.jobs.counts());
    data(Health { status: "ok", model, device: &site.machine, limits: site.limits, requests })
}

async fn plans(State(site): State<Arc<Site>>) -> Response {
    data(&site.catalogue)
}

async fn answer(State(site): State<Arc<Site>>, request: Request) -> Result<Response, Problem> {
    let body: AnswerBody = parse(&json_body(request, site.limits.body_bytes).await?)?;
    let (task, choice) = body.asked()?;
    site.catalogue.check(&choice)?;
    Ok(data(site.jobs.ask(task, choice).await?))
}

async fn generate(State(site): State<Arc<Site>>, request: Request) -> Result<Response, Problem> {
    let body: GenerateBody = parse(&json_body(request, site.limits.body_bytes).await?)?;
    let (task, choice) = body.asked(&site.generation, site.limits.new_tokens)?;
    site.catalogue.check(&choice)?;
    Ok(data(site.jobs.ask(task, choice).await?))
}

async fn other_method(method: Method, uri: Uri) -> Problem {
    let expected = if matches!(uri.path(), "/answer" | "/generate") { "POST" } else { "GET, HEAD" };
    Problem::Method { method: method.to_string(), expected }
}

/// The body of a request that says it is JSON.
async fn json_body(request: Request, limit: usize) -> Result<Bytes, Problem> {
    let (parts, body) = request.into_parts();
    check_media_type(&parts.headers)?;
    let waits = parts.headers.contains_key(header::EXPECT);
    let announced = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if waits && announced.is_some_and(|length: usize| length > limit) {
        return Err(Problem::BodyTooLarge { limit });
    }
    let read = tokio::time::timeout(BODY_TIME, read_body(body, limit)).await;
    read.unwrap_or(Err(Problem::SlowBody { seconds: BODY_TIME.as_secs() }))
}

fn check_media_type(headers: &HeaderMap<HeaderValue>) -> Result<(), Problem> {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else {
        return Err(Problem::MediaType { got: "missing".into() });
    };
    let kind = String::from_utf8_lossy(kind.as_bytes());
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Problem::MediaType { got: format!("{essence:?}") })
}

/// Reads a body. One that is too long is read to its end and not kept: a client that is still writing would see a broken
/// connection in the place of the answer.
async fn read_body(mut body: Body, limit: usize) -> Result<Bytes, Problem> {
    let (mut read, mut is_too_long) = (Vec::new(), false);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Problem::BrokenBody { reason: error.to_string() })?;
        let Ok(piece) = frame.into_data() else { continue };
        is_too_long |= read.len() + piece.len() > limit;
        if is_too_long {
            read = Vec::new();
        } else {
            read.extend_from_slice(&piece);
        }
    }
    if is_too_long { Err(Problem::BodyTooLarge { limit }) } else { Ok(read.into()) }
}

/// What a connection is told that there is no room for.
pub(super) fn no_room() -> String {
    let problem = json!({ "error": {
        "name": "too_many_connections", "field": null, "message": "as many connections are open as may be; try again in 1 s",
    } });
    let body = problem.to_string();
    format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\nretry-after: 1\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    )
}
