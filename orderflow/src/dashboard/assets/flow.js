// The picture: an SVG with arrows, topics and queues, and above it a card for each part.

import { count, h, plural, rate, s, set, span, text } from "./dom.js";
import { GROUND, layout } from "./layout.js";

const SCALE_MESSAGES_MIN = 100;
const SLAB_PX = 7;
/** A queue with a message this old is behind, as the headline says, and is drawn as one. */
const WAITING_AGE_MS = 5_000;
/** From this rate on, in messages per second, what moves along an arrow moves faster. */
const FAST_PER_S = 20;
/** What a topic carries, in a word. */
const CARRIED = { "order-events": "orders", "payment-events": "payments", "invoice-jobs": "jobs", invoices: "invoices" };
/** Who takes from a queue, where there is little room to say it. */
const BRIEF = { "payment-service": "pay", "notification-service": "notify", "invoice-worker": "invoice" };
/** Room between a queue's label and its depth, in CSS pixels. */
const LABEL_GAP_PX = 6;

/** Builds the picture in `container`; `cards` are elements by the kind of part. Gives `update(state)`. */
export function flow(container, cards, guide) {
  const drawing = s("svg", { class: "flow-drawing", role: "img", "aria-label": "The flow of orders" });
  container.prepend(drawing);
  const picture = { container, drawing, cards, guide, plan: null, ground: 0, parts: {}, state: null, scale: SCALE_MESSAGES_MIN };
  const resize = () => {
    const width = container.clientWidth;
    const ground = groundOf(picture.state);
    if (width === 0 || (picture.plan?.width === width && ground.length === picture.ground)) return;
    picture.ground = ground.length;
    picture.plan = layout(width, ground);
    build(picture);
    if (picture.state) show(picture);
  };
  new ResizeObserver(resize).observe(container);
  resize();
  return {
    update(state) {
      picture.state = state;
      if (groundOf(state).length !== picture.ground) resize();
      if (picture.plan) show(picture);
    },
  };
}

// The servers below that this stack has.
function groundOf(state) {
  return GROUND.filter((kind) => state?.parts.some((part) => part.kind === kind));
}

function build(picture) {
  const { plan, drawing, container, cards, guide } = picture;
  container.style.height = `${plan.height}px`;
  set(container, "data-plan", plan.wide ? "wide" : "narrow");
  set(drawing, "viewBox", `0 0 ${plan.width} ${plan.height}`);
  for (const [kind, box] of Object.entries(plan.cards)) lay(cards[kind], box);
  guide.hidden = !plan.guide;
  if (plan.guide) lay(guide, plan.guide);
  const frame = s("rect", { class: "flow-frame", x: plan.frame.x + 1, y: 1 + plan.frame.y, width: plan.frame.w - 2,
    height: plan.frame.h - 2, rx: 10 });
  const arrows = plan.arrows.map(arrow);
  const topics = Object.entries(plan.topics).map(([id, box]) => topic(id, box));
  const queues = Object.entries(plan.queues).map(([id, box]) => queue(id, box, plan));
  picture.parts = { frame, arrows, topics, queues };
  for (const dot of container.querySelectorAll(".flow-dot")) dot.remove();
  drawing.after(...arrows.map(({ dot }) => dot));
  drawing.replaceChildren(definitions(), frame,
    ...arrows.map(({ group }) => group), ...topics.map(({ group }) => group), ...queues.map(({ group }) => group));
}

function lay(element, { x, y, w, h }) {
  element.style.left = `${x}px`;
  element.style.top = `${y}px`;
  element.style.width = `${w}px`;
  if (h) element.style.height = `${h}px`;
}

function definitions() {
  const heads = ["still", "moving"].map((name) =>
    s("marker", { id: `head-${name}`, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8,
      markerUnits: "userSpaceOnUse", orient: "auto" }, s("path", { class: `flow-head-${name}`, d: "M0 0L8 4L0 8Z" })));
  return s("defs", {}, ...heads);
}

