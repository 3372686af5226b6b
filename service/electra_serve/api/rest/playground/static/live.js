// Live view: rates and times from /metrics, once a second while it is shown.

import { request } from "./api.js";
import { fill, h } from "./dom.js";
import { problemBox } from "./view.js";

const EVERY_MS = 1000;
const KEPT = 61;
const WINDOW = 10;

/** Samples of the Prometheus text format: `{name, labels, value}`. */
export function parseMetrics(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    const match = /^([a-z_]+)(?:\{(.*)\})? (\S+)/.exec(line);
    if (!match || !match[1].startsWith("electra_")) continue;
    const labels = Object.fromEntries([...(match[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, name, value]) => [name, value.replace(/\\(.)/g, (_, mark) => (mark === "n" ? "\n" : mark))]));
    samples.push({ name: match[1], labels, value: Number(match[3]) });
  }
  return samples;
}

/** Sums of the samples that the view shows, of one model or of all. */
export function totals(samples, model) {
  const of = (name, where = () => true) =>
    samples.filter((sample) => sample.name === name && (model === null || sample.labels.model === model) && where(sample.labels)).reduce((sum, { value }) => sum + value, 0);
  const buckets = new Map();
  for (const { name, labels, value } of samples) {
    if (name !== "electra_request_seconds_bucket" || (model !== null && labels.model !== model)) continue;
    const limit = labels.le === "+Inf" ? Infinity : Number(labels.le);
    buckets.set(limit, (buckets.get(limit) ?? 0) + value);
  }
  return {
    requests: of("electra_requests_total"),
    failed: of("electra_requests_total", ({ code }) => code !== "ok"),
    batches: of("electra_batch_sequences_count"),
    sequences: of("electra_batch_sequences_sum"),
    real: of("electra_real_tokens_total"),
    padded: of("electra_padded_tokens_total"),
    queued: of("electra_queued_sequences"),
    running: of("electra_running_sequences"),
    work: of("electra_queued_work_seconds"),
    buckets: [...buckets].sort(([a], [b]) => a - b),
  };
}

/** Time below which a share of the requests between two samples stayed, by linear interpolation; null without any. */
export function quantile(share, before, after) {
  const earlier = new Map(before);
  const counts = after.map(([limit, count]) => [limit, count - (earlier.get(limit) ?? 0)]);
  const total = counts.at(-1)?.[1] ?? 0;
  if (total <= 0) return null;
  let [lowerLimit, lowerCount] = [0, 0];
  for (const [limit, count] of counts) {
    if (count >= share * total) {
      if (limit === Infinity) return lowerLimit;
      return lowerLimit + (limit - lowerLimit) * ((share * total - lowerCount) / (count - lowerCount || 1));
    }
    [lowerLimit, lowerCount] = [limit, count];
  }
  return lowerLimit;
}

const milliseconds = (seconds) => (seconds === null ? "–" : `${seconds < 0.01 ? (seconds * 1e3).toFixed(1) : Math.round(seconds * 1e3)} ms`);
const ratio = (a, b) => (b > 0 ? a / b : null);
const decimals = (value) => (value === null ? "–" : value < 10 && !Number.isInteger(value) ? value.toFixed(1) : String(Math.round(value)));

/** Figures between two samples that are `seconds` apart. */
export function figures(before, after, seconds) {
  const grown = (name) => Math.max(after[name] - before[name], 0);
  return {
    rate: grown("requests") / seconds,
    failures: grown("failed") / seconds,
    p50: quantile(0.5, before.buckets, after.buckets),
    p99: quantile(0.99, before.buckets, after.buckets),
    fill: ratio(grown("real"), grown("padded")),
    perBatch: ratio(grown("sequences"), grown("batches")),
    queued: after.queued,
    running: after.running,
    work: after.work,
  };
}

const SVG = "http://www.w3.org/2000/svg";

function sparkline(values) {
  const high = Math.max(...values, 1e-9);
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${KEPT - 1} 20`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(SVG, "polyline");
  const offset = KEPT - values.length;
  line.setAttribute("points", values.map((value, at) => `${at + offset},${(19 - (18 * value) / high).toFixed(2)}`).join(" "));
  svg.append(line);
  return svg;
}

export function liveView(app) {
  const problem = h("div", { role: "alert" });
  const cards = h("div", { class: "cards" });
  const table = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Figures of each model" });
  const note = h("p", { class: "muted" }, `Rates are those of the last second, other figures those of the last ${WINDOW} s. All clients of the service count, over REST and gRPC.`);
  const element = h("section", { class: "live" }, problem, cards, table, note);
  let history = [];
  let timer = null;

  async function sample() {
    try {
      const { text } = await request("/metrics");
      history = [...history, { at: performance.now(), samples: parseMetrics(text) }].slice(-KEPT);
      fill(problem);
      draw();
    } catch (error) {
      if (!error.problem) throw error;
      fill(problem, problemBox(error.problem));
    }
  }

  function between(first, last, model) {
    const seconds = Math.max((last.at - first.at) / 1e3, 1e-3);
    return figures(totals(first.samples, model), totals(last.samples, model), seconds);
  }

  function draw() {
    const last = history.at(-1);
    const second = history.at(-2) ?? last;
    const first = history.at(-1 - WINDOW) ?? history[0];
    const [now, recent] = [between(second, last, null), between(first, last, null)];
    const steps = history.slice(1).map((entry, at) => between(history[at], entry, null));
    const card = (name, value, values, note) => h("div", { class: "card" }, h("h3", {}, name), h("p", { class: "figure" }, value), sparkline(values), h("p", { class: "muted" }, note));
    fill(
      cards,
      card("Requests / s", decimals(now.rate), steps.map(({ rate }) => rate), `${decimals(now.failures)} failed`),
      card("Latency p50", milliseconds(recent.p50), steps.map(({ p50 }) => p50 ?? 0), `p99 ${milliseconds(recent.p99)}`),
      card("Queue", decimals(now.queued), history.map(({ samples }) => totals(samples, null).queued), `${decimals(now.running)} running · ${milliseconds(now.work)} of work`),
      card("Batch fill", recent.fill === null ? "–" : `${Math.round(100 * recent.fill)} %`, steps.map(({ fill: share }) => share ?? 0), `${decimals(recent.perBatch)} sequences a batch`),
    );
    const names = app.models().map(({ name }) => name);
    const row = (name) => {
      const [latest, window] = [between(second, last, name), between(first, last, name)];
      const cells = [decimals(latest.rate), decimals(latest.failures), milliseconds(window.p50), milliseconds(window.p99), decimals(latest.queued), decimals(latest.running), window.fill === null ? "–" : `${Math.round(100 * window.fill)} %`];
      return h("tr", {}, h("th", { scope: "row" }, name), cells.map((cell) => h("td", { class: "num" }, cell)));
    };
    const heads = ["Model", "req/s", "failed/s", "p50", "p99", "queued", "running", "fill"];
    fill(table, h("table", { class: "rows" }, h("thead", {}, h("tr", {}, heads.map((name, at) => h("th", { scope: "col", class: at ? "num" : null }, name)))), h("tbody", {}, names.map(row))));
  }

  const tick = () => {
    if (document.visibilityState === "visible") sample();
  };
  return {
    element,
    start() {
      if (timer !== null) return;
      tick();
      timer = setInterval(tick, EVERY_MS);
    },
    stop() {
      clearInterval(timer);
      timer = null;
    },
  };
}
