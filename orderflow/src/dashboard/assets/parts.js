// A card for each kind of part: how it is, and what can be done to it.

import { action, allow, ask, copy, h, note, options, s, set, text } from "./dom.js";
import { GROUND } from "./layout.js";

const KINDS = {
  "order-service": "takes orders at once",
  broker: "keeps every message on disk until it is done",
  "payment-service": "charges each order once",
  acquirer: "",
  "notification-service": "tells the customer",
  "invoice-worker": "renders invoices",
  nats: "keeps the broker’s journal",
  postgres: "keeps the services’ books",
};
const COMMANDS = ["kill", "stop", "start"];
const LABELS = { kill: "Kill", stop: "Stop", start: "Start" };
const MEANING = { kill: "SIGKILL: no goodbye", stop: "SIGTERM: it finishes what it holds", start: "" };
const MODES = [
  ["normal", "answers"],
  ["unavailable", "is down (503)"],
  ["slow", "is slow"],
  ["lost_replies", "loses its answers"],
  ["decline_all", "declines"],
];
const PERCENTS = [["100", "all"], ["50", "half"], ["20", "1 in 5"], ["5", "1 in 20"]];

/** The cards by kind, and `update(state)`. `said` is told what is to be read out. */
export function parts(container, said) {
  const cards = {};
  for (const kind of Object.keys(KINDS)) {
    cards[kind] = card(kind);
    container.append(cards[kind].element);
  }
  const elements = Object.fromEntries(Object.entries(cards).map(([kind, { element }]) => [kind, element]));
  const words = new Map();
  const update = (state) => {
    for (const each of Object.values(cards)) each.update(state);
    for (const part of state.parts) {
      const now = stateOf([part]).word;
      const before = words.get(part.part);
      words.set(part.part, now);
      if (before !== undefined && before !== now) said(`${part.part} is ${now}`);
    }
  };
  return { elements, update };
}

function card(kind) {
  const place = h("div", { class: "note", role: "status" });
  const mark = s("svg", { class: "mark", viewBox: "0 0 16 16", "aria-hidden": "true" }, s("path", {}));
  const word = h("span", { class: "part-word" });
  const which = h("select", { "aria-label": `Which ${kind}`, class: "part-which" });
  which.hidden = true;
  let latest = null;
  const chosen = () => latest.parts.filter((part) => part.kind === kind && (which.hidden || !which.value || part.part === which.value));
  const buttons = COMMANDS.map((command) =>
    action(LABELS[command], place, () => run(command, chosen()),
      { "aria-label": `${LABELS[command]} ${kind}`, title: MEANING[command], class: `part-${command}` }));
  const tell = h("button", { type: "button", class: "part-commands", "aria-label": `Commands to kill, stop and start ${kind}`,
    onclick: () => showCommands(chosen(), place) }, "Commands");
  const element = h("section", { class: "part", "data-kind": kind, "aria-label": kind },
    h("div", { class: "part-head" }, mark, h("h3", {}, kind)),
    h("div", { class: "part-line" }, word, h("span", { class: "part-about" }, KINDS[kind])),
    h("div", { class: "part-buttons" }, ...buttons, tell, which), place);
  const behaviour = kind === "acquirer" ? acquirer(element, place) : null;
  const update = (state) => {
    latest = state;
    // Where somebody else owns the processes, the page can only tell what to type.
    for (const button of buttons) button.hidden = !state.owns_processes;
    tell.hidden = state.owns_processes;
    const mine = state.parts.filter((part) => part.kind === kind);
    // A stack on one machine has no servers below it.
    element.hidden = mine.length === 0 && GROUND.includes(kind);
    choose(which, mine);
    const now = stateOf(mine);
    set(element, "data-state", now.state);
    set(mark.firstChild, "d", now.mark);
    text(word, now.word);
    set(word, "title", mine.map((part) => `${part.part}: ${part.state}, ${part.address}${part.pid ? `, pid ${part.pid}` : ""}`).join("\n"));
    const alive = chosen().some((part) => part.alive);
    const dead = chosen().some((part) => !part.alive);
    buttons.forEach((button, index) => allow(button, COMMANDS[index] === "start" ? dead : alive));
    behaviour?.(state);
  };
  return { element, update };
}

