//! Light, dark, narrow, and for those who listen.

use serde_json::json;

use crate::browser::Browser;

/// The texts whose colour stands out too little from what is behind it: WCAG 2.2 AA asks for 4.5, and 3 for large ones.
/// What is switched off is exempt.
pub(crate) const PALE: &str = r#"
const parse = (colour) => { const [r, g, b, a = 1] = colour.match(/[\d.]+/g).map(Number); return { r, g, b, a }; };
const part = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const light = ({ r, g, b }) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = parse(getComputedStyle(at).backgroundColor);
    if (colour.a === 1) return colour;
  }
  return parse('rgb(255, 255, 255)');
};
const pale = [];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const element = walk.currentNode.parentElement;
  if (!walk.currentNode.data.trim() || element.closest('[aria-disabled=true], .hidden-text, noscript, script, .skip')) continue;
  if (!element.checkVisibility()) continue;
  const style = getComputedStyle(element);
  const front = light(parse(element instanceof SVGElement ? style.fill : style.color));
  const back = light(ground(element));
  const contrast = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  if (contrast < (large ? 3 : 4.5)) pale.push(`${walk.currentNode.data.trim()}: ${contrast.toFixed(2)}`);
}
return pale;
"#;

/// Queues whose labels are not in their boxes, lie over the depth, or are the same as another's.
const LABELS: &str = r#"
const queues = [...document.querySelectorAll('.flow-queue')];
const names = queues.map((queue) => queue.querySelector('.flow-label').textContent);
const box = (queue, what) => queue.querySelector(what).getBoundingClientRect();
const bad = queues.filter((queue) => {
  const [around, name, depth] = ['.flow-queue-box', '.flow-label', '.flow-depth'].map((what) => box(queue, what));
  const apart = name.right <= depth.left || name.bottom <= depth.top || depth.bottom <= name.top;
  return name.left < around.left || name.right > around.right || !apart;
});
return [...bad.map((queue) => queue.dataset.queue), ...names.filter((name, at) => names.indexOf(name) !== at)];
"#;

/// Controls without a name, and names that two elements share.
const NAMELESS: &str = r#"
const nameless = [...document.querySelectorAll('button, input, select, a[href], [tabindex="0"]')].filter((element) =>
  !(element.getAttribute('aria-label') || element.textContent.trim() || [...(element.labels ?? [])].some((label) => label.textContent.trim())));
const ids = [...document.querySelectorAll('[id]')].map(({ id }) => id);
return [...nameless.map((element) => element.outerHTML), ...ids.filter((id, at) => ids.indexOf(id) !== at)];
"#;

#[tokio::test]
async fn the_page_can_be_read_in_light_and_dark_and_keeps_the_choice() {
    let browser = Browser::open().await;
    browser.click("#place-button").await;
    browser.wait_for_books(Some(1)).await;
    browser.click("#order-list a").await;
    browser.wait_for_text("#journey .steps", "Paid").await;
    browser.click("[data-kind=payment-service] .part-kill").await;
    browser.wait_for_part("payment-service", "dead").await;
    let mut grounds = Vec::new();
    for scheme in ["light", "dark"] {
        browser.prefers(scheme).await;
        assert_eq!(browser.script(PALE).await, json!([]), "{scheme}");
        grounds.push(browser.script("return getComputedStyle(document.body).backgroundColor").await);
    }
    assert_ne!(grounds[0], grounds[1], "the page follows the system");
    assert_eq!(browser.script(NAMELESS).await, json!([]));
    browser.click("#theme").await;
    browser.wait_for_text("#theme", "light").await;
    browser.click("[data-kind=payment-service] .part-start").await;
    browser.wait_for_part("payment-service", "alive").await;
    browser.load("").await;
    let kept = browser.script("return getComputedStyle(document.body).backgroundColor").await;
    assert_eq!(kept, grounds[0], "the choice outlives the page");
    browser.click("#theme").await;
    browser.wait_for_text("#theme", "dark").await;
    browser.click("#load-button").await;
    browser.wait_for_flow().await;
    browser.picture("dark").await;
    browser.close(&[]).await;
}

#[tokio::test]
async fn nothing_moves_for_who_wants_no_motion_or_looks_elsewhere_or_while_nothing_flows() {
    let browser = Browser::open().await;
    let moving = "return document.getAnimations().filter((each) => each.playState === 'running').length";
    browser.moves(true).await;
    browser.wait_for_books(Some(0)).await;
    assert_eq!(browser.script(moving).await, 0, "nothing flows");
    browser.click("#load-button").await;
    browser.wait("dots move", "return document.getAnimations().length >= 3").await;
    // What the compositor can move without drawing anything again.
    let properties = browser.script(
        "return [...new Set(document.getAnimations().flatMap((each) => each.effect.getKeyframes()).flatMap(Object.keys))]
           .filter((key) => !['offset', 'computedOffset', 'easing', 'composite'].includes(key))",
    );
    assert_eq!(properties.await, json!(["transform"]));
    browser.moves(false).await;
    browser.wait("little motion is none", "return document.getAnimations().length === 0").await;
    browser.moves(true).await;
    browser.wait("dots move again", "return document.getAnimations().length >= 3").await;
    browser
        .script(
            "Object.defineProperty(document, 'hidden', { configurable: true, get: () => true });
             document.dispatchEvent(new Event('visibilitychange'))",
        )
        .await;
    browser.wait("a hidden page is still", "return document.getAnimations().length === 0").await;
    let frozen = browser.text("#load-state").await;
    browser.script("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))").await;
    let goes_on = format!("return document.querySelector('#load-state').textContent !== {frozen:?}");
    browser.wait("it goes on where the stack is now", &goes_on).await;
    browser.close(&[]).await;
}

#[tokio::test]
async fn nothing_has_to_be_scrolled_sideways_at_any_width() {
    let browser = Browser::open().await;
    // Opened before the load, in which the rows move away from under the pointer.
    browser.click("#place-button").await;
    browser.click("#order-list a").await;
    browser.wait_for_text("#journey .steps", "Paid").await;
    browser.click("#load-button").await;
    browser.wait_for_flow().await;
    browser.click("[data-kind=payment-service] .part-kill").await;
    browser.wait_for_depth("payment-service.order-events", "depth >= 40").await;
    for width in [360, 600, 768, 1024, 1280, 1440, 1920] {
        browser.size(width, 800).await;
        let settled = format!(
            "return innerWidth === {width} && Math.abs(document.querySelector('.flow-drawing').viewBox.baseVal.width - document.querySelector('#flow').clientWidth) < 1"
        );
        browser.wait("the picture fits its place", &settled).await;
        let wide = browser.script("return document.documentElement.scrollWidth").await;
        assert_eq!(wide, width, "something is wider than the window");
        assert_eq!(browser.script(LABELS).await, json!([]), "the labels of the queues at {width} px");
    }
    browser.size(360, 1440).await;
    browser.wait("the narrow plan", "return document.querySelector('#flow').dataset.plan === 'narrow'").await;
    browser.picture("phone").await;
    browser.click("[data-kind=payment-service] .part-start").await;
    browser.wait_for_part("payment-service", "alive").await;
    browser.close(&[]).await;
}
