// The dead letters: why each lies there, and what an operator does about it.

import { action, ask, byId, clock, h, note, plural } from "./dom.js";

const RELOAD_MS = 5_000;
/** One request takes no more. */
const IDS_MAX = 100;

/** Gives `update(state)`: the list is fetched when the number of letters changes, and now and then while there are some. */
export function letters() {
  const body = byId("letters-body");
  const place = h("div", { class: "note", role: "status" });
  const list = h("div", {});
  const store = { seen: null, read_ms: 0, shown: "" };
  const send = (what, done) => async (ids) => {
    try {
      await ask("POST", `/api/dead-letters/${what}`, { ids });
    } finally {
      // Some may have gone even if others could not.
      store.seen = null;
    }
    return `${plural(ids.length, "message")} ${done}.`;
  };
  const redrive = send("redrive", "sent back to where it came from");
  const discard = send("discard", "given up");
  const all = h("div", { class: "row" });
  body.append(all, place, list);
  const load = async () => {
    const { letters } = await ask("GET", "/api/dead-letters");
    const shown = letters.map(({ id }) => id).join();
    if (shown === store.shown && list.childElementCount > 0) return;
    store.shown = shown;
    const held = list.contains(document.activeElement);
    list.replaceChildren(letters.length === 0 ? h("p", { class: "empty" }, "None.") : table(letters, place, redrive, discard));
    const ids = letters.slice(0, IDS_MAX).map(({ id }) => id);
    all.replaceChildren(...(letters.length > 1 ? [action("Redrive all", place, () => redrive(ids)), action("Discard all", place, () => discard(ids))] : []));
    // The row that held the keyboard's focus is gone: the next thing to do takes it.
    if (held) (list.querySelector("button") ?? byId("letters-title")).focus();
  };
  byId("letters-title").tabIndex = -1;
  return {
    update(state) {
      const changed = state.dead_letters !== store.seen;
      const due = (state.dead_letters ?? 0) > 0 && state.time_ms - store.read_ms > RELOAD_MS;
      if (state.dead_letters === null || (!changed && !due)) return;
      store.seen = state.dead_letters;
      store.read_ms = state.time_ms;
      load().catch((error) => {
        store.seen = null;
        note(place, error.message, true);
      });
    },
  };
}

function table(letters, place, redrive, discard) {
  const head = ["Since", "From", "Reason", "Payload", ""].map((name) => h("th", { scope: "col" }, name));
  const rows = letters.map((letter) => {
    const about = letter.order ? h("a", { href: `#order=${encodeURIComponent(letter.order)}` }, "its order") : null;
    const kind = letter.kind ? h("span", { class: "muted" }, letter.kind.split(".").pop()) : null;
    const payload = h("details", {}, h("summary", {}, "show"), h("pre", {}, letter.payload));
    return h("tr", { "data-letter": letter.id },
      h("td", {}, letter.published_ms ? clock(letter.published_ms) : "–"),
      h("td", {}, letter.source_subscription || "–", kind, about),
      h("td", { class: "reason" }, letter.reason),
      h("td", {}, payload),
      h("td", { class: "actions" },
        action("Redrive", place, () => redrive([letter.id]), { "aria-label": `Redrive message ${letter.id}` }),
        action("Discard", place, () => discard([letter.id]), { "aria-label": `Discard message ${letter.id}` })));
  });
  const content = h("table", { class: "list" }, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Dead letters" }, content);
}