// Shape, word and colour say the same.
function stateOf(mine) {
  const ready = mine.filter((part) => part.alive && part.healthy).length;
  const dead = mine.filter((part) => !part.alive).length;
  const [circle, ring, cross] = ["M8 3a5 5 0 1 0 .01 0Z", "M8 2a6 6 0 1 0 .01 0ZM8 5a3 3 0 1 1-.01 0Z",
    "M3.5 1.5L8 6l4.5-4.5 2 2L10 8l4.5 4.5-2 2L8 10l-4.5 4.5-2-2L6 8 1.5 3.5Z"];
  if (mine.length === 0) return { state: "unknown", word: "unknown", mark: ring };
  const of = mine.length > 1 ? ` of ${mine.length}` : "";
  if (dead === mine.length) return { state: "dead", word: "dead", mark: cross };
  if (ready === mine.length) return { state: "alive", word: of ? `${ready}${of} alive` : "alive", mark: circle };
  if (dead > 0) return { state: "partly", word: `${ready}${of} alive`, mark: ring };
  return { state: "starting", word: "starting", mark: ring };
}

function choose(which, mine) {
  which.hidden = mine.length < 2;
  const names = ["", ...mine.map((part) => part.part)];
  if (which.options.length === names.length) return;
  const label = (name) => (name === "" ? "all" : `#${name.match(/-(\d+)$/)?.[1] ?? 1}`);
  which.replaceChildren(...options(names.map((name) => [name, label(name)])));
}

async function run(command, chosen) {
  const fitting = chosen.filter((part) => (command === "start" ? !part.alive : part.alive));
  const answers = await Promise.all(fitting.map((part) => ask("POST", `/api/parts/${encodeURIComponent(part.part)}/${command}`)));
  // What follows a semicolon is the next command for a terminal; here it is the button beside.
  return answers.map((answer) => `${answer.message.split(";")[0]}.`).join(" ");
}

// What is to be typed for each part as it is now: what is dead can only be started.
function showCommands(chosen, place) {
  const done = h("span", {});
  const line = (command) => {
    const button = h("button", { type: "button", "aria-label": `Copy: ${command}`,
      onclick: () => copy(command).then((words) => text(done, words), (error) => text(done, error.message)) }, "Copy");
    return h("div", { class: "row" }, h("code", {}, command), button);
  };
  const lines = chosen.flatMap((part) => COMMANDS.filter((command) => (command === "start") !== part.alive).map((command) => line(part.commands[command])));
  const close = h("button", { type: "button", onclick: () => note(place, "") }, "Close");
  note(place, "");
  place.replaceChildren(h("span", {}, "Type in a terminal:"), ...lines, h("span", { class: "row" }, close, done));
}

// In the place of a description: what the card company does is what a visitor may choose.
function acquirer(element, place) {
  const mode = h("select", { "aria-label": "What the acquirer does" }, ...options(MODES));
  const percent = h("select", { "aria-label": "To how many requests" }, ...options(PERCENTS));
  let sent = 0;
  const change = async () => {
    sent += 1;
    try {
      await ask("PUT", "/api/acquirer", { mode: mode.value, percent: Number(percent.value) });
      note(place, mode.value === "normal" ? "The acquirer answers as it should." : `The acquirer ${mode.selectedOptions[0].textContent} now.`);
    } catch (error) {
      note(place, error.message, true);
    }
    sent -= 1;
  };
  mode.addEventListener("change", change);
  percent.addEventListener("change", change);
  element.querySelector(".part-about").replaceWith(mode, percent);
  return (state) => {
    set(element, "data-mode", state.acquirer?.mode ?? "normal");
    percent.hidden = mode.value === "normal";
    // While a choice is on its way, or the list is open, what the server still says must not undo it.
    if (!state.acquirer || sent > 0 || [mode, percent].includes(document.activeElement)) return;
    mode.value = state.acquirer.mode;
    const told = String(state.acquirer.percent);
    if (![...percent.options].some((option) => option.value === told)) percent.append(...options([[told, `${told} %`]]));
    percent.value = told;
  };
}
