// Values as people read them. Pure: no document, no clock.

const count = new Intl.NumberFormat("en");
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** What cannot be said, in a table cell. */
export const NOTHING = "–";

/** Two numbers that belong to a unit of bytes: its size and its name. */
export function unitOf(bytes) {
  let index = 0;
  while (Math.abs(bytes) >= 1000 * 1024 ** index && index < UNITS.length - 1) index += 1;
  return { size: 1024 ** index, name: UNITS[index] };
}

function digits(value) {
  if (value >= 100) return value.toFixed(0);
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

export function formatBytes(bytes) {
  if (bytes === null || bytes === undefined) return NOTHING;
  const unit = unitOf(bytes);
  const value = bytes / unit.size;
  return `${unit.size === 1 ? Math.round(value) : digits(value)} ${unit.name}`;
}

export function formatByteRate(bytes) {
  return bytes === null || bytes === undefined ? NOTHING : `${formatBytes(bytes)}/s`;
}

export function formatCount(value) {
  return value === null || value === undefined ? NOTHING : count.format(value);
}

export function formatRate(value) {
  return value === null || value === undefined ? NOTHING : `${value >= 1000 ? count.format(Math.round(value)) : digits(value)} /s`;
}

/** A ratio as percent. Only what is all, or none, reads as 100 % or 0 %. */
export function formatRatio(ratio) {
  if (ratio === null || ratio === undefined) return NOTHING;
  if (ratio > 0 && ratio < 0.001) return "< 0.1 %";
  if (ratio < 1 && ratio > 0.999) return "> 99.9 %";
  return `${(100 * ratio).toFixed(1)} %`;
}

/** A span of seconds in its greatest unit, or the two greatest. */
export function formatDuration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  const days = Math.floor(whole / 86400);
  return `${days} ${days === 1 ? "day" : "days"}`;
}

export function formatAge(time, now) {
  return now - time < 2 ? "now" : `${formatDuration(now - time)} ago`;
}

function two(value) {
  return String(value).padStart(2, "0");
}

/** The time of day in the reader's own zone. */
export function formatClock(time, withSeconds = false) {
  const date = new Date(time * 1000);
  const clock = `${two(date.getHours())}:${two(date.getMinutes())}`;
  return withSeconds ? `${clock}:${two(date.getSeconds())}` : clock;
}

export function formatDate(time) {
  const date = new Date(time * 1000);
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${formatClock(time, true)}`;
}

// Control characters, and those that turn or hide text.
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/gu;

/** An image id with what would hide or turn its text spelled out. */
export function formatId(id) {
  return id.replace(HIDDEN, (character) => `\\u{${character.codePointAt(0).toString(16)}}`);
}

/** The same, cut in the middle: both ends tell ids apart. */
export function shortenId(id, most = 96) {
  const characters = Array.from(formatId(id));
  if (characters.length <= most) return characters.join("");
  const end = Math.floor(most * 0.4);
  return `${characters.slice(0, most - end - 1).join("")}…${characters.slice(-end).join("")}`;
}

/** Seconds since the epoch, from a number or an ISO 8601 time; null if it is neither. */
export function readTime(value) {
  if (typeof value === "number") return value;
  const parsed = Date.parse(value ?? "");
  return Number.isNaN(parsed) ? null : parsed / 1000;
}
