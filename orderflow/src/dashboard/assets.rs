//! The page itself, compiled in.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

/// Every file of the page: its name, its type, its content.
const ASSETS: &[(&str, &str, &str)] = &[
    ("index.html", HTML, include_str!("assets/index.html")),
    ("theme.css", CSS, include_str!("assets/theme.css")),
    ("page.css", CSS, include_str!("assets/page.css")),
    ("books.js", JS, include_str!("assets/books.js")),
    ("chart.js", JS, include_str!("assets/chart.js")),
    ("charts.js", JS, include_str!("assets/charts.js")),
    ("dom.js", JS, include_str!("assets/dom.js")),
    ("flow.js", JS, include_str!("assets/flow.js")),
    ("journey.js", JS, include_str!("assets/journey.js")),
    ("layout.js", JS, include_str!("assets/layout.js")),
    ("letters.js", JS, include_str!("assets/letters.js")),
    ("orders.js", JS, include_str!("assets/orders.js")),
    ("page.js", JS, include_str!("assets/page.js")),
    ("parts.js", JS, include_str!("assets/parts.js")),
];

struct Asset {
    kind: &'static str,
    content: &'static str,
    etag: String,
}

static BY_NAME: LazyLock<HashMap<&str, Asset>> = LazyLock::new(|| {
    let asset = |&(name, kind, content): &(_, _, &'static str)| {
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        (name, Asset { kind, content, etag: format!("\"{:016x}\"", hasher.finish()) })
    };
    ASSETS.iter().map(asset).collect()
});

/// The answer to a request for a file. Browsers keep it, and ask each time whether it is still the same.
pub(super) fn answer(name: &str, request: &HeaderMap) -> Option<Response> {
    let asset = BY_NAME.get(name)?;
    let headers = [(ETAG, asset.etag.as_str()), (CACHE_CONTROL, "no-cache"), (CONTENT_TYPE, asset.kind)];
    let known = request.get(IF_NONE_MATCH).and_then(|known| known.to_str().ok());
    if known.is_some_and(|known| known.split(',').any(|tag| tag.trim().trim_start_matches("W/") == asset.etag)) {
        return Some((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    Some((headers, asset.content).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_page_is_served() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/dashboard/assets");
        for file in std::fs::read_dir(folder).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            assert!(BY_NAME.contains_key(name.as_str()), "`{name}` is missing among the assets");
        }
    }

    #[test]
    fn a_file_that_the_browser_has_is_not_sent_again() {
        let first = answer("theme.css", &HeaderMap::new()).unwrap();
        assert_eq!((first.status(), &first.headers()[CACHE_CONTROL]), (StatusCode::OK, &"no-cache".parse().unwrap()));
        let etag = first.headers()[ETAG].clone();
        let asked = |tag: &str| {
            let headers = HeaderMap::from_iter([(IF_NONE_MATCH, tag.parse().unwrap())]);
            answer("theme.css", &headers).unwrap().status()
        };
        assert_eq!(asked(&format!("\"other\", {}", etag.to_str().unwrap())), StatusCode::NOT_MODIFIED);
        assert_eq!(asked("\"other\""), StatusCode::OK);
        assert!(answer("../mod.rs", &HeaderMap::new()).is_none());
    }
}
