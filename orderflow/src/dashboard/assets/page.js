// The page: listens to the server's events and hands each state to those who show it.

import { books } from "./books.js";
import { charts } from "./charts.js";
import { CARDS, action, ask, byId, count, h, note, options, plural, set, text } from "./dom.js";
import { flow } from "./flow.js";
import { letters } from "./letters.js";
import { orders } from "./orders.js";
import { parts } from "./parts.js";

const RATES_PER_S = [1, 2, 5, 10, 20, 50, 100, 200, 500];
const MIX = "paid=90,declined=5,cancelled=5";
const MIX_PLAIN = "paid=100";
const SILENCE_MS = 4_000;
const AGAIN_MS = 1_000;
const THEMES = ["auto", "light", "dark"];

// Two announcements in one state must both be heard.
let announced = [];
function said(words) {
  if (announced.length === 0) setTimeout(() => {
    byId("said").textContent = announced.join(". ");
    announced = [];
  }, 100);
  announced.push(words);
}

theme();
const cards = parts(byId("flow"), said);
const picture = flow(byId("flow"), cards.elements, byId("guide"));
const views = [cards, picture, books(said), letters(), orders(), customers(), { update: figures }];
const history = charts();
let version = null;
let latest = null;
document.addEventListener("visibilitychange", show);
show();
connect();

function connect() {
  const events = new EventSource("/api/events");
  let heard_ms = Date.now();
  const again = () => {
    clearInterval(watch);
    events.close();
    lost(true);
    setTimeout(connect, AGAIN_MS);
  };
  // A connection can die without a word: states come twice a second, so silence is the sign.
  const watch = setInterval(() => Date.now() - heard_ms > SILENCE_MS && !document.hidden && again(), 1_000);
  events.addEventListener("error", again);
  events.addEventListener("open", () => {
    ask("GET", "/api/history").then(history.fill, () => {});
  });
  events.addEventListener("state", (event) => {
    heard_ms = Date.now();
    const state = JSON.parse(event.data);
    // Another version has another page.
    if (version !== null && version !== state.version) location.reload();
    version = state.version;
    lost(false);
    history.watch(state);
    latest = state;
    if (!document.hidden) show();
  });
  events.addEventListener("sample", (event) => history.add(JSON.parse(event.data)));
}

// Nobody sees a hidden tab: it draws nothing and moves nothing, and shows the latest state when it is looked at again.
function show() {
  document.body.classList.toggle("paused", document.hidden);
  if (document.hidden || latest === null) return;
  for (const view of views) view.update(latest);
}

function lost(is) {
  document.body.classList.toggle("lost", is);
  text(byId("connection"), is ? "Connection lost, trying again…" : "");
}

function figures(state) {
  text(byId("version"), `${state.version}${state.data_dir ? `, data in ${state.data_dir}` : ""}`);
  set(byId("version"), "title", state.data_dir);
  text(byId("figure-accepted"), perSecond(state.orders.accepted_per_s));
  text(byId("figure-paid"), perSecond(state.orders.paid_per_s));
  const queued = state.queues.filter((queue) => !queue.id.startsWith("operator."));
  text(byId("figure-queued"), count(queued.reduce((sum, queue) => sum + queue.backlog, 0)));
}

const perSecond = (per_s) => per_s.toLocaleString("en", { maximumFractionDigits: per_s < 10 ? 1 : 0 });

function customers() {
  byId("place-card").append(...options(CARDS));
  byId("place").addEventListener("submit", place);
  const told = byId("poison-note");
  byId("poison").replaceWith(action("Publish a poison message", told, async () => {
    await ask("POST", "/api/poison", {});
    return "Published: nobody can read it. It ends among the dead letters, and everything else flows on.";
  }, { id: "poison", title: "Bytes that nobody can read, on order-events" }));
  const slider = byId("load-slider");
  const chosen = () => RATES_PER_S[Number(slider.value)];
  const tell = () => {
    text(byId("load-rate"), `${chosen()} orders/s`);
    set(slider, "aria-valuetext", `${chosen()} orders per second`);
  };
  let running = false;
  const send = async (run) => {
    try {
      if (run) await ask("PUT", "/api/load", { rate_per_s: chosen(), mix: byId("load-mix").checked ? MIX : MIX_PLAIN });
      else await ask("DELETE", "/api/load");
    } catch (error) {
      note(byId("load-note"), error.message, true);
    }
  };
  slider.addEventListener("input", tell);
  for (const control of [slider, byId("load-mix")]) control.addEventListener("change", () => running && send(true));
  byId("load").addEventListener("submit", (event) => {
    event.preventDefault();
    send(!running);
  });
  tell();
  return {
    update({ load }) {
      running = load !== null;
      text(byId("load-button"), running ? "End load" : "Start load");
      const refused = running && load.refused > 0 ? `, ${count(load.refused)} refused` : "";
      text(byId("load-state"), running ? `Steady load of ${count(load.rate_per_s)}/s: ${count(load.accepted)} accepted${refused}.` : "No steady load.");
    },
  };
}

async function place(event) {
  event.preventDefault();
  const button = byId("place-button");
  if (button.dataset.busy) return;
  button.dataset.busy = "yes";
  const order = {
    count: Number(byId("place-count").value), customer: byId("place-customer").value.trim(), card: byId("place-card").value,
    synchronous: byId("place-synchronous").checked, payment_deadline_ms: null, email: "",
  };
  try {
    const { accepted, refused, order_ids, error } = await ask("POST", "/api/orders", order);
    const words = [accepted > 0 ? `${plural(accepted, "order")} accepted` : "", refused > 0 ? `${count(refused)} refused` : "", error ?? ""];
    const see = order_ids.length > 0 ? h("a", { href: `#order=${order_ids[0]}` }, order_ids.length > 1 ? "See the first" : "See its journey") : "";
    note(byId("place-note"), h("span", {}, `${words.filter(Boolean).join(", ")}. `.replace("..", "."), see), refused > 0);
  } catch (error) {
    note(byId("place-note"), error.message, true);
  }
  delete button.dataset.busy;
}

function theme() {
  const read = () => {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null;
    }
  };
  let chosen = THEMES.includes(read()) ? read() : "auto";
  const apply = () => {
    set(document.documentElement, "data-theme", chosen === "auto" ? null : chosen);
    text(byId("theme"), `Theme: ${chosen}`);
  };
  byId("theme").addEventListener("click", () => {
    chosen = THEMES[(THEMES.indexOf(chosen) + 1) % THEMES.length];
    try {
      localStorage.setItem("theme", chosen);
    } catch {
      // Without storage the choice lasts as long as the page.
    }
    apply();
  });
  apply();
}