function arrow({ d, flow, label }) {
  const line = s("path", { d, class: "flow-arrow" });
  const words = label ? s("text", { x: label[0], y: label[1], "text-anchor": label[2], class: "flow-rate" }) : null;
  return { group: s("g", {}, line, words), line, words, flow, dot: traveller(d) };
}

// What moves while something flows: a dot along the arrow's last straight leg. It is an element of its own, so that its
// moves cost no drawing.
function traveller(d) {
  const [, x, y, axis, end] = d.match(/(-?[\d.]+) (-?[\d.]+)([HV])(-?[\d.]+)$/);
  const dot = h("i", { class: "flow-dot", hidden: true, "aria-hidden": "true" });
  dot.style.left = `${x}px`;
  dot.style.top = `${y}px`;
  dot.style.setProperty("--dx", axis === "H" ? `${end - x}px` : "0px");
  dot.style.setProperty("--dy", axis === "V" ? `${end - y}px` : "0px");
  return dot;
}

// A topic is a pill: nothing stays in it.
function topic(id, { x, y, w, h }) {
  const words = s("text", { x: x + w / 2, y: y + h / 2 + 4, "text-anchor": "middle", class: "flow-name" }, id);
  return { id, group: s("g", {}, s("rect", { class: "flow-topic", x, y, width: w, height: h, rx: h / 2 }), words) };
}

// A queue is a box that fills: with slabs, from the end at which its consumer takes.
function queue(id, { x, y, w, h }, plan) {
  const consumer = id.slice(0, id.indexOf("."));
  const hero = h > 42 && plan.wide;
  const side = Math.min(hero ? 98 : 60, Math.round(w * 0.3));
  const bar = { x: x + 10, y: y + h / 2 + (hero ? -1 : 2), w: Math.floor((w - side - 16) / SLAB_PX) * SLAB_PX, h: hero ? 24 : 11 };
  const name = s("text", { x: bar.x, y: y + h / 2 - (hero ? 9 : 4), class: "flow-label" });
  const depth = s("text", { x: x + w - 10, y: y + h / 2 + (hero ? 4 : 0), "text-anchor": "end",
    class: hero ? "flow-depth flow-depth-hero" : "flow-depth" });
  const age = s("text", { x: x + w - 10, y: y + h / 2 + (hero ? 21 : 14), "text-anchor": "end", class: "flow-age" });
  const filled = s("path", { class: "flow-fill", "stroke-width": bar.h, "stroke-dasharray": `${SLAB_PX - 2} 2` });
  const title = s("title", {});
  const group = s("g", { class: "flow-queue", "data-queue": id }, title,
    s("rect", { class: "flow-queue-box", x, y, width: w, height: h, rx: 3 }),
    s("rect", { class: "flow-track", x: bar.x, y: bar.y, width: bar.w, height: bar.h }), filled, name, depth, age);
  return { id, consumer, group, name, depth, age, filled, bar, title, room: x + w - 10 - bar.x, narrow: !plan.wide };
}

function show(picture) {
  const { parts, state, drawing } = picture;
  const queues = new Map(state.queues.map((each) => [each.id, each]));
  const topics = new Map(state.topics.map((each) => [each.id, each]));
  set(drawing, "data-broker", state.broker.reached ? "reached" : "away");
  picture.scale = scaleFor(picture.scale, state.queues);
  for (const each of parts.arrows) {
    const per_s = state.broker.reached || each.flow === "accepted" ? speed(each.flow, state, topics, queues) : 0;
    const moving = per_s >= 0.05;
    set(each.line, "class", moving ? "flow-arrow flow-moving" : "flow-arrow");
    set(each.dot, "hidden", !moving);
    set(each.dot, "class", per_s >= FAST_PER_S ? "flow-dot flow-fast" : "flow-dot");
    if (each.words) text(each.words, rate(per_s));
  }
  for (const each of parts.queues) showQueue(each, queues.get(each.id), state, picture.scale);
  set(drawing, "aria-label", summary(state));
}

