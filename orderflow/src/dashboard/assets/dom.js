// Small helpers: elements, words for figures and times, and the way to the server.

const SVG = "http://www.w3.org/2000/svg";
const NOTE_MS = 8_000;

/** Makes an HTML element. `on…` attributes are listeners; `true` and `false` set and leave out. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Makes an SVG element. */
export function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else set(element, name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets an attribute only where it changes something: most of a page stays the same from one state to the next. */
export function set(element, name, value) {
  if (value === false || value === null || value === undefined) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value === true ? "" : String(value));
}

export function text(element, words) {
  const next = String(words);
  if (element.textContent !== next) element.textContent = next;
}

export const byId = (id) => document.getElementById(id);

export function count(number) {
  return number === null || number === undefined ? "–" : number.toLocaleString("en");
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** A rate as it stands on an arrow: `12/s`, below ten with one decimal, empty for nothing. */
export function rate(per_s) {
  if (!(per_s >= 0.05)) return "";
  return `${per_s.toLocaleString("en", { maximumFractionDigits: per_s < 10 ? 1 : 0 })}/s`;
}

export function span(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1_000).toFixed(ms < 10_000 ? 1 : 0)} s`;
  if (ms < 3_600_000) return `${Math.floor(ms / 60_000)} min ${Math.floor((ms % 60_000) / 1_000)} s`;
  return `${Math.floor(ms / 3_600_000)} h ${Math.floor((ms % 3_600_000) / 60_000)} min`;
}

export function clock(time) {
  const date = new Date(time);
  return Number.isNaN(date.getTime()) ? "–" : date.toLocaleTimeString("en-GB");
}

/** An amount in minor units with its currency, with the decimals that the currency has. */
export function money(amount) {
  if (!amount) return "–";
  const minor = Number(amount.amountMinor ?? 0);
  const currency = amount.currencyCode || "XXX";
  try {
    const format = new Intl.NumberFormat("en", { style: "currency", currency, currencyDisplay: "code" });
    return format.format(minor / 10 ** format.resolvedOptions().maximumFractionDigits);
  } catch {
    return `${minor} ${currency} minor`;
  }
}

/** `ORDER_STATUS_PAYMENT_DECLINED` with the prefix `ORDER_STATUS_` is `payment declined`. */
export function words(name, prefix) {
  return String(name ?? "").replace(prefix, "").toLowerCase().replaceAll("_", " ");
}

/** Asks the server. Fails with a sentence that can be shown. */
export async function ask(method, path, body) {
  const headers = { accept: "application/json" };
  if (method !== "GET") headers["x-orderflow"] = "page";
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Error("The server of this page does not answer.");
  }
  const answer = await response.json().catch(() => null);
  if (!response.ok) throw new Error(answer?.error || `The server answered with ${response.status}.`);
  return answer;
}

const notes = new WeakMap();

/** Shows a result beside its control for a while; it is read out, because the element is a status. */
export function note(element, words, bad = false) {
  clearTimeout(notes.get(element));
  element.className = bad ? "note note-bad" : "note";
  element.replaceChildren(words);
  if (words !== "") notes.set(element, setTimeout(() => element.replaceChildren(), bad ? 2 * NOTE_MS : NOTE_MS));
}

/** A button that runs `work` once at a time and shows what it gives, or its error, in `place`. */
export function action(label, place, work, attributes = {}) {
  const button = h("button", { type: "button", ...attributes }, label);
  button.addEventListener("click", async () => {
    if (button.getAttribute("aria-disabled") === "true" || button.dataset.busy) return;
    button.dataset.busy = "yes";
    try {
      const words = await work();
      if (words) note(place, words);
    } catch (error) {
      note(place, error.message, true);
    }
    delete button.dataset.busy;
  });
  return button;
}

/** Switches a button off without taking the keyboard's focus from it. */
export function allow(button, allowed) {
  set(button, "aria-disabled", allowed ? null : "true");
}

export async function copy(words) {
  if (!navigator.clipboard) throw new Error("This browser copies nothing from a page that is not served over HTTPS.");
  await navigator.clipboard.writeText(words);
  return "Copied.";
}

/** The cards of the simulated acquirer, by what they do. */
export const CARDS = [
  ["tok_visa", "Good card"],
  ["tok_insufficient_funds", "Declined: no funds"],
  ["tok_stolen_card", "Declined: stolen"],
  ["tok_flaky", "Fails twice, then pays"],
  ["tok_lost_reply", "Pays, but the answer is lost"],
  ["tok_slow", "Pays after two seconds"],
];

export function options(pairs) {
  return pairs.map(([value, label]) => h("option", { value }, label));
}
