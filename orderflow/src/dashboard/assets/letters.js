// The dead letters: why each lies there, and what an operator does about it.

import { action, ask, byId, clock, count, h, note, plural } from "./dom.js";

const PATH = "/api/dead-letters";
const RELOAD_MS = 5_000;
/** One request takes no more. */
const IDS_MAX = 100;

/** Gives `update(state)`: the list is fetched when the number of letters changes, and now and then while there are some. */
export function letters() {
  const body = byId("letters-body");
  const place = h("div", { class: "note", role: "status" });
  const list = h("div", {});
  const store = { seen: null, read_ms: 0, again_ms: 0, busy: false, shown: "" };
  const [redrive, discard] = [["redrive", "sent back to where it came from"], ["discard", "given up"]].map(([what, done]) =>
    async (work) => {
      try {
        return `${plural(await work((ids) => ask("POST", `${PATH}/${what}`, { ids })), "message")} ${done}.`;
      } finally {
        // Some may have gone even if others could not.
        store.seen = null;
        store.again_ms = 0;
      }
    });
  const all = (send) => every(send, (part, whole) => note(place, `${count(part)} of ${plural(whole, "message")}…`));
  const buttons = h("div", { class: "row" });
  body.append(buttons, place, list);
  const load = async () => {
    const { letters, total } = await ask("GET", PATH);
    const shown = `${total} ${letters.map(({ id }) => id).join()}`;
    if (shown === store.shown && list.childElementCount > 0) return;
    store.shown = shown;
    const held = list.contains(document.activeElement);
    const cut = total > letters.length ? h("p", { class: "muted" }, `The oldest ${count(letters.length)} of ${count(total)}.`) : "";
    list.replaceChildren(...(total === 0 ? [h("p", { class: "empty" }, "None.")] : [cut, table(letters, place, redrive, discard)]));
    if (total < 2) buttons.replaceChildren();
    else if (buttons.childElementCount === 0) {
      buttons.append(action("Redrive all", place, () => redrive(all)), action("Discard all", place, () => discard(all)));
    }
    // The row that held the keyboard's focus is gone: the next thing to do takes it.
    if (held) (list.querySelector("button") ?? byId("letters-title")).focus();
  };
  byId("letters-title").tabIndex = -1;
  return {
    update(state) {
      const changed = state.dead_letters !== store.seen;
      const due = (state.dead_letters ?? 0) > 0 && state.time_ms - store.read_ms > RELOAD_MS;
      if (store.busy || state.time_ms < store.again_ms || state.dead_letters === null || (!changed && !due)) return;
      store.busy = true;
      store.seen = state.dead_letters;
      store.read_ms = state.time_ms;
      load().catch((error) => {
        store.seen = null;
        store.again_ms = state.time_ms + RELOAD_MS;
        note(place, error.message, true);
      }).finally(() => {
        store.busy = false;
      });
    },
  };
}

// As many as there are now, in as many requests as that takes. The oldest come first, and what comes back after it was
// sent comes last: it is not sent again. Gives how many they were.
async function every(send, tell) {
  let { letters, total } = await ask("GET", PATH);
  let sent = 0;
  while (sent < total && letters.length > 0) {
    const ids = letters.slice(0, Math.min(IDS_MAX, total - sent)).map(({ id }) => id);
    await send(ids);
    sent += ids.length;
    if (sent < total) {
      tell(sent, total);
      ({ letters } = await ask("GET", PATH));
    }
  }
  return sent;
}

const one = ({ id }) => async (send) => {
  await send([id]);
  return 1;
};

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
        action("Redrive", place, () => redrive(one(letter)), { "aria-label": `Redrive message ${letter.id}` }),
        action("Discard", place, () => discard(one(letter)), { "aria-label": `Discard message ${letter.id}` })));
  });
  const content = h("table", { class: "list" }, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Dead letters" }, content);
}
