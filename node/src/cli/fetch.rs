//! A text from a URL: configurations (05 §2.1) and tickets.
//!
//! One small GET with limits on time, size and redirections. The status counts: what a server says with a 404 is no
//! configuration. Proxies of the environment are not used.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::context::Context;
use crate::error::{Error, ErrorCode, Result};
use crate::tls::Tls;

/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(20);
/// How often a server may send us elsewhere.
const MAX_REDIRECTIONS: usize = 5;
/// The longest head of an answer, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// Whether this is meant as a URL that can be fetched.
pub(super) fn is_url(text: &str) -> bool {
    let beginning = |scheme: &str| {
        text.get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    (beginning("http://") || beginning("https://")) && !text.contains(char::is_whitespace)
}

/// Say so when anybody on the way can read and change what is fetched from there.
pub(super) fn warn_if_open(context: &Context, url: &str, what: &str) {
    if is_url(url) && !url.to_ascii_lowercase().starts_with("https://") {
        context.terminal.warn(format!(
            "{what} comes over plain http: whoever is on the way can read and change it. Use https."
        ));
    }
}

/// Fetch a text of at most `limit` bytes. `what` is what it is called in messages: "the ticket".
///
/// # Errors
///
/// [`NotFound`](ErrorCode::NotFound) and [`Refused`](ErrorCode::Refused) as the server says;
/// [`Unreachable`](ErrorCode::Unreachable), [`Timeout`](ErrorCode::Timeout). No error shows what was fetched.
pub(super) fn text(url: &str, what: &str, limit: usize) -> Result<String> {
    // A thread of its own: callers are inside and outside of the runtime.
    std::thread::scope(|scope| {
        let fetching = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| Error::failed(format!("nothing can be fetched: {error}")))?;
            let fetched = runtime.block_on(async {
                match tokio::time::timeout(LIMIT, fetch(url, limit)).await {
                    Ok(result) => result,
                    Err(_) => Err(Error::timeout(format!(
                        "no complete answer within {} s",
                        LIMIT.as_secs()
                    ))),
                }
            });
            // A look-up of a name that takes longer does not hold up the end.
            runtime.shutdown_background();
            fetched
        });
        fetching
            .join()
            .unwrap_or_else(|_| Err(Error::failed("the thread that fetches it has failed")))
    })
    .map_err(|error| Error {
        message: format!(
            "{what} cannot be fetched from {}: {}",
            without_secrets(url),
            error.message
        ),
        ..error
    })
}

/// A URL as it can be shown: without a password, and without a query, which may hold a token.
fn without_secrets(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let shown = match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    };
    shown.chars().flat_map(char::escape_debug).take(300).collect()
}

async fn fetch(url: &str, limit: usize) -> Result<String> {
    let mut uri = parsed(url)?;
    for _ in 0..=MAX_REDIRECTIONS {
        match get(&uri, limit).await? {
            Answer::Text(text) => return Ok(text),
            Answer::Elsewhere(location) => {
                let next = resolve(&uri, &location)?;
                if uri.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                    return Err(Error::refused(
                        "the server sends us from https to http, where anybody can read along",
                    ));
                }
                uri = next;
            }
        }
    }
    Err(Error::failed(format!(
        "the server sent us elsewhere more than {MAX_REDIRECTIONS} times"
    )))
}

fn parsed(url: &str) -> Result<Uri> {
    let url = url.split('#').next().unwrap_or_default();
    let uri: Uri = url
        .parse()
        .map_err(|error| Error::invalid(format!("it is not a URL: {error}")))?;
    match uri.scheme_str() {
        Some("http" | "https") if uri.host().is_some_and(|host| !host.is_empty()) => {}
        _ => {
            return Err(Error::invalid(
                "only http:// and https:// with a host can be fetched",
            ));
        }
    }
    if uri
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err(Error::invalid("a URL with a user name is not supported"));
    }
    Ok(uri)
}

/// Where a `Location` leads, which may leave out what stays.
fn resolve(from: &Uri, location: &str) -> Result<Uri> {
    // One in the query (`/login?next=https://...`) is not that of the location.
    let has_scheme = location.split_once("://").is_some_and(|(scheme, _)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    });
    if has_scheme {
        return parsed(location);
    }
    let scheme = from.scheme_str().unwrap_or("https");
    let authority = from.authority().map_or("", |authority| authority.as_str());
    if let Some(rest) = location.strip_prefix("//") {
        return parsed(&format!("{scheme}://{rest}"));
    }
    let path = if location.starts_with('/') {
        location.to_owned()
    } else {
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{folder}/{location}")
    };
    parsed(&format!("{scheme}://{authority}{path}"))
}

enum Answer {
    Text(String),
    Elsewhere(String),
}

async fn get(uri: &Uri, limit: usize) -> Result<Answer> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let unreachable = |error: std::io::Error| Error::unreachable(error.to_string());
    let socket = TcpStream::connect((host, port)).await.map_err(unreachable)?;
    if secure {
        let stream = Tls::new(None)?.connect(host, socket).await.map_err(unreachable)?;
        exchange(uri, stream, limit).await
    } else {
        exchange(uri, socket, limit).await
    }
}

