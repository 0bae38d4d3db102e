// Charts over time, as inline SVG, each with its values as a table.

import { byId, make, makeSvg, setAttribute, setText } from "./dom.js";
import { formatByteRate, formatClock, formatDate, formatRate, formatRatio, unitOf } from "./format.js";
import { niceStep, runs } from "./series.js";

const MARGIN = { top: 10, right: 12, bottom: 24, left: 76 };
const HEIGHT = 210;
const TABLE_ROWS = 24;

/** What each chart draws. `low` says what a series is stacked upon. */
export const RATIO_CHART = {
  format: formatRatio,
  series: [
    { name: "hitRatio", label: "of requests", kind: "line", look: "first" },
    { name: "byteHitRatio", label: "of bytes", kind: "line", look: "second" },
  ],
  scale: () => ({ top: 1, ticks: [0, 0.25, 0.5, 0.75, 1], label: (value) => `${100 * value} %` }),
  value: (point, name) => point[name],
};

export const BYTES_CHART = {
  format: formatByteRate,
  series: [
    { name: "bytesCache", label: "from the cache", kind: "area", look: "first" },
    { name: "bytesApp", label: "from the app", kind: "area", look: "second", low: "bytesCache" },
  ],
  scale: byteScale,
  value: (point, name) => point[name],
};

function byteScale(points) {
  const most = points.reduce((top, point) => Math.max(top, point.bytesCache + point.bytesApp), 0) || 1024;
  const unit = unitOf(most);
  const step = niceStep(most / unit.size, 4);
  const ticks = [];
  for (let tick = 0; tick < most / unit.size + step; tick += step) ticks.push(tick * unit.size);
  const label = (value) => `${+(value / unit.size).toFixed(2)} ${unit.name}/s`;
  return { top: ticks.at(-1), ticks, label };
}

function timeTicks(from, to, width) {
  const steps = [60, 120, 300, 600, 1200, 3600, 7200, 14400, 21600, 43200];
  const step = steps.find((seconds) => (width * seconds) / (to - from) >= 64) ?? 86400;
  const zone = new Date(from * 1000).getTimezoneOffset() * 60;
  const ticks = [];
  for (let tick = Math.ceil((from - zone) / step) * step + zone; tick <= to; tick += step) ticks.push(tick);
  return ticks;
}

/** One chart in a <figure class="chart"> that has a canvas, a legend and a table. */
export class Chart {
  #plan;
  #figure;
  #svg;
  #data = null;
  #width = 0;
  #pointed = null;
  #legend = {};

