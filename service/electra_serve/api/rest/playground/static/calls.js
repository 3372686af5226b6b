// The same call as the page makes, in other languages. Keys are never written: a variable stands for them.

import { baseUrl } from "./api.js";
import { fill, flash, h, tabs } from "./dom.js";

const KEY_VARIABLE = "ELECTRA_API_KEY";

/** Facts about the service that calls need: whether it has keys, and its gRPC port. */
const service = { keyed: false, grpcPort: 0, openai: false };

export function configureCalls(facts) {
  Object.assign(service, facts);
}

export function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** A JSON value as a Python literal. */
export function python(value, indent = 0) {
  const pad = " ".repeat(indent);
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) {
    const items = value.map((item) => (Array.isArray(item) ? pair(item) : python(item, indent + 4)));
    const line = `[${items.join(", ")}]`;
    if (line.length <= 60) return line;
    return `[\n${items.map((item) => `${pad}    ${item},\n`).join("")}${pad}]`;
  }
  if (typeof value === "object") {
    return `{${Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}: ${python(item, indent)}`).join(", ")}}`;
  }
  return JSON.stringify(value);
}

function pair(texts) {
  return `(${texts.map((text) => JSON.stringify(text)).join(", ")})`;
}

/** Arguments of a Python call, one a line; those that are undefined are left out. */
export function args(values, indent = 8) {
  const pad = " ".repeat(indent);
  return Object.entries(values)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${pad}${name}=${python(value, indent)},\n`)
    .join("");
}

export function curl(path, body) {
  const lines = [`curl -s ${baseUrl()}${path}`, "-H 'content-type: application/json'"];
  if (service.keyed) lines.push(`-H "authorization: Bearer $${KEY_VARIABLE}"`);
  lines.push(`-d ${quoted(JSON.stringify(body, null, 2))}`);
  return lines.join(" \\\n  ");
}

/** A script with our client; `call` has the lines inside its context, `after` those behind it. */
export function client(call, { imports = [], after = "" } = {}) {
  const all = [...(service.keyed ? ["import os"] : []), ...imports];
  const key = service.keyed ? `, api_key=os.environ["${KEY_VARIABLE}"]` : "";
  return [
    ...all,
    ...(all.length ? [""] : []),
    "from electra_serve import ElectraClient",
    "",
    `with ElectraClient(${JSON.stringify(baseUrl())}${key}) as client:`,
    call.trimEnd(),
    after.trimEnd(),
  ].join("\n").trimEnd();
}

/** A script that posts JSON, for routes without a method of our client. */
export function post(path, body, after) {
  const headers = service.keyed ? `\nheaders = {"authorization": "Bearer " + os.environ["${KEY_VARIABLE}"]}` : "";
  return [
    service.keyed ? "import os\n\nimport httpx\n" : "import httpx\n",
    `body = {\n${Object.entries(body).map(([key, value]) => `    ${JSON.stringify(key)}: ${python(value, 4)},\n`).join("")}}${headers}`,
    `response = httpx.post(${JSON.stringify(baseUrl() + path)}, json=body${service.keyed ? ", headers=headers" : ""})`,
    after,
  ].join("\n");
}

export function grpc(method, message) {
  const { protocol, hostname } = new URL(baseUrl());
  const lines = ["grpcurl"];
  if (protocol === "http:") lines[0] += " -plaintext";
  if (service.keyed) lines.push(`-H "authorization: Bearer $${KEY_VARIABLE}"`);
  lines.push(`-d ${quoted(JSON.stringify(message, null, 2))}`);
  lines.push(`${hostname}:${service.grpcPort || "GRPC_PORT"} electra.v1.EncoderService/${method}`);
  return lines.join(" \\\n  ");
}

/** A script with OpenAI's client; null if its route is off. */
export function openai(call) {
  if (!service.openai) return null;
  const key = service.keyed ? `os.environ["${KEY_VARIABLE}"]` : `"none"`;
  return [
    ...(service.keyed ? ["import os", ""] : []),
    "import numpy as np",
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${JSON.stringify(`${baseUrl()}/v1`)}, api_key=${key})`,
    call.trimEnd(),
  ].join("\n");
}

/** Texts as gRPC's messages have them. */
export function grpcTexts(texts) {
  return { texts: texts.map((text) => (Array.isArray(text) ? { first: text[0], second: text[1] } : { first: text })) };
}

/** The panel "Same call": one tab for each language. `show` takes a function for each, or null. */
export function callPanel() {
  const languages = [["curl", "curl"], ["python", "Python client"], ["grpc", "gRPC"], ["openai", "OpenAI SDK"]];
  const blocks = new Map(languages.map(([key, label]) => [key, h("pre", { tabindex: "0", "aria-label": `Call with ${label}`, "data-call": key })]));
  const list = h("div", { role: "tablist", class: "tabs small", "aria-label": "Languages" });
  const panels = languages.map(([key]) => h("div", {}, blocks.get(key)));
  const group = tabs(list, languages.map(([key, label], at) => ({ key, label, panel: panels[at] })));
  group.select("curl");
  const copy = h("button", { type: "button", onclick: () => copyText(blocks.get(group.selected), copy) }, "Copy");
  const details = h("details", { class: "calls", hidden: true }, h("summary", {}, "Same call in code"), h("div", { class: "calls-head" }, list, copy), ...panels);
  function show(calls) {
    for (const [key, block] of blocks) {
      const code = calls[key] ?? null;
      group.hide(key, code === null);
      fill(block, code ?? "");
    }
    details.hidden = false;
  }
  return { element: details, show };
}

async function copyText(block, button) {
  try {
    await navigator.clipboard.writeText(block.textContent);
  } catch {
    // Browsers offer the clipboard over TLS and on this machine only, and users may deny it.
    getSelection().selectAllChildren(block);
    document.execCommand("copy");
    getSelection().removeAllRanges();
  }
  flash(button, "Copied");
}