async fn exchange(
    uri: &Uri,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    limit: usize,
) -> Result<Answer> {
    let lost = |error: hyper::Error| Error::unreachable(format!("the answer is not HTTP: {error}"));
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(lost)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(
            header::HOST,
            uri.authority().map_or("", |authority| authority.as_str()),
        )
        .header(
            header::USER_AGENT,
            concat!("portolan/", env!("CARGO_PKG_VERSION")),
        )
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Error::invalid(format!("it is not a URL: {error}")))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(lost)?;
        let status = response.status();
        if status.is_redirection() {
            let location = response
                .headers()
                .get(header::LOCATION)
                .and_then(|value| value.to_str().ok());
            return match location {
                Some(location) => Ok(Answer::Elsewhere(location.to_owned())),
                None => Err(Error::failed(format!("the server answered {status}"))),
            };
        }
        if !status.is_success() {
            let code = match status.as_u16() {
                404 | 410 => ErrorCode::NotFound,
                401 | 403 => ErrorCode::Refused,
                _ => ErrorCode::Failed,
            };
            return Err(Error::new(code, format!("the server answered {status}")));
        }
        let body = Limited::new(response.into_body(), limit).collect().await;
        let bytes = body
            .map_err(|error| {
                if error.is::<http_body_util::LengthLimitError>() {
                    Error::invalid(format!("it is longer than {limit} bytes"))
                } else {
                    Error::unreachable(format!("the answer was cut off: {error}"))
                }
            })?
            .to_bytes();
        String::from_utf8(bytes.to_vec())
            .map(Answer::Text)
            .map_err(|_| Error::invalid("it is not text (UTF-8)"))
    };
    tokio::pin!(connection, answer);
    // The connection has to be driven while the answer is awaited. When it ends first, the answer knows why.
    tokio::select! {
        answer = &mut answer => answer,
        _ = &mut connection => answer.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_url_in_the_query_of_a_location_is_not_where_it_leads() {
        let from = parsed("http://here/a/c.yaml").unwrap();
        let leads = |location| resolve(&from, location).unwrap().to_string();
        assert_eq!(
            leads("/login?next=https://x/y"),
            "http://here/login?next=https://x/y"
        );
        assert_eq!(leads("d?next=https://x/y"), "http://here/a/d?next=https://x/y");
        assert_eq!(leads("https://x/y"), "https://x/y");
    }

    /// A server that says these things, one to each connection; its address.
    fn server(answers: &'static [&'static str]) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 4096];
                let _ = stream.read(&mut request);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        address
    }

    fn get(answers: &'static [&'static str]) -> Result<String> {
        text(
            &format!("http://{}/a/c.yaml?token=secret", server(answers)),
            "it",
            100,
        )
    }

    #[test]
    fn a_text_is_fetched_whole_or_in_chunks_or_to_the_end() {
        for answer in [
            &["HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nname: a"],
            &["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nnam\r\n4\r\ne: a\r\n0\r\n\r\n"],
            &["HTTP/1.0 200 OK\r\n\r\nname: a"],
        ] {
            assert_eq!(get(answer).unwrap(), "name: a");
        }
    }

    #[test]
    fn redirections_are_followed_but_not_for_ever() {
        let moved = "HTTP/1.1 302 Found\r\nLocation: /b/d.yaml\r\nContent-Length: 0\r\n\r\n";
        let here = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
        assert_eq!(
            text(
                &format!("http://{}/", server(Box::leak(Box::new([moved, moved, here])))),
                "it",
                9
            )
            .unwrap(),
            "x"
        );
        let error = text(
            &format!("http://{}/", server(Box::leak(Box::new([moved; 7])))),
            "it",
            9,
        )
        .unwrap_err();
        assert!(error.message.contains("more than 5 times"), "{error}");
    }

    #[test]
    fn what_the_server_refuses_is_no_text() {
        for (answer, code, says) in [
            (
                &["HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\nname: a"],
                ErrorCode::NotFound,
                "404",
            ),
            (
                &["HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"],
                ErrorCode::Refused,
                "403",
            ),
            (
                &["HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"],
                ErrorCode::Failed,
                "500",
            ),
            (
                &["HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nna"],
                ErrorCode::Unreachable,
                "cut off",
            ),
            (&["220 ftp\r\n"], ErrorCode::Unreachable, "not HTTP"),
        ] {
            let error = get(answer).unwrap_err();
            assert_eq!(error.code, code, "{error}");
            assert!(error.message.contains(says), "{error}");
            assert!(!error.message.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_not_read_to_its_end() {
        let long: &'static str = Box::leak(
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n{}",
                "x".repeat(101)
            )
            .into_boxed_str(),
        );
        let error = get(Box::leak(Box::new([long]))).unwrap_err();
        assert!(error.message.contains("longer than 100 bytes"), "{error}");
    }

    #[test]
    fn urls_are_told_from_other_texts_and_shown_without_secrets() {
        assert!(is_url("https://a/b") && is_url("HTTP://a"));
        for text in ["a://b", "/etc/x", "httpx://a", "https://a b", ""] {
            assert!(!is_url(text), "{text}");
        }
        assert_eq!(
            without_secrets("https://u:p@a.example/c?token=1#x"),
            "https://a.example/c"
        );
        for wrong in ["http://", "http:///x", "http://u:p@a/", "https://[::1"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
        let from = parsed("https://a.example:8443/x/y").unwrap();
        for (location, to) in [
            ("/z", "https://a.example:8443/z"),
            ("z", "https://a.example:8443/x/z"),
            ("//b/z", "https://b/z"),
            ("http://c/", "http://c/"),
        ] {
            assert_eq!(resolve(&from, location).unwrap().to_string(), to);
        }
    }
}
