//! A poison message and its end.

use crate::browser::Browser;

/// Poison messages that are published side by side, and how often; each becomes two letters.
const AT_ONCE: usize = 20;
const ROUNDS: usize = 6;

#[tokio::test]
async fn a_poison_message_ends_among_the_dead_letters_and_can_be_given_up() {
    let browser = Browser::open().await;
    browser.click("#poison").await;
    browser.wait_for_text("#poison-note", "Published").await;
    // Both consumers of order-events set their copy aside.
    browser.wait("two dead letters", "return document.querySelectorAll('#letters [data-letter]').length === 2").await;
    browser.wait_for_text("#letters .reason", "decode").await;

    browser.click("#place-button").await;
    browser.wait_for_text("#order-list", "paid").await;
    browser.wait_for_verdict("wrong").await;
    browser.wait_for_depth("operator.dead-letters", "depth === 2").await;
    browser.wait_for_text("#verdict-word", "2 messages are in the dead letters").await;
    browser.click("#verdict a").await;
    browser.wait("the link leads there", "return location.hash === '#letters'").await;

    let first = browser.script("return document.querySelector('#letters [data-letter]').dataset.letter").await;
    let first = first.as_str().unwrap();
    browser.click("#letters [data-letter] button[aria-label^=Redrive]").await;
    browser.wait_for_text("#letters .note", "sent back").await;
    // It is as unreadable as before, and comes again.
    let other = format!(
        "const ids = [...document.querySelectorAll('#letters [data-letter]')].map((row) => row.dataset.letter);
         return ids.length === 2 && !ids.includes({first:?})"
    );
    browser.wait("it is back as another dead letter", &other).await;

    // More than the page shows, and far more than one request takes.
    let publish = format!(
        "const headers = {{ 'x-orderflow': 'page', 'content-type': 'application/json' }};
         const poison = () => fetch('/api/poison', {{ method: 'POST', headers, body: '{{}}' }}).then(({{ ok }}) => ok);
         return Promise.all(Array.from({{ length: {AT_ONCE} }}, poison)).then((all) => all.every(Boolean))"
    );
    for _ in 0..ROUNDS {
        assert_eq!(browser.script(&publish).await, true);
    }
    let letters = 2 + 2 * AT_ONCE * ROUNDS;
    browser.wait_for_text("#letters", &format!("The oldest 200 of {letters}.")).await;
    browser.click("#letters .row button:last-child").await;
    browser.wait_for_text("#letters .note", &format!("{letters} messages given up")).await;
    browser.wait_for_text("#letters", "None.").await;
    browser.wait_for_depth("operator.dead-letters", "depth === 0").await;
    browser.wait_for_books(Some(1)).await;
    browser.close(&[]).await;
}
