//! The two minutes of a visitor: load, an outage, a queue that rises and drains, books that balance.

use thirtyfour::prelude::*;

use crate::browser::Browser;

const QUEUE: &str = "payment-service.order-events";

#[tokio::test]
async fn a_queue_rises_while_payment_service_is_dead_and_drains_when_it_is_back() {
    let browser = Browser::open().await;
    browser.wait_for_books(Some(0)).await;

    browser.click("#place-button").await;
    browser.wait_for_text("#place-note", "1 order accepted").await;
    browser.wait_for_books(Some(1)).await;

    browser.click("#load-button").await;
    browser.wait_for_text("#load-button", "End load").await;
    browser.wait_for_flow().await;
    browser.wait("arrows move", "return document.querySelectorAll('.flow-moving').length >= 8").await;
    browser
        .wait(
            "the chart shows payments",
            "return document.querySelectorAll('#chart-orders tbody td, #chart-orders td').length > 10",
        )
        .await;
    browser.wait("the note is gone", "return document.querySelector('#place-note').textContent === ''").await;
    browser.picture("flow").await;

    browser.listen().await;
    browser.click("[data-kind=payment-service] .part-kill").await;
    browser.wait_for_part("payment-service", "dead").await;
    browser.wait_for_text("[data-kind=payment-service] .part-word", "dead").await;
    browser.wait_until_said("payment-service is dead").await;
    browser.wait_for_depth(QUEUE, "depth >= 150").await;
    browser
        .wait(
            "the queue is shown as stuck",
            &format!("return document.querySelector('[data-queue=\"{QUEUE}\"]').dataset.state === 'stuck'"),
        )
        .await;
    browser
        .wait("the outage is shaded", "return document.querySelectorAll('#chart-queued .chart-shade').length === 1")
        .await;
    browser.wait_for_text("#verdict-word", "payment-service is down; ").await;
    let kill = browser.driver.find(By::Css("[data-kind=payment-service] .part-kill")).await.unwrap();
    assert_eq!(kill.attr("aria-disabled").await.unwrap().as_deref(), Some("true"));
    browser.picture("outage").await;

    browser.click("[data-kind=payment-service] .part-start").await;
    browser.wait_for_part("payment-service", "alive").await;
    browser.wait_for_depth(QUEUE, "depth < 20").await;
    browser.click("#load-button").await;
    browser.wait_for_text("#load-button", "Start load").await;
    browser.wait_for_depth(QUEUE, "depth === 0").await;
    browser.wait_for_books(None).await;
    assert!(browser.text("#books-body").await.contains("The books balance"));
    browser.picture("drained").await;
    browser.close(&[]).await;
}

#[tokio::test]
async fn an_acquirer_that_is_down_makes_orders_wait_until_it_answers_again() {
    let browser = Browser::open().await;
    browser.choose("[data-kind=acquirer] .part-line select", "unavailable").await;
    browser.wait_for_text("[data-kind=acquirer] .note", "is down").await;
    browser.choose("#place-count", "10").await;
    browser.click("#place-button").await;
    browser.wait_for_text("#place-note", "10 orders accepted").await;
    // Waiting is no reason to worry until it takes long; then the headline names who is to blame.
    browser.wait("it is behind", "return document.querySelector('#verdict').dataset.status === 'behind'").await;
    browser.wait_for_text("#verdict-word", "The acquirer is down: the oldest message has waited for").await;
    browser.choose("[data-kind=acquirer] .part-line select", "normal").await;
    browser.wait_for_books(Some(10)).await;
    browser.close(&[]).await;
}

#[tokio::test]
async fn everything_can_be_done_with_the_keyboard_alone() {
    let browser = Browser::open().await;
    tab_to(&browser, "#place-button").await;
    browser.key(Key::Enter).await;
    browser.wait_for_books(Some(1)).await;
    tab_to(&browser, "[data-kind=payment-service] .part-kill").await;
    browser.key(Key::Enter).await;
    browser.wait_for_part("payment-service", "dead").await;
    let kept = browser.script("return document.activeElement.matches('[data-kind=payment-service] .part-kill')").await;
    assert_eq!(kept, true, "a button that is switched off must not lose the focus");
    tab_to(&browser, "[data-kind=payment-service] .part-start").await;
    browser.key(Key::Space).await;
    browser.wait_for_part("payment-service", "alive").await;
    tab_to(&browser, "#chart-orders .chart-plot").await;
    browser.key(Key::Left).await;
    browser
        .wait("the chart reads out a value", "return !document.querySelector('#chart-orders .chart-readout').hidden")
        .await;
    tab_to(&browser, "#order-list a").await;
    browser.key(Key::Enter).await;
    browser.wait_for_text("#journey", "Card charged").await;
    browser.close(&[]).await;
}

/// Presses Tab until an element has the focus. On the way every stop must show that it has it.
async fn tab_to(browser: &Browser, selector: &str) {
    const STOPS_MAX: usize = 120;
    for _ in 0..STOPS_MAX {
        browser.key(Key::Tab).await;
        let script = format!(
            "const at = document.activeElement; const style = getComputedStyle(at);
             return [at.matches({selector:?}), at === document.body || (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 1), at.outerHTML.slice(0, 80)]"
        );
        let found = browser.script(&script).await;
        assert_eq!(found[1], true, "the focus can't be seen on {}", found[2]);
        if found[0] == true {
            return;
        }
    }
    panic!("no way to {selector} by Tab");
}
