// Line charts over time, drawn as SVG. No dependency; everything is set through the DOM, so that a page with a strict
// content security policy may use it. `Chart.line(container, options)` draws and gives an object with `update(options)`:
//   { title, unit, height?, from_ms, to_ms, zero_ms?, log?,
//     series: [{ name, slot: 1..6, points: [[time_ms, number | null], …], dashed? }],
//     shades: [{ from_ms, to_ms | null, label }] }
"use strict";

const Chart = (() => {
  const NAMESPACE = "http://www.w3.org/2000/svg";
  const HEIGHT_PX = 180;
  const WIDTH_PX_MIN = 200;
  const MARGIN_PX = { top: 8, right: 10, bottom: 22, left: 46 };
  const TICK_APART_PX = 84;
  const ROW_PX = 14;
  const LETTER_PX = 7;
  const TABLE_ROWS_MAX = 12;
  const TABLE_EVERY_MS = 5_000;
  const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
  let charts = 0;

  function line(container, options) {
    const chart = { view: build(container), options: null, cursor_ms: null, width_px: WIDTH_PX_MIN, table_ms: -Infinity };
    const update = (next) => {
      chart.options = { shades: [], ...next };
      draw(chart);
    };
    listen(chart);
    chart.width_px = Math.max(WIDTH_PX_MIN, Math.round(chart.view.plot.clientWidth));
    update(options);
    new ResizeObserver(() => {
      const width_px = Math.max(WIDTH_PX_MIN, Math.round(chart.view.plot.clientWidth));
      if (width_px === chart.width_px) return;
      chart.width_px = width_px;
      draw(chart);
    }).observe(chart.view.plot);
    return { update };
  }

  function build(container) {
    const figure = html("figure", "chart");
    const head = html("figcaption", "chart-head");
    const title = html("span", "chart-title");
    const legend = html("ul", "chart-legend");
    const plot = html("div", "chart-plot");
    plot.tabIndex = 0;
    plot.setAttribute("role", "slider");
    plot.setAttribute("aria-valuemin", "0");
    const drawing = svg("svg", { "aria-hidden": "true", focusable: "false" });
    const clip = `chart-clip-${++charts}`;
    const clipPath = svg("clipPath", { id: clip });
    const clipRect = svg("rect", {});
    clipPath.append(clipRect);
    const layers = {};
    for (const name of ["axes", "shades", "lines", "pointer"]) layers[name] = svg("g", {});
    layers.shades.setAttribute("clip-path", `url(#${clip})`);
    layers.lines.setAttribute("clip-path", `url(#${clip})`);
    drawing.append(clipPath, layers.axes, layers.shades, layers.lines, layers.pointer);
    const readout = html("div", "chart-readout");
    readout.hidden = true;
    const words = html("div", "hidden-text");
    const table = html("table", "");
    words.append(table);
    head.append(title, legend);
    plot.append(drawing, readout);
    figure.append(head, plot, words);
    container.replaceChildren(figure);
    return { figure, title, legend, plot, drawing, clipRect, layers, readout, table };
  }

  function listen(chart) {
    const { plot } = chart.view;
    const point = (cursor_ms) => {
      chart.cursor_ms = cursor_ms;
      drawPointer(chart);
    };
    plot.addEventListener("pointermove", (event) => {
      const box = plot.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * chart.width_px;
      const { from_ms, to_ms } = chart.options;
      const { left, right } = MARGIN_PX;
      point(from_ms + ((x - left) / (chart.width_px - left - right)) * (to_ms - from_ms));
    });
    plot.addEventListener("pointerleave", () => point(null));
    plot.addEventListener("blur", () => point(null));
    plot.addEventListener("keydown", (event) => {
      const all_ms = times(chart.options);
      if (event.key === "Escape") point(null);
      if (all_ms.length === 0) return;
      const at = chart.cursor_ms === null ? all_ms.length - 1 : nearest(all_ms, chart.cursor_ms);
      const moves = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1,
        PageUp: at - 10, PageDown: at + 10, Home: 0, End: all_ms.length - 1 };
      if (!(event.key in moves)) return;
      event.preventDefault();
      const to = chart.cursor_ms === null ? at : moves[event.key];
      point(all_ms[Math.min(all_ms.length - 1, Math.max(0, to))]);
    });
  }

  function draw(chart) {
    const { view, options, width_px } = chart;
    const height_px = options.height || HEIGHT_PX;
    view.drawing.setAttribute("viewBox", `0 0 ${width_px} ${height_px}`);
    const area = {
      left: MARGIN_PX.left, right: width_px - MARGIN_PX.right, top: MARGIN_PX.top, bottom: height_px - MARGIN_PX.bottom,
    };
    set(view.clipRect, { x: area.left, y: 0, width: area.right - area.left, height: area.bottom + 1 });
    chart.frame = frame(options, area);
    drawHead(view, options);
    drawAxes(view.layers.axes, options, chart.frame);
    drawShades(view.layers.shades, options, chart.frame);
    drawLines(view.layers.lines, options, chart.frame);
    drawPointer(chart);
    describe(chart);
  }

  // Where times and values lie on the drawing.
  function frame(options, area) {
    const { from_ms, to_ms } = options;
    const values = options.series.flatMap((series) => series.points)
      .filter(([time_ms, value]) => value !== null && time_ms >= from_ms && time_ms <= to_ms)
      .map(([, value]) => value);
    const { ticks, low, high } = options.log ? logTicks(values) : linearTicks(values);
    const measure = options.log ? (value) => Math.log10(Math.max(value, low)) : (value) => value;
    const x = (time_ms) => area.left + ((time_ms - from_ms) / Math.max(1, to_ms - from_ms)) * (area.right - area.left);
    const y = (value) =>
      area.bottom - ((measure(value) - measure(low)) / (measure(high) - measure(low))) * (area.bottom - area.top);
    return { area, ticks, x, y };
  }

  function linearTicks(values) {
    const max = values.reduce((most, value) => Math.max(most, value), 0) || 1;
    const rough = max / 4;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((each) => each >= rough);
    const count = Math.max(1, Math.ceil(max / step - 1e-9));
    return { ticks: Array.from({ length: count + 1 }, (_, index) => index * step), low: 0, high: count * step };
  }

  function logTicks(values) {
    const positive = values.filter((value) => value > 0);
    if (positive.length === 0) return { ticks: [1, 10, 100, 1000], low: 1, high: 1000 };
    const most = positive.reduce((a, b) => Math.max(a, b));
    const first = Math.floor(Math.log10(positive.reduce((a, b) => Math.min(a, b))));
    const power = 10 ** Math.max(first, Math.floor(Math.log10(most)));
    const high = [2, 5, 10].map((factor) => factor * power).find((each) => each >= most);
    const count = Math.floor(Math.log10(high) + 1e-9) - first + 1;
    return { ticks: Array.from({ length: count }, (_, index) => 10 ** (first + index)), low: 10 ** first, high };
  }

  function drawHead(view, options) {
    // Milliseconds carry their unit at every figure, since many are told in seconds.
    const scale = [options.unit === "ms" ? "" : options.unit, options.log ? "log scale" : ""].filter(Boolean).join(", ");
    const unit = html("span", "chart-unit", scale);
    view.title.replaceChildren(options.title, unit);
    view.legend.replaceChildren(...options.series.map((series) => {
      const item = html("li", "");
      item.append(key(series), series.name, html("b", "", format(last(series.points), options.unit)));
      return item;
    }));
  }

  function key(series) {
    const mark = svg("svg", { class: "chart-key", viewBox: "0 0 16 4", "aria-hidden": "true" });
    const stroke = svg("path", { d: "M0 2H16", class: series.dashed ? "chart-line chart-dashed" : "chart-line" });
    stroke.style.stroke = colour(series);
    stroke.style.strokeWidth = "3";
    mark.append(stroke);
    return mark;
  }

  function drawAxes(layer, options, { area, ticks, x, y }) {
    const parts = [];
    const apart = Math.ceil((ticks.length * ROW_PX) / (area.bottom - area.top));
    ticks.forEach((value, index) => {
      if (index % apart !== 0) return;
      const at = crisp(y(value));
      const base = index === 0 ? "chart-base" : "chart-grid";
      parts.push(svg("path", { d: `M${area.left} ${at}H${area.right}`, class: base }));
      parts.push(svg("text", { x: area.left - 6, y: at + 3.5, "text-anchor": "end" }, format(value, options.unit)));
    });
    for (const [time_ms, label] of timeTicks(options, area)) {
      const at = crisp(x(time_ms));
      parts.push(svg("path", { d: `M${at} ${area.bottom}v4`, class: "chart-base" }));
      const anchor = at > area.right - 14 ? "end" : at < area.left + 14 ? "start" : "middle";
      parts.push(svg("text", { x: at, y: area.bottom + 16, "text-anchor": anchor }, label));
    }
    layer.replaceChildren(...parts);
  }

  function timeTicks({ from_ms, to_ms, zero_ms }, area) {
    const wanted = Math.max(2, Math.floor((area.right - area.left) / TICK_APART_PX));
    const rough_s = (to_ms - from_ms) / 1_000 / wanted;
    const step_ms = 1_000 * (STEPS_S.find((step) => step >= rough_s) || STEPS_S[STEPS_S.length - 1]);
    // Clock ticks stand on round local times, whatever the offset of the time zone.
    const origin_ms = zero_ms ?? new Date(from_ms).setHours(0, 0, 0, 0);
    const ticks = [];
    for (let at = origin_ms + Math.ceil((from_ms - origin_ms) / step_ms) * step_ms; at <= to_ms; at += step_ms) {
      ticks.push([at, zero_ms === undefined ? clock(at, step_ms < 60_000) : elapsed(at - zero_ms)]);
    }
    return ticks;
  }

  function drawShades(layer, options, { area, x }) {
    const ends = [];
    const parts = [];
    for (const shade of options.shades) {
      const to_ms = shade.to_ms ?? options.to_ms;
      if (to_ms < options.from_ms || shade.from_ms > options.to_ms) continue;
      const left = Math.max(area.left, x(shade.from_ms));
      const right = Math.max(left + 1, Math.min(area.right, x(to_ms)));
      parts.push(svg("rect", {
        x: left, y: area.top, width: right - left, height: area.bottom - area.top, class: "chart-shade",
      }));
      // Labels that would lie on each other take the next free row; near the right edge they end with the drawing.
      const width = shade.label.length * LETTER_PX + 8;
      const start = Math.max(area.left + 4, Math.min(left + 4, area.right - width));
      if (ends.some((each) => each.label === shade.label && each.end > start)) continue;
      let row = ends.findIndex((each) => each.end <= start);
      if (row < 0) row = ends.push(null) - 1;
      ends[row] = { end: start + width, label: shade.label };
      const [x_px, anchor] = start < left + 4 ? [area.right - 4, "end"] : [start, "start"];
      parts.push(svg("text", {
        x: x_px, y: area.top + 11 + row * ROW_PX, "text-anchor": anchor, class: "chart-shade-label",
      }, shade.label));
    }
    layer.replaceChildren(...parts);
  }

  function drawLines(layer, options, { area, x, y }) {
    while (layer.children.length > options.series.length) layer.lastChild.remove();
    while (layer.children.length < options.series.length) layer.append(svg("path", {}));
    options.series.forEach((series, index) => {
      const path = layer.children[index];
      path.setAttribute("class", series.dashed ? "chart-line chart-dashed" : "chart-line");
      path.setAttribute("d", trace(thin(visible(series.points, options), area), x, y));
      path.style.stroke = colour(series);
    });
  }

  function trace(points, x, y) {
    let path = "";
    let open = false;
    for (const [time_ms, value] of points) {
      if (value !== null) {
        const at = `${x(time_ms).toFixed(1)} ${y(value).toFixed(1)}`;
        // A lone value between gaps is a line without length, which the round cap shows as a dot.
        path += open ? `L${at}` : `M${at}h0`;
      }
      open = value !== null;
    }
    return path;
  }

  function visible(points, { from_ms, to_ms }) {
    const first = points.findIndex(([time_ms]) => time_ms >= from_ms);
    if (first < 0) return [];
    const end = points.findIndex(([time_ms]) => time_ms > to_ms);
    return points.slice(Math.max(0, first - 1), end < 0 ? points.length : end + 1);
  }

  // More points than pixels: of each pixel's points the least and the greatest stay, so that no spike is lost.
  function thin(points, area) {
    const columns = Math.max(1, Math.round(area.right - area.left));
    if (points.length <= columns * 2) return points;
    const each = Math.ceil(points.length / columns);
    const thinned = [];
    for (let at = 0; at < points.length; at += each) {
      const group = points.slice(at, at + each);
      const known = group.filter(([, value]) => value !== null);
      if (known.length < group.length) thinned.push([group[0][0], null]);
      if (known.length === 0) continue;
      const least = known.reduce((a, b) => (b[1] < a[1] ? b : a));
      const most = known.reduce((a, b) => (b[1] > a[1] ? b : a));
      thinned.push(...(least[0] < most[0] ? [least, most] : [most, least]));
    }
    return thinned;
  }

  function drawPointer(chart) {
    const { view, options, frame: { area, x, y }, cursor_ms } = chart;
    const all_ms = cursor_ms === null ? [] : times(options);
    view.readout.hidden = all_ms.length === 0;
    if (all_ms.length === 0) {
      view.layers.pointer.replaceChildren();
      view.plot.setAttribute("aria-valuetext", view.plot.getAttribute("aria-label") || "");
      return;
    }
    const at_ms = all_ms[nearest(all_ms, cursor_ms)];
    const at = x(at_ms);
    const parts = [svg("path", { d: `M${at} ${area.top}V${area.bottom}`, class: "chart-cursor" })];
    const rows = [html("div", "", moment(at_ms, options))];
    const words = [moment(at_ms, options)];
    for (const series of options.series) {
      const value = valueAt(series.points, at_ms);
      const row = html("div", "");
      row.append(key(series), series.name, html("b", "", format(value, options.unit)));
      rows.push(row);
      words.push(`${series.name} ${format(value, options.unit)}`);
      if (value === null) continue;
      const dot = svg("circle", { cx: at, cy: y(value), r: 4, class: "chart-dot" });
      dot.style.fill = colour(series);
      parts.push(dot);
    }
    view.layers.pointer.replaceChildren(...parts);
    view.readout.replaceChildren(...rows);
    const scale = view.plot.clientWidth / chart.width_px;
    const right = at * scale > view.plot.clientWidth / 2;
    view.readout.style.left = right ? "auto" : `${at * scale + 10}px`;
    view.readout.style.right = right ? `${view.plot.clientWidth - at * scale + 10}px` : "auto";
    set(view.plot, { "aria-valuetext": words.join(", "), "aria-valuenow": nearest(all_ms, at_ms) });
  }

  // What a screen reader gets: the last values as the name, and a few rows of the data as a table.
  function describe(chart) {
    const { view, options } = chart;
    const latest = options.series.map((series) => `${series.name} ${format(last(series.points), options.unit)}`);
    const outages = options.shades.map((shade) => shade.label);
    const also = outages.length > 0 ? `. Shaded: ${outages.join(", ")}` : "";
    const all_ms = times(options);
    set(view.plot, {
      "aria-label": `${options.title}, ${options.unit}. Last: ${latest.join(", ")}${also}`,
      "aria-valuemax": Math.max(0, all_ms.length - 1),
    });
    if (chart.cursor_ms === null) {
      set(view.plot, { "aria-valuenow": Math.max(0, all_ms.length - 1), "aria-valuetext": latest.join(", ") });
    }
    if (options.to_ms - chart.table_ms < TABLE_EVERY_MS) return;
    chart.table_ms = options.to_ms;
    const each = Math.max(1, Math.ceil(all_ms.length / TABLE_ROWS_MAX));
    const rows = [["Time", ...options.series.map((series) => series.name)]];
    for (let at = (all_ms.length - 1) % each; at >= 0 && at < all_ms.length; at += each) {
      const values = options.series.map((series) => format(valueAt(series.points, all_ms[at]), options.unit));
      rows.push([moment(all_ms[at], options), ...values]);
    }
    const caption = html("caption", "", `${options.title}, ${options.unit}`);
    view.table.replaceChildren(caption, ...rows.map((cells, index) => {
      const row = html("tr", "");
      row.append(...cells.map((cell) => html(index === 0 ? "th" : "td", "", cell)));
      return row;
    }));
  }

  function times({ series, from_ms, to_ms }) {
    const all_ms = new Set(series.flatMap(({ points }) => points.map(([time_ms]) => time_ms)));
    return [...all_ms].filter((time_ms) => time_ms >= from_ms && time_ms <= to_ms).sort((a, b) => a - b);
  }

  function nearest(all_ms, time_ms) {
    let best = 0;
    all_ms.forEach((each_ms, index) => {
      if (Math.abs(each_ms - time_ms) < Math.abs(all_ms[best] - time_ms)) best = index;
    });
    return best;
  }

  function valueAt(points, time_ms) {
    const found = points.find(([each_ms]) => each_ms === time_ms);
    return found ? found[1] : null;
  }

  function last(points) {
    return points.length > 0 ? points[points.length - 1][1] : null;
  }

  // `–` stands for no value. Milliseconds from a thousand on are told in seconds.
  function format(value, unit) {
    if (value === null || value === undefined) return "–";
    if (unit === "ms") return value >= 1_000 ? `${digits(value / 1_000)} s` : `${digits(value)} ms`;
    return digits(value);
  }

  function digits(value) {
    const places = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
    return value.toLocaleString("en", { maximumFractionDigits: places });
  }

  function clock(time_ms, seconds) {
    const two = (number) => String(number).padStart(2, "0");
    const time = new Date(time_ms);
    const minutes = `${two(time.getHours())}:${two(time.getMinutes())}`;
    return seconds ? `${minutes}:${two(time.getSeconds())}` : minutes;
  }

  function elapsed(span_ms) {
    const span_s = Math.round(span_ms / 100) / 10;
    if (Math.abs(span_s) < 120) return `${span_s} s`;
    const rest = String(Math.abs(Math.round(span_s)) % 60).padStart(2, "0");
    return `${Math.trunc(span_s / 60)}:${rest} min`;
  }

  function moment(time_ms, { zero_ms }) {
    return zero_ms === undefined ? clock(time_ms, true) : elapsed(time_ms - zero_ms);
  }

  function colour(series) {
    return `var(--series-${series.slot})`;
  }

  function crisp(at) {
    return Math.round(at) + 0.5;
  }

  function html(tag, name, text) {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  function svg(tag, attributes, text) {
    const element = document.createElementNS(NAMESPACE, tag);
    set(element, attributes);
    if (text !== undefined) element.textContent = text;
    return element;
  }

  function set(element, attributes) {
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  }

  return { line };
})();
