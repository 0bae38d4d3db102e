// The cache as a whole: rates, space, outcomes, and charts of the time before.

import { BYTES_CHART, Chart, RATIO_CHART } from "./charts.js";
import { addCell, byId, keepRows, make, setAttribute, setId, setText } from "./dom.js";
import { formatAge, formatByteRate, formatBytes, formatCount, formatRate, formatRatio, NOTHING, readTime } from "./format.js";
import { historyPoints, livePoint, LivePoints } from "./series.js";

const WINDOWS = ["10s", "1m", "10m"];

const RATES = [
  ["Hit ratio, requests", (rates) => formatRatio(rates.hit_ratio)],
  ["Hit ratio, bytes", (rates) => formatRatio(rates.byte_hit_ratio)],
  ["Requests", (rates) => formatRate(rates.requests)],
  ["From the cache", (rates) => formatByteRate(rates.bytes_cache)],
  ["From the app", (rates) => formatByteRate(rates.bytes_app)],
];

const OUTCOMES = {
  hit: "Hit",
  revalidated: "Hit, the app asked again",
  stale: "Hit, stale",
  collapsed: "Shared a fill",
  miss: "Miss",
  pass: "Passed through",
  bypass: "Not looked up",
  error: "Error",
};

// Seconds that each choice of the charts reaches back, and how it is named.
const SPANS = {
  live: [300, "the last 5 minutes"],
  hour: [3600, "the last hour"],
  day: [86400, "the last 24 hours"],
};

export class Overview {
  #live = new LivePoints(SPANS.live[0]);
  #ratio = new Chart("ratio-chart", RATIO_CHART);
  #bytes = new Chart("bytes-chart", BYTES_CHART);
  #history = null;
  #now = 0;

  constructor() {
    for (const choice of document.querySelectorAll("input[name=span]")) {
      choice.addEventListener("change", () => this.#drawCharts());
    }
  }

  show(stats) {
    this.#now = stats.time;
    this.#live.add(livePoint(stats));
    setText(byId("cache-dir"), stats.dir);
    setText(byId("cache-facts"), `${stats.driver} driver, version ${stats.version}`);
    this.#showRates(stats.rates);
    this.#showSpace(stats);
    this.#showOutcomes(stats.totals.requests);
    this.#showTotals(stats.totals);
    this.#drawCharts();
  }

  showHistory(history) {
    this.#history = history;
    this.#drawCharts();
  }

  #showRates(rates) {
    keepRows(byId("rates"), RATES, ([name]) => name,
      ([name]) => {
        const row = make("tr", {}, make("th", { scope: "row" }, name));
        for (const span of WINDOWS) addCell(row, `rate${span}`);
        return row;
      },
      (row, [, format]) => {
        for (const span of WINDOWS) setText(row[`rate${span}`], rates[span] ? format(rates[span]) : NOTHING);
      });
  }

  #showSpace({ size, images, partial_images: partial }) {
    const other = Math.max(0, size.used - size.entries);
    const share = (bytes) => (size.max > 0 ? Math.min(100, (100 * bytes) / size.max) : 0);
    const gauge = byId("gauge");
    setAttribute(gauge, "aria-valuenow", share(size.used).toFixed(1));
    setAttribute(gauge, "aria-valuetext", `${formatBytes(size.used)} of ${formatBytes(size.max)}`);
    setAttribute(byId("gauge-entries"), "width", `${share(size.entries)}%`);
    setAttribute(byId("gauge-other"), "x", `${share(size.entries)}%`);
    setAttribute(byId("gauge-other"), "width", `${share(other)}%`);
    setText(byId("space-used"), formatBytes(size.used));
    setText(byId("space-max"), `of ${formatBytes(size.max)}, ${formatRatio(size.max ? size.used / size.max : null)}`);
    setText(byId("space-entries"), formatBytes(size.entries));
    setText(byId("space-other"), formatBytes(other));
    setText(byId("image-count"), formatCount(images));
    setText(byId("partial-count"), formatCount(partial));
    const isShort = size.free !== null && size.free < size.min_free;
    setText(byId("disk-free"), formatBytes(size.free));
    setText(byId("disk-bound"), isShort ? `below the ${formatBytes(size.min_free)} to be left: nothing new is kept` : `${formatBytes(size.min_free)} to be left`);
    byId("disk-bound").classList.toggle("bad-text", isShort);
  }

  #showOutcomes(requests) {
    const all = Object.values(requests).reduce((sum, value) => sum + value, 0);
    const names = [...new Set([...Object.keys(OUTCOMES), ...Object.keys(requests)])];
    keepRows(byId("outcomes"), names, (name) => name,
      (name) => {
        const row = make("tr", {}, make("th", { scope: "row" }, OUTCOMES[name] ?? name));
        addCell(row, "count");
        addCell(row, "share");
        return row;
      },
      (row, name) => {
        setText(row.count, formatCount(requests[name] ?? 0));
        setText(row.share, formatRatio(all ? (requests[name] ?? 0) / all : null));
      });
  }

  #showTotals({ bytes, fills, evictions, verification_failures: failures }) {
    const reasons = Object.entries(fills.rolled_back ?? {}).filter(([, value]) => value > 0);
    const failed = reasons.reduce((sum, [, value]) => sum + value, 0);
    const facts = [
      ["Bytes from the cache", formatBytes(bytes.cache)],
      ["Bytes from the app", formatBytes(bytes.app)],
      ["Fills started", formatCount(fills.started)],
      ["Fills completed", formatCount(fills.committed)],
      ["Fills resumed", formatCount(fills.resumed)],
      ["Fills taken over", formatCount(fills.taken_over)],
      ["Fills failed", formatCount(failed), reasons.map(([name, value]) => `${name} ${formatCount(value)}`).join(", ")],
      ["Images evicted", formatCount(evictions.images), evictions.images ? formatBytes(evictions.bytes) : ""],
      ["Found damaged", formatCount(failures)],
    ];
    keepRows(byId("totals"), facts, ([name]) => name,
      ([name]) => {
        const row = make("tr", {}, make("th", { scope: "row" }, name));
        const cell = addCell(row, "cell");
        row.value = make("span");
        row.more = make("span", { class: "more" });
        cell.append(row.value, row.more);
        return row;
      },
      (row, [, value, more = ""]) => {
        setText(row.value, value);
        setText(row.more, more);
      });
  }

  #drawCharts() {
    const span = document.querySelector("input[name=span]:checked").value;
    const [seconds, name] = SPANS[span];
    const from = this.#now - seconds;
    const { points, spacing } = span === "live"
      ? { points: this.#live.points, spacing: 4 }
      : historyPoints(this.#history ?? { step: 60, samples: [] }, from);
    const data = { points, spacing, from, to: this.#now, name };
    this.#ratio.show(data);
    this.#bytes.show(data);
  }
}

const RANKINGS = {
  hottest: (image) => `${formatCount(image.hits)} ${image.hits === 1 ? "hit" : "hits"}`,
  biggest: (image) => formatBytes(image.size),
  coldest: (image, now) => formatAge(readTime(image.last_accessed), now),
};

/** The ends of the list of images, by hits, size and age. */
export function showRankings(stats) {
  for (const [name, format] of Object.entries(RANKINGS)) {
    keepRows(byId(name), stats[name] ?? [], (image) => image.image_id,
      () => {
        const row = make("li");
        row.name = make("span", { class: "id", dir: "auto" });
        row.figure = make("span", { class: "number" });
        row.append(row.name, row.figure);
        return row;
      },
      (row, image) => {
        setId(row.name, image.image_id);
        setText(row.figure, format(image, stats.time));
      });
  }
}