function speed(flow, state, topics, queues) {
  const [kind, id] = flow.split(":");
  if (kind === "accepted") return state.orders.accepted_per_s;
  if (kind === "topic") return topics.get(id)?.published_per_s ?? 0;
  const found = queues.get(id);
  if (kind === "in") return found?.published_per_s ?? 0;
  // Rates are means of some seconds; nothing flows to a part that is dead.
  return ready(found?.consumer, state) ? found.acked_per_s : 0;
}

function ready(kind, state) {
  return state.parts.some((part) => part.kind === kind && part.alive && part.healthy);
}

// Who takes from the queue, and what it carries: in as many letters as there is room for beside the depth.
function label(drawn, mark) {
  const { consumer, name, depth, room } = drawn;
  const key = `${mark}${depth.textContent.length}`;
  if (drawn.labelled === key) return;
  drawn.labelled = key;
  if (consumer === "operator") return text(name, "for an operator");
  const carries = CARRIED[drawn.id.slice(consumer.length + 1)] ?? drawn.id.slice(consumer.length + 1);
  const short = consumer.replace("-service", "");
  const free = room - depth.getComputedTextLength() - LABEL_GAP_PX;
  const long = drawn.narrow ? [] : [consumer, short];
  for (const words of [...[...long, BRIEF[consumer] ?? short].map((who) => `${who}: ${carries}`), carries]) {
    text(name, `${mark}${words}`);
    if (name.getComputedTextLength() <= free) return null;
  }
  return null;
}

// An age in the room that there is: beyond a minute whole minutes will do.
function short(age_ms) {
  return age_ms < 60_000 ? span(age_ms) : `${Math.floor(age_ms / 60_000)} min`;
}

// One scale for all queues, so that their bars can be compared. It grows in steps, and shrinks once all is drained.
function scaleFor(scale, queues) {
  const most = queues.reduce((found, each) => Math.max(found, each.id.startsWith("operator.") ? 0 : each.backlog), 0);
  if (most <= SCALE_MESSAGES_MIN / 10) return SCALE_MESSAGES_MIN;
  let next = scale;
  while (most > next) next *= String(next).startsWith("2") ? 2 : String(next).startsWith("5") ? 2 : 2.5;
  return next;
}

function showQueue(drawn, found, state, scale) {
  const { consumer, bar } = drawn;
  const backlog = found?.backlog ?? 0;
  const age_ms = found?.oldest_age_ms ?? null;
  const away = consumer !== "operator" && !ready(consumer, state);
  const waits = backlog > 0 && (away || (age_ms ?? 0) > WAITING_AGE_MS);
  const slabs = backlog === 0 ? 0 : Math.max(1, Math.ceil((Math.min(1, backlog / scale) * bar.w) / SLAB_PX));
  const width = Math.min(bar.w, slabs * SLAB_PX);
  // It fills from its consumer's end, which is on the right for all but order-service.
  const [from, to] = consumer === "order-service" ? [bar.x, bar.x + width] : [bar.x + bar.w, bar.x + bar.w - width];
  set(drawn.filled, "d", width > 0 ? `M${from} ${bar.y + bar.h / 2}H${to}` : "");
  set(drawn.group, "data-state", waits ? (away ? "stuck" : "waiting") : "calm");
  text(drawn.depth, count(backlog));
  label(drawn, away ? "✕ " : "");
  text(drawn.age, backlog > 0 && age_ms !== null ? short(age_ms) : "");
  const oldest = age_ms === null ? "" : `, the oldest for ${span(age_ms)}`;
  text(drawn.title, `Queue ${drawn.id}: ${plural(backlog, "message")} waiting${oldest}, ` +
    `${plural(found?.consumers ?? 0, "consumer")}, ${count(found?.delayed ?? 0)} delayed`);
}

function summary(state) {
  const dead = state.parts.filter((part) => !part.alive).map((part) => part.part);
  const waiting = state.queues.filter((each) => each.backlog > 0)
    .map((each) => `${plural(each.backlog, "message")} in ${each.id}`);
  return `The flow of orders. ${dead.length > 0 ? `Dead: ${dead.join(", ")}` : "All parts are alive"}. ` +
    (waiting.length > 0 ? `Waiting: ${waiting.join(", ")}.` : "All queues are empty.");
}
