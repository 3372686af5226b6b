// Frame of a view: inputs on one side; status, problem, result and the same call on the other.

import { ApiError, request } from "./api.js";
import { callPanel } from "./calls.js";
import { fill, h } from "./dom.js";

/** A problem as the API words it, with its code, field and request id. */
export function problemBox(problem) {
  const facts = [
    problem.code && ["code", problem.code],
    problem.field && ["field", problem.field],
    problem.requestId && ["request id", problem.requestId],
    problem.retryAfter && ["retry after", `${problem.retryAfter} s`],
  ].filter(Boolean);
  const status = problem.status ? ` (${problem.status})` : "";
  return h(
    "div",
    { class: "error" },
    h("strong", {}, `${problem.title}${status}`),
    h("p", { class: "detail" }, problem.detail),
    facts.length ? h("dl", {}, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))) : null,
  );
}

/**
 * Makes a view. `inputs` are its controls, and `action` names its button. `prepare` reads them and returns the request
 * `{path, body}`, its `code` in other languages, and `render`, which takes the response and returns elements; it must not
 * read the controls, which may have changed since.
 */
export function makeView(app, { inputs, action, prepare }) {
  const problem = h("div", { role: "alert" });
  const status = h("p", { role: "status", class: "muted status" });
  const result = h("div", { class: "result" });
  const calls = callPanel();
  const button = h("button", { type: "submit", class: "primary" }, action);
  const form = h("form", { class: "inputs" }, ...inputs, h("div", { class: "actions" }, button, h("span", { class: "muted keys" }, "Ctrl + Enter")));
  let running = null;

  async function run() {
    running?.abort();
    const controller = new AbortController();
    running = controller;
    fill(problem);
    try {
      if (!app.model() && !(await app.hasModel())) return; // the page shows the reason
      const { path, body, code, render } = prepare();
      calls.show(code);
      element.setAttribute("aria-busy", "true");
      fill(status, "Computing …");
      const started = performance.now();
      const response = await request(path, { body, signal: controller.signal });
      const ms = performance.now() - started;
      fill(result, render(response.json, response));
      fill(status, summary(response.json, ms));
    } catch (error) {
      if (error.name === "AbortError") return;
      fill(status);
      fill(result);
      if (!(error instanceof ApiError)) throw error;
      fill(problem, problemBox(error.problem));
      await app.noticeProblem(error.problem);
    } finally {
      if (running === controller) element.setAttribute("aria-busy", "false");
    }
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      run();
    }
  });
  const element = h("section", { class: "view" }, form, h("div", { class: "output" }, problem, result, status, calls.element));
  return { element, run, form };
}

function summary(json, ms) {
  const usage = json?.usage;
  const tokens = usage?.tokens ?? usage?.total_tokens;
  const parts = [
    usage?.sequences && `${usage.sequences} ${usage.sequences === 1 ? "sequence" : "sequences"}`,
    tokens && `${tokens} tokens`,
    `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`,
    json?.truncated?.some(Boolean) && `${json.truncated.filter(Boolean).length} truncated`,
  ];
  return parts.filter(Boolean).join(" · ");
}

/** A number with its exact value; it is shown without the sign if it rounds to zero. */
export function number(value, digits) {
  return h("data", { value: String(value) }, value.toFixed(digits).replace(/^-(0\.0*)$/, "$1"));
}

/** A number with a bar of `share` (0 to 1) below it. */
export function meter(share, ...children) {
  const bar = h("span", { class: "bar", "aria-hidden": "true" });
  bar.style.setProperty("--share", String(Math.min(Math.max(share, 0), 1)));
  return h("span", { class: "meter" }, children, bar);
}
