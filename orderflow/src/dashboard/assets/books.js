// The books: the headline, and the sums with what does not fit.

import { byId, clock, count, h, plural, set, text } from "./dom.js";

const [tick, clockface, dash, bang] = ["M6.2 13.2L1.5 8.5l2-2 2.7 2.7 6.3-6.3 2 2Z", "M8 1.5a6.5 6.5 0 1 0 .01 0ZM7 4h2v3.6l2.6 2.6-1.4 1.4L7 8.4Z",
  "M2 7h12v2H2Z", "M8 1l7.5 13.5H.5ZM7 6v4h2V6Zm0 5v2h2v-2Z"];
const MARKS = { balanced: tick, moving: tick, behind: clockface, wrong: bang, unknown: dash };
const LINKS = { books: "The books", letters: "Dead letters", flow: "Show it" };
const WORDS = {
  balanced: "The books balance",
  in_flight: "Orders are on their way",
  wrong: "The books are wrong",
  unknown: "The books can’t be read",
};
const SUMS = [
  ["accepted", "Orders accepted"],
  ["paid", "paid", "paid_minor"],
  ["declined", "declined"],
  ["cancelled", "cancelled"],
  ["refunded", "refunded"],
  ["pending", "pending"],
  ["dead_lettered", "stopped by a dead letter"],
  ["refused_tries", "Synchronous tries refused"],
  ["captured", "Charges captured", "captured_minor"],
  ["refunds", "Charges refunded", "refunded_minor"],
  ["refused", "Charges refused"],
  ["notifications", "Notifications"],
  ["invoices", "Invoices"],
  ["dead_letters", "Dead letters"],
  ["queued", "Waiting in queues"],
];
/** While orders are on their way, what does not fit yet is no news: a few examples do. */
const EXAMPLES = 5;
const OF_ACCEPTED = new Set(["paid", "declined", "cancelled", "refunded", "pending", "dead_lettered"]);

/** Gives `update(state)`. `said` is told when somebody has to look; while orders flow the headline changes by turns. */
export function books(said) {
  const view = build();
  let before = null;
  return {
    update(state) {
      const { books, headline } = state;
      set(byId("verdict"), "data-status", headline.tone);
      set(byId("verdict").querySelector("path"), "d", MARKS[headline.tone] ?? MARKS.unknown);
      text(byId("verdict-word"), headline.words);
      text(byId("verdict-sum"), equation(books));
      const link = byId("verdict-link");
      set(link, "href", `#${headline.target}`);
      text(link, LINKS[headline.target]);
      if (before !== headline.tone && headline.tone === "wrong") said(headline.words);
      before = headline.tone;
      show(view, books, WORDS[books.status] ?? WORDS.unknown);
    },
  };
}

// One line, the same few figures in every state: the equation that has to hold.
function equation({ status, sums, error, mismatches_total }) {
  if (!sums) return error || "not read yet";
  const open = sums.pending + sums.dead_lettered;
  const others = sums.declined + sums.cancelled + sums.refunded;
  const line = `${count(sums.accepted)} accepted = ${count(sums.paid)} paid + ${count(others)} ended unpaid + ${count(open)} open`;
  return status === "wrong" ? `${line}; ${plural(mismatches_total, "mismatch", "mismatches")}` : line;
}

function build() {
  const cells = {};
  const rows = SUMS.map(([name, label]) => {
    cells[name] = { number: h("td", { class: "number" }), amount: h("td", { class: "number" }) };
    const head = h("th", { scope: "row", class: OF_ACCEPTED.has(name) ? "part-of" : "" }, label);
    return h("tr", {}, head, cells[name].number, cells[name].amount);
  });
  const status = h("p", { class: "books-status" });
  const list = h("ul", { class: "mismatches" });
  const head = h("thead", { class: "hidden-text" }, h("tr", {}, ...["What", "How many", "Amount"].map((name) => h("th", {}, name))));
  const table = h("table", { class: "sums" }, head, h("tbody", {}, ...rows));
  byId("books-body").append(status, h("div", { class: "split" }, h("div", { class: "scroll" }, table), list));
  return { status, cells, list };
}

function show({ status, cells, list }, books, word) {
  const when = books.read_at_ms ? `, read at ${clock(books.read_at_ms)}` : "";
  set(status, "data-status", books.status);
  text(status, `${word}${when}.${books.error ? ` ${books.error}` : ""}`);
  for (const [name, , minor] of SUMS) {
    text(cells[name].number, count(books.sums?.[name]));
    text(cells[name].amount, minor ? amounts(books.sums?.[minor]) : "");
  }
  const shown = books.mismatches.slice(0, books.status === "wrong" ? undefined : EXAMPLES);
  const more = books.mismatches_total - shown.length;
  const lines = [...shown, ...(more > 0 ? [`and ${count(more)} more`] : [])];
  if (lines.join("\n") === list.dataset.lines) return;
  list.dataset.lines = lines.join("\n");
  list.replaceChildren(...lines.map((line) => h("li", {}, line)));
}

function amounts(minor) {
  return Object.entries(minor ?? {}).map(([currency, amount]) => {
    const digits = new Intl.NumberFormat("en", { style: "currency", currency }).resolvedOptions().maximumFractionDigits;
    return `${(Number(amount) / 10 ** digits).toLocaleString("en", { minimumFractionDigits: digits })} ${currency}`;
  }).join(", ");
}
