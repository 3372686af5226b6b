// Requests to the service of this page: the key, problems as the API words them, and the models.

/** A request that failed; `problem` has the members that the page shows. */
export class ApiError extends Error {
  constructor(problem) {
    super(problem.detail);
    this.problem = problem;
  }
}

let apiKey = null;
let askForKey = async () => null;

/** Sets the function that asks for a key, given the reason; it returns null if there is none. */
export function onUnauthenticated(ask) {
  askForKey = ask;
}

export function setKey(key) {
  apiKey = key === "" ? null : key;
}

export function hasKey() {
  return apiKey !== null;
}

/** Absolute URL of the service, without a slash at its end. */
export function baseUrl() {
  return new URL(".", document.baseURI).href.replace(/\/$/, "");
}

/** Sends a request, once more with a new key after a 401; returns the response's text and JSON. */
export async function request(path, { body, signal } = {}) {
  for (;;) {
    const response = await send(path, body, signal);
    const text = await response.text();
    const json = parse(text);
    if (response.ok) return { text, json, requestId: response.headers.get("x-request-id") };
    const problem = problemOf(response, json);
    if (response.status !== 401) throw new ApiError(problem);
    const key = await askForKey(problem.detail);
    if (key === null) throw new ApiError(problem);
    setKey(key);
  }
}

async function send(path, body, signal) {
  const headers = {};
  if (body !== undefined) headers["content-type"] = "application/json";
  if (apiKey !== null) headers["x-api-key"] = apiKey;
  try {
    return await fetch(`${baseUrl()}${path}`, {
      method: body === undefined ? "GET" : "POST",
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError({ title: "No response", detail: "The service cannot be reached. It may be stopped or restarting." });
  }
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** Members of the service's own problems, and of errors in the form of other servers' APIs. */
function problemOf(response, json) {
  const inner = json?.error ?? {};
  return {
    status: response.status,
    title: json?.title ?? `HTTP ${response.status}`,
    detail: json?.detail ?? inner.message ?? json?.message ?? response.statusText,
    code: json?.code ?? inner.code,
    field: json?.field ?? inner.param,
    requestId: json?.request_id ?? response.headers.get("x-request-id"),
    retryAfter: response.headers.get("retry-after"),
  };
}

/** Cosine of two vectors; 0 for a vector of zeros. */
export function cosine(a, b) {
  let dot = 0, left = 0, right = 0;
  for (let i = 0; i < a.length; i += 1) {
    dot += a[i] * b[i];
    left += a[i] * a[i];
    right += b[i] * b[i];
  }
  return left && right ? dot / Math.sqrt(left * right) : 0;
}

/** Prefix that a model expects before a text of a kind, as `/v1/embeddings` chooses it. */
export function promptOf(model, kind) {
  const prompts = model.embedding?.prompts ?? {};
  const names = { query: ["query", "search_query"], document: ["document", "passage", "search_document"] }[kind] ?? [];
  const name = names.find((candidate) => candidate in prompts) ?? model.embedding?.default_prompt ?? "";
  return prompts[name] ?? "";
}
