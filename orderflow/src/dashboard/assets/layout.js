// Where everything of the picture lies, in CSS pixels. Two plans: from left to right, and from top to bottom on a phone.

export const CARD_PX = 106;
const WIDE_FROM_PX = 860;
const PAIRS_FROM_PX = 520;
const RADIUS_PX = 8;
const GROUND_GAP_PX = 20;

/** Servers that others wrote, below everything else where a stack goes past one machine. */
export const GROUND = ["nats", "postgres"];

// Each topic and queue has a row and a column within the broker: `a` is order-service's side, `b` the others'.
const TOPICS = {
  "payment-events": ["b", 0],
  "order-events": ["a", 1],
  "invoice-jobs": ["a", 5],
  invoices: ["a", 6],
  "dead-letters": ["a", 7],
};
const QUEUES = {
  "order-service.payment-events": ["a", 0],
  "payment-service.order-events": ["b", 1],
  "notification-service.order-events": ["b", 2],
  "notification-service.payment-events": ["b", 3],
  "notification-service.invoices": ["b", 4],
  "invoice-worker.invoice-jobs": ["b", 5],
  "operator.dead-letters": ["b", 7],
};

/** The plan for a width: cards, frame, topics, queues, arrows and the height of it all. */
export function layout(width, ground = []) {
  const plan = width >= WIDE_FROM_PX ? wide(width) : narrow(width);
  if (ground.length === 0) return plan;
  const across = plan.wide || width >= PAIRS_FROM_PX ? ground.length : 1;
  const from = plan.wide ? plan.frame : { x: 0, w: width };
  const w = Math.floor((from.w - 16 * (across - 1)) / across);
  const cards = { ...plan.cards };
  ground.forEach((kind, at) => {
    const row = Math.floor(at / across);
    const y = plan.height + GROUND_GAP_PX + row * (CARD_PX + 16);
    cards[kind] = { x: from.x + (at % across) * (w + 16), y, w, h: CARD_PX };
  });
  const last = cards[ground.at(-1)];
  return { ...plan, cards, height: last.y + last.h };
}

function wide(width) {
  const side = Math.round(Math.min(224, Math.max(204, width * 0.2)));
  const gap = Math.round(Math.min(84, Math.max(58, width * 0.062)));
  const frame = { x: side + gap, y: 0, w: width - 2 * (side + gap), h: 580 };
  const rows = [164, 222, 295, 338, 381, 440, 490, 546];
  const right = width - side;
  const cards = {
    "order-service": { x: 0, y: 140, w: side, h: CARD_PX },
    broker: { x: frame.x + 2, y: 2, w: frame.w - 4, h: CARD_PX },
    acquirer: { x: right, y: 0, w: side, h: CARD_PX },
    "payment-service": { x: right, y: 140, w: side, h: CARD_PX },
    "notification-service": { x: right, y: 285, w: side, h: CARD_PX },
    "invoice-worker": { x: right, y: 412, w: side, h: CARD_PX },
  };
  const boxes = place(frame, 18, 56, rows, { topic: 36, queue: 38, hero: 62 });
  const guide = { x: 0, y: 274, w: side };
  const plan = { wide: true, width, height: frame.h, frame, cards, guide, ...boxes };
  return { ...plan, arrows: [...inside(plan, rows), ...outside(plan, rows, side, right, gap)] };
}

function narrow(width) {
  const pairs = width >= PAIRS_FROM_PX;
  const column = pairs ? Math.floor((width - 16) / 2) : width;
  const cards = { "order-service": { x: 0, y: 34, w: width, h: CARD_PX } };
  const top = 34 + CARD_PX + 34;
  const rows = Array.from({ length: 8 }, (_, row) => top + CARD_PX + 34 + row * 48);
  const frame = { x: 0, y: top, w: width, h: rows[7] + 32 - top };
  cards.broker = { x: 2, y: top + 2, w: width - 4, h: CARD_PX };
  let y = top + frame.h + 34;
  const below = y;
  cards["payment-service"] = { x: 0, y, w: column, h: CARD_PX };
  if (!pairs) y += CARD_PX + 30;
  cards.acquirer = { x: pairs ? column + 16 : 0, y, w: column, h: CARD_PX };
  y += CARD_PX + 16;
  cards["notification-service"] = { x: 0, y, w: column, h: CARD_PX };
  if (!pairs) y += CARD_PX + 16;
  cards["invoice-worker"] = { x: pairs ? column + 16 : 0, y, w: column, h: CARD_PX };
  y += CARD_PX;
  const boxes = place(frame, 10, 26, rows, { topic: 36, queue: 40, hero: 44 });
  const plan = { wide: false, width, height: y, frame, cards, guide: null, ...boxes };
  const middle = column / 2;
  const pay = cards["payment-service"];
  const ask = pairs ? `M${pay.w} ${pay.y + 53}H${column + 16}` : `M${middle} ${pay.y + CARD_PX}V${cards.acquirer.y}`;
  const arrows = [
    { d: `M${width / 2} 0V34`, flow: "accepted", label: [width / 2 + 10, 20, "start"] },
    { d: `M${width / 2} ${34 + CARD_PX}V${top}`, flow: "topic:order-events", label: [width / 2 + 10, 34 + CARD_PX + 21, "start"] },
    { d: `M${middle} ${top + frame.h}V${below}`, flow: "queue:payment-service.order-events", label: [middle + 10, below - 13, "start"] },
    { d: ask, flow: "queue:payment-service.order-events" },
  ];
  return { ...plan, arrows: [...inside(plan, rows), ...arrows] };
}

