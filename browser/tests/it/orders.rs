//! One order's journey, from its card to its end.

use crate::browser::Browser;

#[tokio::test]
async fn an_order_that_was_declined_is_paid_with_another_card_and_refunded() {
    let browser = Browser::open().await;
    browser.fill("#place-customer", "bob").await;
    browser.choose("#place-card", "tok_insufficient_funds").await;
    browser.click("#place-button").await;
    browser.click("#place-note a").await;
    browser.wait_for_text("#journey .steps", "Card declined").await;
    browser.wait_for_text("#journey .chip", "payment declined").await;
    browser.wait_for_text("#journey", "insufficient funds").await;

    browser.click("#journey [data-key=retry]").await;
    browser.wait_for_text("#journey .steps", "Card charged (try 2)").await;
    browser.wait_for_text("#journey [data-key=invoice]", "INV-").await;
    browser.wait_for_text("#journey .told", "invoice").await;
    let pdf = browser.script(
        "return fetch(document.querySelector('#journey [data-key=invoice]').href).then((answer) => answer.headers.get('content-type'))",
    );
    assert_eq!(pdf.await, "application/pdf");

    browser.click("#journey [data-key=cancel]").await;
    browser.wait_for_text("#journey .chip", "refunded").await;
    browser.wait_for_text("#journey .steps", "Refunded").await;
    browser.wait_for_books(Some(1)).await;
    browser.close(&[]).await;
}

#[tokio::test]
async fn an_order_is_found_by_its_customer_its_status_its_id_and_its_link() {
    let browser = Browser::open().await;
    for customer in ["alice", "carol"] {
        browser.fill("#place-customer", customer).await;
        browser.click("#place-button").await;
        browser.wait_for_text("#order-list", customer).await;
    }
    browser.wait_for_books(Some(2)).await;
    let rows = |count: usize| format!("return document.querySelectorAll('#order-list tbody tr').length === {count}");
    browser.fill("#find-text", "carol").await;
    browser.click("#find button").await;
    browser.wait("only Carol's order", &rows(1)).await;
    browser.choose("#find-status", "ORDER_STATUS_PAYMENT_DECLINED").await;
    browser.wait("none of hers was declined", &rows(0)).await;
    browser.wait_for_text("#order-list", "No such orders").await;
    browser.choose("#find-status", "ORDER_STATUS_PAID").await;
    browser.wait("it was paid", &rows(1)).await;

    let id = browser.script("return document.querySelector('#order-list a').title").await;
    let id = id.as_str().unwrap();
    browser.fill("#find-text", id).await;
    browser.click("#find button").await;
    browser.wait_for_text("#journey code", id).await;
    browser.load(&format!("#order={id}")).await;
    browser.wait_for_text("#journey-title", "carol").await;
    browser.load("#order=00000000-0000-7000-8000-000000000000").await;
    browser.wait("an id that was never given out", "return document.querySelector('#journey .bad') !== null").await;
    browser.close(&["404"]).await;
}
