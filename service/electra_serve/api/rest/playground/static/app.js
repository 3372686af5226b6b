// The page: models, key, and the views that the served models allow.

import { hasKey, onUnauthenticated, request, setKey } from "./api.js";
import { configureCalls } from "./calls.js";
import { classifyView, HEADS } from "./classify.js";
import { fill, h, tabs } from "./dom.js";
import { liveView } from "./live.js";
import { rerankView } from "./rerank.js";
import { searchView } from "./search.js";
import { similarityView } from "./similarity.js";
import { tokensView } from "./tokens.js";
import { problemBox } from "./view.js";

const POLL_MS = 2000;
const facts = JSON.parse(document.getElementById("facts").textContent);
configureCalls({ keyed: facts.keyed, grpcPort: facts.grpc_port, openai: facts.openai });

const byId = (id) => document.getElementById(id);
const picker = byId("model");
let models = [];

const app = {
  facts,
  models: () => models,
  model: () => models.find((model) => model.name === picker.value) ?? models[0],
  /** Reads the models if none is known, such as after a missing key; returns false if there is still none. */
  async hasModel() {
    if (models.length === 0) await readModels();
    return models.length > 0;
  },
  /** Reads the models again after a problem that says that they changed. */
  async noticeProblem({ code }) {
    if (code === "model_not_found") await readModels();
  },
};

const isCrossEncoder = (model) => model.head === "sequence_classification" && model.labels.length === 1;
const always = () => true;
const VIEWS = [
  { key: "similarity", label: "Similarity", view: similarityView(app), suits: (model) => model.text, shown: always },
  { key: "search", label: "Search", view: searchView(app), suits: (model) => model.text, shown: always },
  { key: "tokens", label: "Tokens", view: tokensView(app), suits: (model) => model.text, shown: always },
  { key: "classify", label: "Classify", view: classifyView(app), suits: (model) => HEADS.includes(model.head), shown: () => models.some((model) => HEADS.includes(model.head)) },
  { key: "rerank", label: "Rerank", view: rerankView(app), suits: isCrossEncoder, shown: () => models.some(isCrossEncoder) },
  { key: "live", label: "Live", view: liveView(app), suits: always, shown: () => facts.metrics },
];
const panels = VIEWS.map(({ view }) => h("div", {}, view.element));
byId("panels").append(...panels);
const group = tabs(byId("tabs"), VIEWS.map(({ key, label }, at) => ({ key, label, panel: panels[at] })), selected);
const viewOf = (key) => VIEWS.find((entry) => entry.key === key);

/** Chooses a model that suits the view, and runs the live view only while it is shown. */
function selected(key) {
  const { suits } = viewOf(key);
  if (models.length > 0 && !suits(app.model())) {
    const fitting = models.find((model) => suits(model) && model.state === "ready");
    if (fitting) picker.value = fitting.name;
  }
  describe();
  const live = viewOf("live").view;
  if (key === "live") live.start();
  else live.stop();
}

/** Shows the facts about the model. */
function describe() {
  const model = app.model();
  if (!model) return;
  const parts = [
    model.state === "ready" ? null : `state ${model.state}`,
    model.config && `${model.config.hidden_dim} wide`,
    model.limits && `up to ${model.limits.max_sequence_length} tokens`,
    model.embedding && `${model.embedding.pooling} pooling`,
    model.head && model.head !== "none" ? model.head.replaceAll("_", " ") : null,
    model.engine && `${model.engine} ${model.dtype} on ${model.device}`,
  ].filter(Boolean);
  fill(
    byId("model-facts"),
    parts.join(" · "),
    model.text === false ? h("span", { class: "note" }, ` No text: ${model.text_reason}.`) : null,
    model.weights === "random" ? h("span", { class: "note" }, " Random weights: the numbers mean nothing.") : null,
  );
  viewOf("classify").view.adapt();
}

async function readModels() {
  try {
    ({ models } = (await request("/v1/models")).json);
  } catch (error) {
    if (!error.problem) throw error;
    fill(byId("page-error"), problemBox(error.problem));
    return;
  }
  fill(byId("page-error"));
  const before = picker.value;
  fill(picker, models.map((model) => h("option", { value: model.name }, model.state === "ready" ? model.name : `${model.name} (${model.state})`)));
  if (models.some(({ name }) => name === before)) picker.value = before;
  for (const { key, shown } of VIEWS) group.hide(key, !shown());
  if (before === "") selected(group.selected);
  describe();
  if (models.some(({ state }) => state === "loading" || state === "unloading")) setTimeout(readModels, POLL_MS);
  showFirstMap();
}

let isFirst = true;

/** Compares the examples once, so that a newcomer sees a result. */
function showFirstMap() {
  const model = app.model();
  if (!isFirst || model.state !== "ready" || !model.text || group.selected !== "similarity") return;
  isFirst = false;
  viewOf("similarity").view.run();
}

let asking = null;

/** Asks for a key in a dialog; several requests share one question. Returns null if the user cancels. */
function askForKey(reason) {
  asking ??= new Promise((resolve) => {
    const dialog = byId("key-dialog");
    fill(byId("key-reason"), reason);
    let given = null;
    const submit = (event) => {
      event.preventDefault();
      given = byId("key").value.trim();
      dialog.close();
    };
    const cancel = () => dialog.close();
    byId("key-form").addEventListener("submit", submit);
    byId("key-cancel").addEventListener("click", cancel);
    dialog.addEventListener("close", () => {
      byId("key-form").removeEventListener("submit", submit);
      byId("key-cancel").removeEventListener("click", cancel);
      byId("key").value = "";
      asking = null;
      resolve(given || null);
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

onUnauthenticated(askForKey);
byId("version").textContent = facts.version;
byId("key-button").hidden = !facts.keyed;
byId("key-button").addEventListener("click", async () => {
  const key = await askForKey(hasKey() ? "Replaces the key of this page." : "Requests need a key.");
  if (key === null) return;
  setKey(key);
  readModels();
});
picker.addEventListener("change", describe);
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible" && models.some(({ state }) => state !== "ready")) readModels();
});

const wanted = location.hash.slice(1);
group.hide("live", !facts.metrics);
group.select(viewOf(wanted) && (wanted !== "live" || facts.metrics) ? wanted : "similarity");
readModels();
