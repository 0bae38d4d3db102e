// What is going on: fills under way, jobs, the queue, and fills that failed.

import { addCell, byId, keepRows, make, setAge, setAttribute, setHidden, setId, setText } from "./dom.js";
import { formatByteRate, formatBytes, formatCount, formatDuration, formatId, formatRatio, NOTHING, shortenId } from "./format.js";

const KINDS = { prune: "Prune", clean: "Clean", check: "Check" };
const STATES = { running: "Running", done: "Done", failed: "Failed", lost: "Lost: its process ended" };
const SHOWN_JOBS = 5;
const SHOWN_FINDINGS = 50;

function showEmpty(name, isEmpty) {
  setHidden(byId(`${name}-empty`), !isEmpty);
  setHidden(byId(`${name}-table`), isEmpty);
}

function addIdCell(row) {
  const cell = addCell(row, "idCell", { scope: "row" }, "th");
  row.name = make("span", { class: "id", dir: "auto" });
  row.more = make("span", { class: "more" });
  cell.append(row.name, row.more);
}

export function showFills(stats) {
  const fills = stats.fills;
  showEmpty("fills", fills.length === 0);
  keepRows(byId("fills"), fills, (fill) => `${fill.image_id} ${fill.since}`, makeFill,
    (row, fill) => fillFill(row, fill, stats.time));
}

function makeFill() {
  const row = make("tr");
  addIdCell(row);
  const cell = addCell(row, "progressCell");
  row.progress = make("progress", { max: 1 });
  row.amount = make("span", { class: "more" });
  cell.append(row.progress, row.amount);
  addCell(row, "rate", { class: "number" });
  addCell(row, "followers", { class: "number" });
  return row;
}

function fillFill(row, fill, now) {
  const { image_id: id, received, length, rate } = fill;
  setId(row.name, id);
  setText(row.more, `for ${formatDuration(now - fill.since)}`);
  setAttribute(row.progress, "aria-label", `Fetched of ${shortenId(id)}`);
  setAttribute(row.progress, "value", length ? Math.min(1, received / length).toFixed(3) : null);
  const left = length && rate > 0 ? `, ${formatDuration((length - received) / rate)} left` : "";
  setText(row.amount, length
    ? `${formatBytes(received)} of ${formatBytes(length)} (${formatRatio(received / length)})${left}`
    : `${formatBytes(received)}, length not known`);
  setText(row.rate, formatByteRate(rate));
  setText(row.followers, formatCount(fill.followers));
}

export function showJobs(stats) {
  const jobs = stats.jobs.slice(0, SHOWN_JOBS);
  showEmpty("jobs", jobs.length === 0);
  keepRows(byId("jobs"), jobs, (job) => job.id, makeJob, (row, job) => fillJob(row, job, stats.time));
}

function makeJob() {
  const row = make("tr");
  addCell(row, "kind", { scope: "row" }, "th");
  const cell = addCell(row, "stateCell");
  row.state = make("span");
  row.progress = make("progress", { max: 1 });
  row.result = make("span", { class: "more" });
  row.findings = make("details", {}, make("summary"), make("ul"));
  cell.append(row.state, row.progress, row.result, row.findings);
  addCell(row, "started", { class: "number" });
  return row;
}

function fillJob(row, job, now) {
  const isRunning = job.state === "running";
  setText(row.kind, KINDS[job.kind] ?? job.kind);
  const share = isRunning && job.total ? `, ${formatRatio(Math.min(1, job.done / job.total))}` : "";
  setText(row.state, `${STATES[job.state] ?? job.state}${share}`);
  row.state.className = job.state === "failed" || job.state === "lost" ? "state bad-text" : "state";
  setHidden(row.progress, !isRunning);
  setAttribute(row.progress, "aria-label", `${KINDS[job.kind] ?? job.kind} under way`);
  setAttribute(row.progress, "value", job.total ? Math.min(1, job.done / job.total).toFixed(3) : null);
  setText(row.result, job.error ?? describeResult(job.result));
  showFindings(row.findings, job.result?.findings);
  setAge(row.started, job.started, now);
}

