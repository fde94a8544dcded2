//! One file over HTTP, onto the disk under its name only when it is whole.

use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use ureq::http::header::{CONTENT_LENGTH, ETAG, LOCATION};
use ureq::http::{HeaderMap, HeaderName, Response};
use ureq::{Agent, Body};

use whole_files::PartialFile;

use crate::error::{Error, Result};
use crate::hub::checksum::Checksum;
use crate::hub::download_event::DownloadEvent;
use crate::hub::plain_name::is_plain_name;

const MOST_REDIRECTS: usize = 10;
const CONNECT: Duration = Duration::from_secs(30);
/// Longest silence, before and within an answer.
const SILENCE: Duration = Duration::from_mins(1);

/// An HTTP client that shows every redirect, because the Hub announces checksums in those.
pub(super) struct Client {
    agent: Agent,
}

impl Client {
    /// A client for an address and those to which it redirects.
    pub(super) fn new(address: &str) -> Self {
        let mut config = Agent::config_builder()
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(concat!("switchable-quant/", env!("CARGO_PKG_VERSION")))
            // Checksums are those of the file as it is, not compressed.
            .accept_encoding("identity")
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE));
        if is_loopback(address) {
            config = config.proxy(None);
        }
        Self { agent: config.build().into() }
    }

    /// Asks for a file, following redirects.
    pub(super) fn get(&self, url: &str) -> Result<Reply> {
        let mut at = url.to_owned();
        let mut linked = None;
        let mut plain = None;
        let mut commit = None;
        for _ in 0..=MOST_REDIRECTS {
            let response = self
                .agent
                .get(&at)
                .call()
                .map_err(|error| Error::Offline { url: at.clone(), source: Box::new(error) })?;
            let headers = response.headers();
            linked = linked.or_else(|| checksum(headers, &HeaderName::from_static("x-linked-etag")));
            plain = plain.or_else(|| checksum(headers, &ETAG));
            commit = commit.or_else(|| text(headers, &HeaderName::from_static("x-repo-commit")));
            let status = response.status();
            if status.is_redirection() {
                at = next(&at, &response)?;
                continue;
            }
            if !status.is_success() {
                return Err(Error::Status { url: url.to_owned(), status: status.as_u16() });
            }
            let commit = commit.filter(|commit| is_plain_name(commit));
            let bytes = text(headers, &CONTENT_LENGTH).and_then(|length| length.parse().ok());
            return Ok(Reply {
                url: url.to_owned(),
                announced: linked.or(plain),
                commit,
                bytes,
                body: response.into_body(),
            });
        }
        Err(Error::Redirect { url: url.to_owned(), reason: format!("more than {MOST_REDIRECTS} redirects") })
    }
}

/// A file that the server is ready to send.
pub(super) struct Reply {
    /// The address asked for, before redirects.
    pub(super) url: String,
    /// The checksum that the server announces.
    pub(super) announced: Option<Checksum>,
    /// The commit that the server announces.
    pub(super) commit: Option<String>,
    /// The length that the server announces.
    pub(super) bytes: Option<u64>,
    body: Body,
}

impl Reply {
    /// Writes the file at `path` if it is whole and has the checksum; else nothing.
    pub(super) fn save(
        self,
        path: &Path,
        expected: &Checksum,
        report: &mut dyn FnMut(&DownloadEvent<'_>),
    ) -> Result<()> {
        let Self { url, bytes, body, .. } = self;
        let mut part = PartialFile::create(path)?;

        report(&DownloadEvent::Started { url: &url, bytes });
        let mut reader = body.into_reader();
        let mut buffer = vec![0; 1 << 18];
        let mut received = 0;
        let cut = |received, source| Error::Incomplete {
            url: url.clone(),
            path: path.to_owned(),
            got: received,
            expected: bytes,
            source,
        };
        loop {
            let read = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(cut(received, error)),
            };
            part.fill(|file| file.write_all(&buffer[..read]))?;
            received += read as u64;
            report(&DownloadEvent::Received { url: &url, received, bytes });
        }
        if bytes.is_some_and(|bytes| bytes != received) {
            return Err(cut(received, io::ErrorKind::UnexpectedEof.into()));
        }

        part.sync()?;
        let got = expected.of_same_kind(part.temporary_path())?;
        if got != *expected {
            return Err(Error::Checksum {
                url,
                path: path.to_owned(),
                got: got.to_string(),
                expected: expected.to_string(),
            });
        }
        part.persist()?;
        report(&DownloadEvent::Verified { path, checksum: &got.to_string() });
        Ok(())
    }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

fn checksum(headers: &HeaderMap, name: &HeaderName) -> Option<Checksum> {
    Checksum::from_etag(&text(headers, name)?)
}

/// The address to which a response redirects.
fn next(at: &str, response: &Response<Body>) -> Result<String> {
    let wrong = |reason: String| Error::Redirect { url: at.to_owned(), reason };
    let to = text(response.headers(), &LOCATION).ok_or_else(|| wrong("the header `location` is missing".to_owned()))?;
    let (scheme, rest) = at.split_once("://").unwrap_or(("http", at));
    let host = rest.split('/').next().unwrap_or(rest);
    let target = if to.contains("://") {
        to
    } else if to.starts_with("//") {
        format!("{scheme}:{to}")
    } else if to.starts_with('/') {
        format!("{scheme}://{host}{to}")
    } else {
        return Err(wrong(format!("the header `location` is `{to}`, expected an address")));
    };
    if scheme == "https" && !target.starts_with("https://") {
        return Err(wrong(format!("it leads from https to `{target}`")));
    }
    Ok(target)
}

/// Whether an address is on this machine, where no proxy can reach it.
fn is_loopback(address: &str) -> bool {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or(rest);
    ["127.0.0.1", "localhost", "[::1]"]
        .iter()
        .any(|own| host.strip_prefix(own).is_some_and(|port| port.is_empty() || port.starts_with(':')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(at: &str, location: &str) -> Result<String> {
        let response = Response::builder().header("location", location);
        next(at, &response.body(Body::builder().data("")).unwrap())
    }

    #[test]
    fn a_redirect_may_be_relative_to_the_host() {
        let at = "https://example.org/a/b";
        assert_eq!(target(at, "/c?d=e").unwrap(), "https://example.org/c?d=e");
        assert_eq!(target(at, "//cdn.example.org/c").unwrap(), "https://cdn.example.org/c");
        assert_eq!(target(at, "https://example.com/c").unwrap(), "https://example.com/c");
        assert!(target(at, "c").is_err());
    }

    #[test]
    fn a_redirect_never_leaves_https() {
        let error = target("https://example.org/a", "http://example.org/a").unwrap_err();
        assert!(error.to_string().contains("from https to `http://example.org/a`"), "{error}");
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for own in ["http://127.0.0.1:80/x", "http://localhost", "http://[::1]:8080"] {
            assert!(is_loopback(own), "{own}");
        }
        for other in ["https://huggingface.co", "http://127.0.0.1.example.org", "http://localhost.example.org"] {
            assert!(!is_loopback(other), "{other}");
        }
    }
}
