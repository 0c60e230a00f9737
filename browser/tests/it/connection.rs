//! The server goes away, and comes back.

use crate::browser::Browser;

#[tokio::test]
async fn a_lost_connection_is_said_and_mends_itself() {
    let mut browser = Browser::open().await;
    browser.click("#place-button").await;
    browser.wait_for_books(Some(1)).await;
    browser.stack().end().await;
    browser.wait_for_text("#connection", "Connection lost").await;
    browser.wait("old figures are greyed", "return document.body.classList.contains('lost')").await;
    browser.stack().again().await;
    browser.wait("the page is back", "return document.querySelector('#connection').textContent === ''").await;
    browser.wait_for_books(Some(1)).await;
    browser.click("#place-button").await;
    browser.wait_for_books(Some(2)).await;
    browser
        .close(&[
            "ERR_CONNECTION_REFUSED",
            "ERR_INCOMPLETE_CHUNKED_ENCODING",
            "ERR_CONNECTION_RESET",
            "ERR_EMPTY_RESPONSE",
        ])
        .await;
}
