// What the charts show over time: points from the history and from live updates.
// Pure but for the ring of live points.
//
// A point is { time, requests, hitRatio, byteHitRatio, bytesCache, bytesApp }: rates per
// second, ratios null where there was nothing to divide.

const ratio = (part, whole) => (whole > 0 ? part / whole : null);

/** The point that one answer of /stats gives. */
export function livePoint(stats) {
  const rates = stats.rates["10s"];
  return {
    time: stats.time,
    requests: rates.requests,
    hitRatio: rates.hit_ratio,
    byteHitRatio: rates.byte_hit_ratio,
    bytesCache: rates.bytes_cache,
    bytesApp: rates.bytes_app,
  };
}

/**
 * Points from the history's counts, gathered into at most `most`.
 *
 * @param history the answer of /stats/history: `step` seconds, `samples` oldest first.
 * @param from leaves out what is older.
 */
export function historyPoints(history, from, most = 240) {
  const samples = history.samples.filter((sample) => sample.time >= from);
  if (samples.length === 0) return { points: [], spacing: history.step };
  const span = samples.at(-1).time - samples[0].time + history.step;
  const spacing = history.step * Math.max(1, Math.ceil(span / history.step / most));
  const buckets = new Map();
  for (const sample of samples) {
    const start = Math.floor(sample.time / spacing) * spacing;
    if (!buckets.has(start)) buckets.set(start, []);
    buckets.get(start).push(sample);
  }
  return { points: [...buckets].map(([start, bucket]) => gather(start, bucket, history.step)), spacing };
}

function gather(time, samples, step) {
  const sum = (name) => samples.reduce((total, sample) => total + (sample[name] ?? 0), 0);
  const seconds = step * samples.length;
  const [requests, bytesCache, bytesApp] = [sum("requests"), sum("bytes_cache"), sum("bytes_app")];
  return {
    time,
    requests: requests / seconds,
    hitRatio: ratio(sum("hits"), requests),
    byteHitRatio: ratio(bytesCache, bytesCache + bytesApp),
    bytesCache: bytesCache / seconds,
    bytesApp: bytesApp / seconds,
  };
}

/** The latest live points, within a span of seconds. */
export class LivePoints {
  #points = [];

  constructor(span) {
    this.span = span;
  }

  add(point) {
    if (this.#points.length && point.time <= this.#points.at(-1).time) return;
    this.#points.push(point);
    while (this.#points[0].time < point.time - this.span) this.#points.shift();
  }

  get points() {
    return this.#points;
  }
}

/** Parts of a series that a line may join: no unknown value and no gap in time within. */
export function runs(points, spacing, isKnown) {
  const found = [];
  let current = [];
  let last = null;
  for (const point of points) {
    if (!isKnown(point) || (last !== null && point.time - last > 3 * spacing)) {
      if (current.length) found.push(current);
      current = [];
    }
    if (isKnown(point)) current.push(point);
    last = point.time;
  }
  if (current.length) found.push(current);
  return found;
}

/** A round step so that about `count` of them reach `most`. */
export function niceStep(most, count) {
  const rough = most / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
}