  constructor(figureId, plan) {
    this.#plan = plan;
    this.#figure = byId(figureId);
    this.#svg = makeSvg("svg", { role: "img", height: HEIGHT });
    this.#figure.querySelector(".canvas").append(this.#svg);
    this.#makeLegend();
    this.#figure.querySelector("details").addEventListener("toggle", () => this.#drawTable());
    this.#svg.addEventListener("pointermove", (event) => this.#point(event));
    this.#svg.addEventListener("pointerleave", () => this.#point(null));
    new ResizeObserver(([entry]) => this.#resize(entry.contentRect.width)).observe(this.#svg.parentNode);
  }

  /** @param data `{ points, spacing, from, to, name }`: name says which time is shown. */
  show(data) {
    this.#data = data;
    this.#draw();
    this.#drawTable();
  }

  #resize(width) {
    if (Math.abs(width - this.#width) < 1) return;
    this.#width = width;
    if (this.#data) this.#draw();
  }

  #makeLegend() {
    const legend = this.#figure.querySelector(".legend");
    for (const { name, label, kind, look } of this.#plan.series) {
      const value = make("b");
      const key = makeSvg("svg", { class: `key ${kind} ${look}`, width: 22, height: 12, "aria-hidden": "true" },
        kind === "line" ? makeSvg("path", { d: "M1 6H21" }) : makeSvg("rect", { width: 22, height: 12, rx: 2 }));
      legend.append(make("span", {}, key, `${label} `, value));
      this.#legend[name] = value;
    }
    this.#legend.time = make("span", { class: "when" });
    legend.append(this.#legend.time);
  }

  #x(time) {
    const { from, to } = this.#data;
    return MARGIN.left + ((time - from) / (to - from)) * (this.#width - MARGIN.left - MARGIN.right);
  }

  #draw() {
    if (!this.#width) return;
    const { points, from, to, spacing } = this.#data;
    const scale = this.#plan.scale(points);
    const bottom = HEIGHT - MARGIN.bottom;
    const y = (value) => bottom - (value / scale.top) * (bottom - MARGIN.top);
    const right = this.#width - MARGIN.right;
    const parts = [];
    for (const tick of scale.ticks) {
      parts.push(makeSvg("path", { class: "grid", d: `M${MARGIN.left} ${y(tick)}H${right}` }));
      parts.push(makeSvg("text", { class: "tick", x: MARGIN.left - 8, y: y(tick) + 4, "text-anchor": "end" }, scale.label(tick)));
    }
    for (const tick of timeTicks(from, to, right - MARGIN.left)) {
      parts.push(makeSvg("path", { class: "grid small", d: `M${this.#x(tick)} ${bottom}v5` }));
      parts.push(makeSvg("text", { class: "tick", x: this.#x(tick), y: HEIGHT - 4, "text-anchor": "middle" }, formatClock(tick)));
    }
    const shown = points.filter((point) => point.time >= from);
    for (const series of this.#plan.series) parts.push(...this.#drawSeries(series, shown, spacing, y));
    if (shown.length === 0) {
      parts.push(makeSvg("text", { class: "empty", x: (MARGIN.left + right) / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "Nothing recorded yet"));
    }
    this.#pointer = makeSvg("path", { class: "pointer" });
    setAttribute(this.#svg, "width", this.#width);
    setAttribute(this.#svg, "viewBox", `0 0 ${this.#width} ${HEIGHT}`);
    setAttribute(this.#svg, "aria-label", this.#summary(shown));
    this.#svg.replaceChildren(...parts, this.#pointer);
    this.#showValues();
  }

  #pointer = null;

  #drawSeries({ name, kind, look, low }, points, spacing, y) {
    const floor = (point) => (low ? point[low] : 0);
    const drawn = [];
    for (const run of runs(points, spacing, (point) => point[name] !== null)) {
      const line = run.map((point) => `${this.#x(point.time).toFixed(1)} ${y(point[name] + floor(point)).toFixed(1)}`);
      if (run.length === 1) line.push(`${(this.#x(run[0].time) + 1.5).toFixed(1)} ${y(run[0][name] + floor(run[0])).toFixed(1)}`);
      if (kind === "area") {
        const base = run.map((point) => `${this.#x(point.time).toFixed(1)} ${y(floor(point)).toFixed(1)}`).reverse();
        drawn.push(makeSvg("path", { class: `area ${look}`, d: `M${[...line, ...base].join("L")}Z` }));
      }
      drawn.push(makeSvg("path", { class: `line ${look}`, d: `M${line.join("L")}` }));
    }
    return drawn;
  }

  #summary(points) {
    const title = this.#figure.querySelector("h3").textContent;
    if (points.length === 0) return `${title}, ${this.#data.name}: nothing recorded yet`;
    const said = this.#plan.series.map(({ name, label }) => {
      const values = points.map((point) => point[name]).filter((value) => value !== null);
      if (values.length === 0) return `${label}: nothing`;
      const [least, most] = [Math.min(...values), Math.max(...values)].map(this.#plan.format);
      return `${label}: ${this.#plan.format(values.at(-1))} last, between ${least} and ${most}`;
    });
    return `${title}, ${this.#data.name}: ${said.join("; ")}`;
  }

  #point(event) {
    this.#pointed = event === null ? null : event.clientX - this.#svg.getBoundingClientRect().left;
    this.#showValues();
  }

  /** The values at the pointer, or else the last ones. */
  #showValues() {
    if (!this.#data || !this.#pointer) return;
    const { points, spacing } = this.#data;
    let point = points.at(-1);
    if (this.#pointed !== null && points.length) {
      point = points.reduce((best, other) =>
        Math.abs(this.#x(other.time) - this.#pointed) < Math.abs(this.#x(best.time) - this.#pointed) ? other : best);
      setAttribute(this.#pointer, "d", `M${this.#x(point.time)} ${MARGIN.top}V${HEIGHT - MARGIN.bottom}`);
    } else {
      setAttribute(this.#pointer, "d", null);
    }
    for (const { name } of this.#plan.series) setText(this.#legend[name], point ? this.#plan.format(point[name]) : "");
    setText(this.#legend.time, point ? formatClock(point.time, spacing < 60) : "");
  }

  /** The same for those who cannot see it: values evenly chosen, newest first. */
  #drawTable() {
    const details = this.#figure.querySelector("details");
    if (!details.open || !this.#data) return;
    const points = this.#data.points.filter((point) => point.time >= this.#data.from);
    const every = Math.max(1, Math.ceil(points.length / TABLE_ROWS));
    const chosen = points.filter((_, index) => (points.length - 1 - index) % every === 0).reverse();
    const rows = chosen.map((point) =>
      make("tr", {}, make("th", { scope: "row" }, formatDate(point.time)), make("td", {}, formatRate(point.requests)),
        ...this.#plan.series.map(({ name }) => make("td", {}, this.#plan.format(point[name])))));
    details.querySelector("tbody").replaceChildren(...rows);
  }
}