/** What a job did, in the words of its result. */
export function describeResult(result) {
  if (result === null || typeof result !== "object") return "";
  const said = [];
  for (const [name, value] of Object.entries(result)) {
    const word = name.replaceAll("_", " ");
    if (typeof value === "number") said.push(name.includes("bytes") ? formatBytes(value) : `${formatCount(value)} ${word}`);
    else if (Array.isArray(value)) said.push(value.length ? `${formatCount(value.length)} ${word}` : `no ${word}`);
  }
  return said.join(", ");
}

function showFindings(details, findings) {
  const shown = Array.isArray(findings) ? findings.slice(0, SHOWN_FINDINGS) : [];
  setHidden(details, shown.length === 0);
  setText(details.querySelector("summary"), shown.length < (findings?.length ?? 0) ? `The first ${shown.length} findings` : "Findings");
  keepRows(details.querySelector("ul"), shown, (found) => `${found.kind} ${found.name} ${found.problem}`,
    () => make("li"),
    (item, found) => {
      const mend = found.mend ? `; ${found.is_mended ? "mended" : "to mend"}: ${found.mend}` : "";
      setText(item, `${formatId(found.image_id ?? found.name ?? found.kind)}: ${found.problem}${mend}`);
    });
}

/** @param actions `{ retry, remove }`, each given a queued image. */
export function showQueue(stats, actions) {
  const { queue, time: now } = stats;
  showEmpty("queue", queue.length === 0);
  setText(byId("queue-count"), queue.length ? formatCount(queue.length) : "");
  keepRows(byId("queue"), queue.slice(0, 100), (item) => item.image_id,
    (item) => makeQueued(item, actions),
    (row, item) => fillQueued(row, item, now));
  setHidden(byId("queue-more"), queue.length <= 100);
  setText(byId("queue-more"), `and ${formatCount(queue.length - 100)} more`);
}

function makeQueued(item, actions) {
  const row = make("tr");
  addIdCell(row);
  addCell(row, "state");
  addCell(row, "queued", { class: "number" });
  const name = shortenId(item.image_id);
  row.retry = make("button", { type: "button", "aria-label": `Retry ${name}`, click: () => actions.retry(item.image_id) }, "Retry");
  const remove = make("button", { type: "button", "aria-label": `Remove ${name} from the queue`, click: () => actions.remove(item.image_id) }, "Remove");
  addCell(row, "actions", { class: "actions" }).append(row.retry, remove);
  return row;
}

function fillQueued(row, item, now) {
  setId(row.name, item.image_id);
  setText(row.more, item.reason ? `${item.set_aside ? "Gave up" : "Failed"}${tries(item)}: ${item.reason}` : "");
  row.more.classList.toggle("bad-text", Boolean(item.set_aside));
  setText(row.state, queueState(item, now));
  setAge(row.queued, item.queued, now);
  setHidden(row.retry, !item.set_aside);
}

function tries(item) {
  if (!item.tries) return "";
  return item.tries === 1 ? " once" : ` ${item.tries} times`;
}

function queueState(item, now) {
  if (item.set_aside) return "Set aside";
  if (item.fetching) return "Fetching";
  return item.after && item.after > now ? `Again in ${formatDuration(item.after - now)}` : "Waiting";
}

export function showInvalid(stats) {
  const invalid = stats.invalid;
  showEmpty("invalid", invalid.length === 0);
  setText(byId("invalid-count"), invalid.length ? formatCount(invalid.length) : "");
  keepRows(byId("invalid"), invalid.slice(0, 100), (item) => `${item.image_id} ${item.last_modified}`,
    () => {
      const row = make("tr");
      addIdCell(row);
      row.more.classList.add("bad-text");
      addCell(row, "size", { class: "number" });
      addCell(row, "when", { class: "number" });
      return row;
    },
    (row, item) => {
      setId(row.name, item.image_id ?? NOTHING);
      setText(row.more, item.reason ?? "no reason is kept");
      setText(row.size, formatBytes(item.size));
      setAge(row.when, item.last_modified, stats.time);
    });
}