// The boxes of topics and queues within the broker's frame.
function place(frame, edge, gutter, rows, heights) {
  const room = frame.w - 2 * edge - gutter;
  const a = { x: frame.x + edge, w: Math.round(room * 0.4) };
  const b = { x: a.x + a.w + gutter, w: room - a.w };
  const column = { a, b };
  const box = (where, row, h) => ({ x: column[where].x, y: rows[row] - h / 2, w: column[where].w, h });
  const topics = {};
  const queues = {};
  for (const [id, [where, row]] of Object.entries(TOPICS)) topics[id] = box(where, row, heights.topic);
  for (const [id, [where, row]] of Object.entries(QUEUES)) {
    queues[id] = box(where, row, id === "payment-service.order-events" ? heights.hero : heights.queue);
  }
  return { topics, queues, a, b };
}

// Arrows from topics to queues: what is published is copied into each of them.
function inside({ a, b }, rows) {
  const end = a.x + a.w;
  const gutter = b.x - end;
  const near = end + Math.round(gutter * 0.36);
  const far = end + Math.round(gutter * 0.64);
  return [
    { d: `M${b.x} ${rows[0]}H${end}`, flow: "in:order-service.payment-events" },
    { d: `M${end} ${rows[1]}H${b.x}`, flow: "in:payment-service.order-events" },
    { d: bend(end, rows[1], near, rows[2], b.x), flow: "in:notification-service.order-events" },
    { d: bend(b.x, rows[0], far, rows[3], b.x), flow: "in:notification-service.payment-events" },
    { d: bend(end, rows[6] - 8, near, rows[4], b.x), flow: "in:notification-service.invoices" },
    { d: `M${end} ${rows[5]}H${b.x}`, flow: "in:invoice-worker.invoice-jobs" },
    { d: `M${end} ${rows[7]}H${b.x}`, flow: "in:operator.dead-letters" },
  ];
}

// Arrows between the parts and the broker, with the rate on each.
function outside({ a, b, cards }, rows, left, right, gap) {
  const end = b.x + b.w;
  const on = (from, to, y) => [Math.round((from + to) / 2), y - 6, "middle"];
  const edge = left + gap;
  const back = left + 18;
  const out = (id, row) => ({
    d: `M${end} ${rows[row]}H${right}`, flow: `queue:${id}`, label: on(right - gap, right, rows[row]),
  });
  const middle = left / 2;
  const centre = right + left / 2;
  return [
    { d: `M${middle} 0V${cards["order-service"].y}`, flow: "accepted", label: [middle + 10, 74, "start"] },
    { d: `M${left} ${rows[1] - 10}H${a.x}`, flow: "topic:order-events", label: on(left, edge, rows[1] - 10) },
    { d: `M${a.x} ${rows[0]}H${left}`, flow: "queue:order-service.payment-events", label: on(left, edge, rows[0]) },
    { d: bend(left, rows[1] + 12, back, rows[5], a.x), flow: "topic:invoice-jobs", label: on(back, edge, rows[5]) },
    { d: `M${right} ${rows[0]}H${end}`, flow: "topic:payment-events", label: on(right - gap, right, rows[0]) },
    out("payment-service.order-events", 1),
    out("notification-service.order-events", 2),
    out("notification-service.payment-events", 3),
    out("notification-service.invoices", 4),
    out("invoice-worker.invoice-jobs", 5),
    { d: `M${right} ${rows[6]}H${a.x + a.w}`, flow: "topic:invoices", label: on(right - gap, right, rows[6]) },
    { d: `M${centre} ${cards["payment-service"].y}V${CARD_PX}`, flow: "queue:payment-service.order-events" },
  ];
}

// From (x, y) sideways to `turn`, up or down to `to`, then sideways to `end`, with round corners.
function bend(x, y, turn, to, end) {
  const down = to > y ? 1 : -1;
  const away = turn > x ? 1 : -1;
  const on = end > turn ? 1 : -1;
  const r = Math.min(RADIUS_PX, Math.abs(turn - x), Math.abs(end - turn));
  return `M${x} ${y}H${turn - away * r}Q${turn} ${y} ${turn} ${y + down * r}V${to - down * r}Q${turn} ${to} ${turn + on * r} ${to}H${end}`;
}
