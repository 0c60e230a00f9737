// One order's journey: what happened to it, when, and what can still be done.

import { CARDS, action, ask, byId, clock, h, money, note, options, span, words } from "./dom.js";

const OPEN = ["ORDER_STATUS_PENDING_PAYMENT"];
const STEPS = {
  ACCEPTED: "Accepted: on disk at order-service",
  QUEUED: "Queued: the broker has it",
  PAYMENT_ATTEMPTED: "Payment tried",
  CHARGED: "Card charged",
  DECLINED: "Card declined",
  PAYMENT_RETRIED: "Another card was given",
  PAID: "Paid",
  CANCELLED: "Cancelled",
  REFUND_REQUESTED: "Refund asked for",
  REFUNDED: "Refunded",
  VOIDED: "Payment voided: nothing was taken",
  NOTIFIED: "Customer told",
  INVOICED: "Invoice",
};

/** Gives `open(id or null)` and `refresh()`. `changed` is called after a cancellation or another try. */
export function journey(tone, changed) {
  const root = byId("journey");
  const place = h("div", { class: "note", role: "status" });
  const store = { id: null, shown: "" };
  const load = async (focus) => {
    const { id } = store;
    try {
      const found = await ask("GET", `/api/orders/${encodeURIComponent(id)}`);
      if (id !== store.id) return;
      const shown = JSON.stringify(found);
      if (shown === store.shown) return;
      store.shown = shown;
      const held = root.contains(document.activeElement) ? document.activeElement.dataset.key : null;
      draw(root, found, { tone, place, act: act(found, place, async () => {
        await load(false);
        changed();
      }) });
      if (held) (root.querySelector(`[data-key="${held}"]`) ?? root).focus({ preventScroll: true });
    } catch (error) {
      if (id !== store.id) return;
      store.shown = "";
      root.replaceChildren(heading("This order"), h("p", { class: "bad" }, error.message));
    }
    if (focus) {
      root.focus({ preventScroll: true });
      root.scrollIntoView({ block: "nearest" });
    }
  };
  return {
    open(id) {
      store.id = id;
      store.shown = "";
      note(place, "");
      if (id) load(true);
      else root.replaceChildren(heading("One order’s journey"), h("p", { class: "empty" }, "Choose an order to see each step that it took."));
    },
    refresh() {
      if (store.id) load(false);
    },
  };
}

function heading(words) {
  return h("h3", { id: "journey-title" }, words);
}

function act({ order, invoice }, place, done) {
  const path = `/api/orders/${encodeURIComponent(order.orderId)}`;
  const status = order.status ?? "";
  const card = h("select", { "aria-label": "Another card", "data-key": "card" }, ...options(CARDS));
  const after = (work, words) => async () => {
    await work();
    await done();
    return words;
  };
  const retry = action("Try again", place, after(() => ask("POST", `${path}/retry`, { card: card.value }), "Another card is being tried."), { "data-key": "retry" });
  const cancel = action(status === "ORDER_STATUS_PAID" ? "Cancel and refund" : "Cancel", place,
    after(() => ask("POST", `${path}/cancel`), "Cancelled, or on its way to be."), { "data-key": "cancel" });
  const declined = status === "ORDER_STATUS_PAYMENT_DECLINED";
  const ended = ["ORDER_STATUS_CANCELLED", "ORDER_STATUS_REFUNDED"].includes(status) || order.refundPending;
  const pdf = invoice ? h("a", { href: `${path}/invoice.pdf`, target: "_blank", rel: "noopener", "data-key": "invoice" }, `${invoice.invoiceNumber} (PDF)`) : null;
  return h("div", { class: "row" }, ...(declined ? [card, retry] : []), ended ? null : cancel, pdf);
}

function draw(root, found, { tone, place, act }) {
  const { order } = found;
  const status = order.status ?? "";
  const chip = h("span", { class: `chip chip-${tone(status)}` }, order.refundPending ? "refund pending" : words(status, "ORDER_STATUS_"));
  const lines = (order.lines ?? []).map((line) => `${line.quantity} × ${line.sku}`).join(", ");
  const why = [words(order.declineReason, ""), words(order.cancelReason, "CANCEL_REASON_")].filter((reason) => reason && reason !== "unspecified");
  const missing = [...(found.errors ?? []), ...(found.timelineMissing ?? []).map((service) => `${service} gave no answer: its steps are missing.`)];
  root.replaceChildren(
    h("div", { class: "journey-head" }, heading(`${order.customerId}: ${lines}, ${money(order.total)}`), chip),
    h("p", { class: "muted" }, h("code", {}, order.orderId), why.length > 0 ? ` ${why.join(", ")}` : ""),
    act, place,
    ...[...new Set(missing)].map((words) => h("p", { class: "bad" }, words)),
    steps(order, found.timeline ?? [], OPEN.includes(status)),
    ...payment(found.payment), ...told(found.notifications ?? []));
}

function steps(order, timeline, open) {
  const start = new Date(order.createTime).getTime();
  const items = timeline.map((entry) => {
    const kind = words(entry.kind, "TIMELINE_KIND_").toUpperCase().replaceAll(" ", "_");
    const after = new Date(entry.time).getTime() - start;
    const which = entry.attempt > 1 ? ` (try ${entry.attempt})` : "";
    const detail = entry.detail ? h("span", { class: "muted" }, ` ${entry.detail.replaceAll("_", " ")}`) : null;
    const tone = kind === "PAID" || kind === "CHARGED" ? "ok" : kind === "DECLINED" || kind === "CANCELLED" ? "bad" : "none";
    return h("li", { "data-tone": tone },
      h("time", { datetime: entry.time, title: clock(entry.time) }, `+${span(Math.max(0, after))}`),
      h("span", {}, `${STEPS[kind] ?? words(kind, "")}${which}`, detail));
  });
  if (open) items.push(h("li", { "data-tone": "warn" }, h("time", {}, "now"), h("span", {}, "Waits for its payment")));
  return h("ol", { class: "steps", "aria-label": "Timeline" }, ...items);
}

function payment(payment) {
  if (!payment) return [];
  const rows = (payment.attempts ?? []).map((attempt) => {
    const end = attempt.endTime ? span(new Date(attempt.endTime) - new Date(attempt.firstTime)) : "still open";
    return h("tr", {}, ...[attempt.attempt ?? 1, words(attempt.outcome, "PAYMENT_STATUS_"), attempt.tries ?? 0, end, attempt.detail ?? ""]
      .map((cell) => h("td", {}, String(cell).replaceAll("_", " "))));
  });
  const head = ["Try", "Outcome", "Asked", "Took", ""].map((name) => h("th", { scope: "col" }, name));
  const charge = payment.chargeId ? h("span", { class: "muted" }, " charge ", h("code", {}, payment.chargeId)) : null;
  return [h("h4", {}, `Payment: ${words(payment.status, "PAYMENT_STATUS_")}`, charge),
    h("div", { class: "scroll" }, h("table", { class: "list" }, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows)))];
}

function told(notifications) {
  if (notifications.length === 0) return [];
  const items = notifications.map((each) => h("li", {}, h("time", { datetime: each.createTime }, clock(each.createTime)),
    h("span", {}, each.text ?? "", each.emailTime ? h("span", { class: "muted" }, " (e-mail sent)") : null)));
  return [h("h4", {}, "What the customer was told"), h("ol", { class: "told" }, ...items)];
}
