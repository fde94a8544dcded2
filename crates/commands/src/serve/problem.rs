//! What is wrong with a request, or with the moment that it comes at: a status, a name, a field, a sentence.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use switchable_quant::reader::Error;
use switchable_quant::{data, transformer};

/// What is wrong with a request.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    /// There is nothing at the path.
    #[error("`{path}` is none of /, /health, /plans, /answer and /generate")]
    NoSuchPath { path: String },
    /// A name was led to this machine that is not its own, as a page of another origin may do.
    #[error("`host` is {got:?}, expected localhost or an address")]
    Host { got: String },
    /// The path has another method.
    #[error("`{method}` is not a method of this path, expected {expected}")]
    Method { method: String, expected: &'static str },
    /// The body says that it is something else. Pages of other origins cannot send JSON unasked.
    #[error("`content-type` is {got}, expected application/json")]
    MediaType { got: String },
    /// The body is too long.
    #[error("the body has more than {limit} bytes, expected at most that")]
    BodyTooLarge { limit: usize },
    /// The body does not come.
    #[error("the body was not complete after {seconds} s")]
    SlowBody { seconds: u64 },
    /// The connection broke off within the body.
    #[error("the body broke off: {reason}")]
    BrokenBody { reason: String },
    /// The body is no JSON.
    #[error("the body is no JSON: {source}")]
    Malformed { source: serde_json::Error },
    /// A field is not what it should be.
    #[error("{message}")]
    Field { field: String, message: String },
    /// The model refused.
    #[error("{0}")]
    Refused(Error),
    /// As many requests wait as may.
    #[error("{waiting} requests wait already, which is all that may; try again in {retry_after} s")]
    Overloaded { waiting: usize, retry_after: u64 },
    /// The server ends.
    #[error("the server is being stopped")]
    Stopping,
    /// A fault of the program.
    #[error("a fault of the program ended this request alone; what it was stands on the server's standard error")]
    Fault,
}

impl Problem {
    /// A field that is not what it should be.
    pub(super) fn field(
        field: impl Into<String>,
        got: impl std::fmt::Display,
        expected: impl std::fmt::Display,
    ) -> Self {
        let field = field.into();
        let message = format!("`{field}` is {got}, expected {expected}");
        Self::Field { field, message }
    }

    /// Status, name and field.
    fn parts(&self) -> (StatusCode, &'static str, Option<&str>) {
        match self {
            Self::NoSuchPath { .. } => (StatusCode::NOT_FOUND, "no_such_path", None),
            Self::Host { .. } => (StatusCode::MISDIRECTED_REQUEST, "other_host", None),
            Self::Method { .. } => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", None),
            Self::MediaType { .. } => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", None),
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", None),
            Self::SlowBody { .. } => (StatusCode::REQUEST_TIMEOUT, "slow_body", None),
            Self::BrokenBody { .. } => (StatusCode::BAD_REQUEST, "broken_body", None),
            Self::Malformed { .. } => (StatusCode::BAD_REQUEST, "malformed_json", None),
            Self::Field { field, .. } => (StatusCode::UNPROCESSABLE_ENTITY, "bad_field", Some(field)),
            Self::Refused(Error::Option { field, .. } | Error::Model(transformer::Error::Option { field, .. })) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "bad_field", Some(field))
            }
            Self::Refused(_) => (StatusCode::UNPROCESSABLE_ENTITY, "refused", None),
            Self::Overloaded { .. } => (StatusCode::SERVICE_UNAVAILABLE, "overloaded", None),
            Self::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping", None),
            Self::Fault => (StatusCode::INTERNAL_SERVER_ERROR, "fault", None),
        }
    }
}

/// That of one of several requests is of the only one here, and what is wrong with a text is of its field.
impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Request { source, .. } => Self::from(*source),
            Error::Data(data::Error::LongQuestion { got, most, .. }) => {
                let expected = format!("at most {most}: a window of the model holds some of the text beside it");
                Self::field("question", format!("{got} tokens"), expected)
            }
            Error::Data(data::Error::EmptyContext { .. }) => Self::field("context", "without a token", "one at least"),
            Error::Model(transformer::Error::SequenceLength { got, positions }) => {
                Self::field("prompt", format!("{got} tokens"), format!("1 to {positions}, the positions of the model"))
            }
            other => Self::Refused(other),
        }
    }
}

/// `{"error": {"name": "bad_field", "field": "choice.bytes", "message": "…"}}`
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, name, field) = self.parts();
        let error = json!({ "error": { "name": name, "field": field, "message": self.to_string() } });
        let mut response = (status, Json(error)).into_response();
        let headers = response.headers_mut();
        if let Self::Overloaded { retry_after, .. } = self {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after));
        }
        if let Self::Method { expected, .. } = self {
            headers.insert(header::ALLOW, HeaderValue::from_static(expected));
        }
        // What is left of the body is not read.
        if matches!(self, Self::BodyTooLarge { .. } | Self::SlowBody { .. } | Self::BrokenBody { .. }) {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
