// The charts of the last minutes, at most ten, and the samples that they are drawn from.

import { byId } from "./dom.js";

const KEPT_MS = 600_000;
/** A stack that is young is shown over this time, so that its first minute is not a sliver. */
const SHOWN_MS_MIN = 120_000;
const HEIGHT_PX = 168;

/** Gives `fill(history)` for all at once, `add(sample)` for one more, and `watch(state)` for outages. */
export function charts() {
  const store = { samples: new Map(), outages: [], drawn: null };
  const draw = () => {
    cancelAnimationFrame(store.frame);
    store.frame = requestAnimationFrame(() => show(store));
  };
  show(store);
  return {
    fill(history) {
      store.samples = new Map(history.samples.map((sample) => [sample.time_ms, sample]));
      store.outages = history.outages;
      draw();
    },
    add(sample) {
      store.samples.set(sample.time_ms, sample);
      for (const time_ms of store.samples.keys()) {
        if (time_ms < sample.time_ms - KEPT_MS) store.samples.delete(time_ms);
      }
      draw();
    },
    /** An outage that the states tell: open ones grow, and the end of one is when its part is alive again. */
    watch(state) {
      for (const part of state.parts) {
        const open = store.outages.find((outage) => outage.part === part.part && outage.to_ms === null);
        if (!part.alive && !open) store.outages.push({ part: part.part, from_ms: state.time_ms, to_ms: null });
        if (part.alive && part.healthy && open) open.to_ms = state.time_ms;
      }
    },
  };
}

function show(store) {
  const samples = [...store.samples.values()].sort((a, b) => a.time_ms - b.time_ms);
  const to_ms = samples.length > 0 ? samples[samples.length - 1].time_ms : Date.now();
  const first_ms = samples.length > 0 ? samples[0].time_ms : to_ms;
  const of = (field) => samples.map((sample) => [sample.time_ms, sample[field]]);
  const common = {
    from_ms: Math.max(to_ms - KEPT_MS, Math.min(first_ms, to_ms - SHOWN_MS_MIN)), to_ms, height: HEIGHT_PX,
    shades: store.outages.map(({ part, from_ms, to_ms: end_ms }) => ({ from_ms, to_ms: end_ms, label: part })),
  };
  const all = {
    "chart-orders": { title: "Orders", unit: "per second", series: [
      { name: "accepted", slot: 1, points: of("accepted") },
      { name: "paid", slot: 2, points: of("paid") },
    ] },
    "chart-queued": { title: "Waiting in queues", unit: "messages", series: [
      { name: "messages", slot: 3, points: of("queued") },
    ] },
    "chart-latency": { title: "From placed to paid", unit: "ms", log: true, series: [
      { name: "half within", slot: 5, points: of("latency_p50_ms") },
      { name: "99 % within", slot: 4, points: of("latency_p99_ms"), dashed: true },
    ] },
  };
  store.drawn ??= {};
  for (const [id, options] of Object.entries(all)) {
    if (store.drawn[id]) store.drawn[id].update({ ...common, ...options });
    else store.drawn[id] = Chart.line(byId(id), { ...common, ...options });
  }
}
