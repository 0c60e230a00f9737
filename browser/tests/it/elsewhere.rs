//! The page of a stack that somebody else runs, as Compose does: it kills nothing, and says what to type.

use crate::browser::Browser;

#[tokio::test]
async fn a_page_that_owns_no_processes_has_no_kill_buttons_and_shows_the_commands() {
    let mut browser = Browser::beside().await;
    let buttons = "return [...document.querySelectorAll('.part-kill, .part-stop, .part-start')]
                     .filter((button) => button.checkVisibility()).length";
    assert_eq!(browser.script(buttons).await, 0, "nothing can be killed from here");

    browser.click("[data-kind=payment-service] .part-commands").await;
    browser.wait_for_text("[data-kind=payment-service] .note", "docker-compose kill payment-service").await;
    assert!(!browser.text("[data-kind=payment-service] .note").await.contains("start payment-service"), "it runs");

    // Everything else is there: orders flow, and an outage is seen whoever caused it.
    browser.click("#place-button").await;
    browser.wait_for_books(Some(1)).await;
    browser.stack().kill("payment-service").await;
    browser.wait_for_part("payment-service", "dead").await;
    browser.wait_for_text("#verdict-word", "payment-service is down").await;
    browser.click("[data-kind=payment-service] .part-commands").await;
    browser.wait_for_text("[data-kind=payment-service] .note", "docker-compose start payment-service").await;
    assert_eq!(browser.script(buttons).await, 0, "and nothing can be started");
    browser.close(&[]).await;
}
