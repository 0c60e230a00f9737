//! Keeps other sites out: a page that somebody else wrote, open in the same browser, must not be able to kill anything
//! here, nor to read what is shown.
//!
//! - A name that another site points at this address (DNS rebinding) is refused by the header `Host`.
//! - Whatever changes something needs a header that a form can't send and a script of another site may not.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, ORIGIN, REFERRER_POLICY,
    TRANSFER_ENCODING, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Refusal;

/// What the page may load and do: its own files and this server, nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The header that everything but reading needs.
const HEADER: HeaderName = HeaderName::from_static("x-orderflow");
/// Its value.
const HEADER_VALUE: &str = "page";
/// Where a browser says that a request comes from.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The names under which this server may be called, beside addresses and `localhost`.
pub(super) type Names = std::sync::Arc<[String]>;

/// Lets a request through or refuses it, and adds the headers that every answer has.
pub(super) async fn guard(State(names): State<Names>, request: Request, next: Next) -> Response {
    let mut response = match check(&names, &request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn check(names: &[String], request: &Request) -> Result<(), Refusal> {
    let headers = request.headers();
    let host = text(headers, &HOST).unwrap_or_default();
    if !is_ours(host, names) {
        return Err(forbidden(format!("the page is not served under the name `{host}`")));
    }
    let site = text(headers, &FETCH_SITE);
    let foreign = site.is_some_and(|site| site != "same-origin" && site != "none");
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    if foreign && (!reads || request.uri().path().starts_with("/api/")) {
        return Err(forbidden("the request comes from another site"));
    }
    if reads {
        return Ok(());
    }
    if text(headers, &HEADER) != Some(HEADER_VALUE) {
        return Err(forbidden(format!("the header `{HEADER}: {HEADER_VALUE}` is missing")));
    }
    if headers.contains_key(ORIGIN) && !text(headers, &ORIGIN).is_some_and(|origin| is_same(origin, host)) {
        return Err(forbidden("the header `Origin` names another site"));
    }
    let kind = text(headers, &CONTENT_TYPE).unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if has_body(headers) && !kind.eq_ignore_ascii_case("application/json") {
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be `application/json`"));
    }
    Ok(())
}

fn forbidden(problem: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, problem)
}

/// The one value of a header; none when it is there twice or no text.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() { None } else { value.to_str().ok() }
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING) || text(headers, &CONTENT_LENGTH).is_some_and(|length| length != "0")
}

/// Whether a `Host` is an address, `localhost`, or one of the names. Nobody can point an address elsewhere.
fn is_ours(host: &str, names: &[String]) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        let port_is_fine = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return port_is_fine && address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let (name, port) = host.rsplit_once(':').unwrap_or((host, "0"));
    let known = name.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4())
        || name.eq_ignore_ascii_case("localhost")
        || names.iter().any(|ours| ours.eq_ignore_ascii_case(name));
    known && is_port(port)
}

fn is_port(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether an `Origin` is the site that the `Host` names.
fn is_same(origin: &str, host: &str) -> bool {
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap()
    }

    fn refused(method: &str, path: &str, headers: &[(&str, &str)]) -> Option<StatusCode> {
        let names = ["orders.example".to_owned()];
        check(&names, &request(method, path, headers)).err().map(|refusal| refusal.status())
    }

    #[test]
    fn only_addresses_localhost_and_configured_names_are_served() {
        for host in
            ["127.0.0.1", "127.0.0.1:8080", "[::1]:8080", "[::1]", "localhost:8080", "LOCALHOST", "orders.example:1"]
        {
            assert_eq!(refused("GET", "/", &[("host", host)]), None, "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "::1",
            "127.0.0.1:",
            "[::1",
            "[evil]:1",
            "127.0.0.1:80:80",
            "localhost:8080@evil.example",
        ] {
            assert_eq!(refused("GET", "/", &[("host", host)]), Some(StatusCode::FORBIDDEN), "{host}");
        }
        assert_eq!(refused("GET", "/", &[]), Some(StatusCode::FORBIDDEN));
    }

    #[test]
    fn whatever_changes_something_needs_the_header() {
        let host = ("host", "127.0.0.1:8080");
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            assert_eq!(refused(method, "/api/load", &[host]), Some(StatusCode::FORBIDDEN), "{method}");
            assert_eq!(refused(method, "/api/load", &[host, ("x-orderflow", "form")]), Some(StatusCode::FORBIDDEN));
            assert_eq!(refused(method, "/api/load", &[host, ("x-orderflow", "page")]), None, "{method}");
        }
    }

    #[test]
    fn another_site_changes_nothing_and_reads_nothing() {
        let ours = [("host", "127.0.0.1:8080"), ("x-orderflow", "page")];
        let with = |name, value| [ours[0], ours[1], (name, value)];
        for site in ["cross-site", "same-site"] {
            assert_eq!(refused("POST", "/api/load", &with("sec-fetch-site", site)), Some(StatusCode::FORBIDDEN));
            assert_eq!(refused("GET", "/api/state", &with("sec-fetch-site", site)), Some(StatusCode::FORBIDDEN));
            assert_eq!(
                refused("GET", "/", &with("sec-fetch-site", site)),
                None,
                "a link from elsewhere opens the page"
            );
        }
        for origin in ["http://evil.example", "null", "http://127.0.0.1", "http://127.0.0.1:80800", "127.0.0.1:8080"] {
            assert_eq!(refused("POST", "/api/load", &with("origin", origin)), Some(StatusCode::FORBIDDEN), "{origin}");
        }
        for (name, value) in
            [("sec-fetch-site", "same-origin"), ("sec-fetch-site", "none"), ("origin", "http://127.0.0.1:8080")]
        {
            assert_eq!(refused("POST", "/api/load", &with(name, value)), None, "{name}: {value}");
        }
    }

    #[test]
    fn a_header_that_comes_twice_does_not_count() {
        let twice = [("host", "127.0.0.1"), ("host", "evil.example")];
        assert_eq!(refused("GET", "/", &twice), Some(StatusCode::FORBIDDEN));
        let origins = [
            ("host", "127.0.0.1"),
            ("x-orderflow", "page"),
            ("origin", "http://127.0.0.1"),
            ("origin", "http://evil.example"),
        ];
        assert_eq!(refused("POST", "/api/load", &origins), Some(StatusCode::FORBIDDEN));
    }

    #[test]
    fn a_body_must_be_json() {
        let with = |length, kind| {
            [("host", "127.0.0.1"), ("x-orderflow", "page"), ("content-length", length), ("content-type", kind)]
        };
        let unsupported = Some(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert_eq!(refused("POST", "/api/orders", &with("2", "text/plain")), unsupported);
        assert_eq!(refused("POST", "/api/orders", &with("2", "application/x-www-form-urlencoded")), unsupported);
        assert_eq!(refused("POST", "/api/orders", &with("2", "application/json; charset=utf-8")), None);
        assert_eq!(refused("POST", "/api/orders", &with("0", "text/plain")), None);
    }
}
