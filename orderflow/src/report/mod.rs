//! Reports: one HTML file each, which carries its style, its script and its figures, and needs nothing else.

use std::fmt::Write;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// The dashboard's colours and its charts.
const THEME: &str = include_str!("../dashboard/assets/theme.css");
const CHART: &str = include_str!("../dashboard/assets/chart.js");
const STYLE: &str = include_str!("report.css");
const HELPERS: &str = include_str!("report.js");

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be written.
    #[error("the report `{}` can't be written: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The figures can't be put into JSON.
    #[error("the figures of the report can't be written: {0}")]
    Data(#[from] serde_json::Error),
}

/// Makes sure that a report can be written, before the run that it is to tell of. A file that is there stays as it is, and
/// none is left behind.
pub fn check(path: &Path) -> Result<(), Error> {
    let refused = |source| Error::File { path: path.to_owned(), source };
    let is_new = !path.exists();
    File::options().append(true).create(true).open(path).map_err(refused)?;
    if is_new { fs::remove_file(path).map_err(refused) } else { Ok(()) }
}

/// Writes a report. Its `script` finds the `data` as `Report.data`, helpers to build the page in `Report`, and `Chart` of
/// the dashboard.
pub fn write(path: &Path, title: &str, script: &'static str, data: &impl Serialize) -> Result<(), Error> {
    let page = page(title, script, data)?;
    fs::write(path, page).map_err(|source| Error::File { path: path.to_owned(), source })
}

/// The whole file as text.
fn page(title: &str, script: &'static str, data: &impl Serialize) -> Result<String, Error> {
    // In a script element only `<` can end it or begin something else.
    let data = serde_json::to_string(data)?.replace('<', "\\u003c");
    let title = escaped(title);
    let mut page = String::new();
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'unsafe-inline'; \
         style-src 'unsafe-inline'; img-src data:\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>{title}</title>\n<style>\n{THEME}\n{STYLE}</style>\n</head>\n\
         <body>\n<header><h1>{title}</h1></header>\n<main id=\"report\"></main>\n\
         <noscript>This report draws its charts with JavaScript.</noscript>\n\
         <script type=\"application/json\" id=\"data\">{data}</script>\n\
         <script>\n{CHART}\n{HELPERS}\n{script}</script>\n</body>\n</html>\n"
    );
    Ok(page)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_the_figures_can_leave_their_script() {
        let evil = "</script><script>alert(1)</script><!--";
        let page = page("a < b & c", "", &serde_json::json!({ "name": evil })).unwrap();
        assert!(page.contains("<h1>a &lt; b &amp; c</h1>"));
        assert_eq!(page.matches("<script").count(), 2, "only those of the page");
        let (_, data) = page.split_once("id=\"data\">").unwrap();
        let (data, _) = data.split_once("</script>").unwrap();
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["name"], evil);
    }

    #[test]
    fn a_report_carries_all_that_it_needs_and_no_piece_ends_its_element() {
        let page = page("t", "Report.add(document.body);", &()).unwrap();
        for piece in [THEME, CHART, STYLE, HELPERS, "Report.add(document.body);"] {
            assert!(page.contains(piece));
            assert!(!piece.contains("</script") && !piece.contains("</style"));
        }
        // The name of a namespace is no address.
        let page = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!page.contains("http://") && !page.contains("https://"), "a report loads nothing");
    }

    #[test]
    fn a_report_is_tried_without_a_trace() {
        let folder = tempfile::tempdir().unwrap();
        let (new, old) = (folder.path().join("new.html"), folder.path().join("old.html"));
        fs::write(&old, "the report before").unwrap();
        check(&new).unwrap();
        check(&old).unwrap();
        assert!(!new.exists() && fs::read_to_string(&old).unwrap() == "the report before");
        for bad in [folder.path().to_owned(), folder.path().join("missing").join("new.html")] {
            assert!(matches!(check(&bad), Err(Error::File { path, .. }) if path == bad));
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing").join("report.html");
        let error = write(&path, "t", "", &()).unwrap_err();
        assert!(error.to_string().contains("report.html"), "{error}");
        write(&folder.path().join("report.html"), "t", "", &()).unwrap();
        assert!(fs::read_to_string(folder.path().join("report.html")).unwrap().starts_with("<!doctype html>"));
    }
}
