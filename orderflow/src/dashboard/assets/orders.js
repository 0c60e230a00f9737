// Orders: find them, list the newest, and open one.

import { ask, byId, clock, h, money, note, options, text, words } from "./dom.js";
import { journey } from "./journey.js";

const RELOAD_MS = 2_000;
const ID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
const STATUSES = ["PENDING_PAYMENT", "PAID", "PAYMENT_DECLINED", "CANCELLED", "REFUNDED"];

/** The colour of a status; its word always stands beside it. */
export function tone(status) {
  if (status.endsWith("PAID") || status.endsWith("REFUNDED")) return "ok";
  return status.endsWith("PENDING_PAYMENT") ? "warn" : status.endsWith("DECLINED") ? "bad" : "none";
}

/** Gives `update(state)`, which reloads what is shown. */
export function orders() {
  const statuses = STATUSES.map((status) => [`ORDER_STATUS_${status}`, words(status, "")]);
  byId("find-status").append(...options([["", "any"], ...statuses]));
  const list = build();
  const store = { query: "", read_ms: 0, seen: "", busy: false, rows: new Map() };
  const opened = journey(tone, () => load());
  const load = async (loud = false) => {
    if (store.busy && !loud) return;
    store.busy = true;
    try {
      const asked = store.query;
      const { orders } = await ask("GET", `/api/orders${asked}`);
      if (asked === store.query) show(list, store, orders);
    } catch (error) {
      if (loud) note(byId("find-note"), error.message, true);
    }
    store.busy = false;
  };
  byId("find").addEventListener("submit", (event) => {
    event.preventDefault();
    const wanted = byId("find-text").value.trim();
    if (ID.test(wanted)) {
      location.hash = `order=${wanted.toLowerCase()}`;
      return;
    }
    search(store, wanted);
    load(true);
  });
  byId("find-status").addEventListener("change", () => {
    search(store, byId("find-text").value.trim());
    load(true);
  });
  const open = () => {
    const id = new URLSearchParams(location.hash.slice(1)).get("order");
    opened.open(id);
    mark(store, id);
  };
  addEventListener("hashchange", open);
  open();
  return {
    update(state) {
      const { accepted, paid } = state.orders;
      const seen = `${accepted} ${paid} ${state.books.read_at_ms}`;
      if (document.hidden || seen === store.seen || state.time_ms - store.read_ms < RELOAD_MS) return;
      store.seen = seen;
      store.read_ms = state.time_ms;
      load();
      opened.refresh();
    },
  };
}

function search(store, customer) {
  const query = new URLSearchParams();
  const status = byId("find-status").value;
  if (customer && !ID.test(customer)) query.set("customer", customer);
  if (status) query.set("status", status);
  store.query = query.size > 0 ? `?${query}` : "";
}

function build() {
  const body = h("tbody", {});
  const empty = h("p", { class: "empty" }, "No orders yet. Place one above.");
  const head = ["Placed", "Order", "Status", "Customer", "Total"].map((name) =>
    h("th", { scope: "col", class: name === "Total" ? "number" : "" }, name));
  const table = h("table", { class: "list" }, h("thead", {}, h("tr", {}, ...head)), body);
  byId("order-list").append(table, empty);
  return { body, empty, table };
}

// Rows stay who they are from one list to the next, so that focus and selection survive.
function show({ body, empty, table }, store, orders) {
  table.hidden = orders.length === 0;
  empty.hidden = orders.length > 0;
  text(empty, store.query ? "No such orders." : "No orders yet. Place one above.");
  const rows = new Map();
  orders.forEach((order, index) => {
    const row = store.rows.get(order.orderId) ?? newRow(order);
    rows.set(order.orderId, row);
    const status = order.status ?? "";
    row.status.className = `chip chip-${tone(status)}`;
    text(row.status, order.refundPending ? "refund pending" : words(status, "ORDER_STATUS_"));
    if (body.children[index] !== row.element) body.insertBefore(row.element, body.children[index] ?? null);
  });
  for (const [id, row] of store.rows) if (!rows.has(id)) row.element.remove();
  store.rows = rows;
  mark(store, new URLSearchParams(location.hash.slice(1)).get("order"));
}

function newRow(order) {
  const link = h("a", { href: `#order=${order.orderId}`, title: order.orderId }, h("code", {}, order.orderId.slice(-12)));
  const status = h("span", {});
  const element = h("tr", {}, h("td", {}, clock(order.createTime)), h("td", {}, link), h("td", {}, status),
    h("td", {}, order.customerId ?? ""), h("td", { class: "number" }, money(order.total)));
  return { element, link, status };
}

function mark(store, id) {
  for (const [each, row] of store.rows) {
    if (each === id) row.link.setAttribute("aria-current", "true");
    else row.link.removeAttribute("aria-current");
  }
}
