//! The HTML files that `chaos` and `compare` write, opened from the disk.

use serde_json::json;
use tempfile::TempDir;

use crate::browser::Browser;
use crate::looks::PALE;
use crate::stack::run;

/// What is wrong with the charts: each has a line with something in it.
const EMPTY_CHARTS: &str = r"
return [...document.querySelectorAll('figure.chart, .chart')].filter((chart) =>
  ![...chart.querySelectorAll('.chart-line')].some((line) => (line.getAttribute('d') ?? '').length > 20))
  .map((chart) => chart.textContent.slice(0, 60))";

/// Opens a report and looks at all that can be said of any: it is drawn, it can be read, and it is not too wide.
async fn is_sound(browser: &Browser, path: &str, charts: usize) {
    browser.driver.goto(format!("file://{path}")).await.unwrap();
    let drawn = format!("return document.querySelectorAll('.chart').length === {charts}");
    browser.wait("all charts are there", &drawn).await;
    assert_eq!(browser.script(EMPTY_CHARTS).await, json!([]), "{path}");
    for scheme in ["light", "dark"] {
        browser.prefers(scheme).await;
        assert_eq!(browser.script(PALE).await, json!([]), "{path} in {scheme}");
    }
    browser.prefers("light").await;
    for width in [360, 1024, 1440] {
        browser.size(width, 900).await;
        browser.wait("the window is as wide", &format!("return innerWidth === {width}")).await;
        let wide = browser.script("return document.documentElement.scrollWidth").await;
        assert_eq!(wide, width, "something is wider than the window");
    }
}

#[tokio::test]
async fn the_reports_of_chaos_and_of_the_comparison_are_drawn_and_can_be_read() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (chaos, compare) = (path("chaos.html"), path("compare.html"));
    let browser = Browser::alone().await;
    run(&["chaos", "--seed", "7", "--duration", "5s", "--rate", "20", "--report", &chaos]).await;
    run(&["compare", "--before", "3s", "--outage", "3s", "--after", "3s", "--rate", "20", "--report", &compare]).await;

    is_sound(&browser, &chaos, 3).await;
    browser.wait_for_text("#report .good", "The books balance").await;
    browser.wait_for_text("#report", "What happened").await;
    browser.whole_picture("report-chaos").await;
    is_sound(&browser, &compare, 4).await;
    browser.wait_for_text("#report", "payment is away").await;
    browser.whole_picture("report-compare").await;
    browser.close(&[]).await;
}
