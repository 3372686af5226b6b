// Similarity map: cosines of all pairs of texts.

import { cosine, promptOf } from "./api.js";
import { args, client, curl, grpc, grpcTexts, openai, python } from "./calls.js";
import { field, h, linesOf } from "./dom.js";
import { makeView, number } from "./view.js";

const EXAMPLE = `A cat sleeps on the warm sofa.
A kitten naps on the couch.
The central bank raised interest rates.
Borrowing money has become more expensive.
How do I reset my password?
I cannot log in to my account.`;

const COMPARED = 100; // browsers take seconds for larger maps

const GRPC_OUTPUTS = { embedding: "OUTPUT_EMBEDDING", mean_output: "OUTPUT_MEAN" };

/** Select of the output that is compared. */
export function outputSelect() {
  return h("select", {}, h("option", { value: "embedding" }, "embedding"), h("option", { value: "mean_output" }, "mean_output"));
}

/** The call of both views that compare vectors; `lines` say what to print of the unit vectors. */
export function encodeCalls(model, output, texts, lines, openaiCall) {
  const body = { model: model.name, text: texts, outputs: [output], truncate: true };
  const after = `vectors = response.${output}\nunit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)\n${lines}`;
  return {
    curl: curl("/v1/encode", body),
    python: client(`    response = client.encode(\n${args({ text: texts, model: model.name, outputs: [output], truncate: true })}    )`, { imports: ["import numpy as np"], after }),
    grpc: grpc("Encode", { model: model.name, text: grpcTexts(texts), outputs: [GRPC_OUTPUTS[output]], truncate: true }),
    openai: output === "embedding" ? openai(openaiCall) : null,
  };
}

export function similarityView(app) {
  const area = h("textarea", { rows: "8", spellcheck: "false", name: "texts" }, EXAMPLE);
  const output = outputSelect();
  return makeView(app, {
    inputs: [field("Texts, one a line", area), field("Output", output)],
    action: "Compare",
    prepare() {
      const model = app.model();
      const texts = linesOf(area);
      const prompt = promptOf(model);
      const compared = output.value;
      const sent = texts.map((text) => prompt + text);
      const body = { model: model.name, text: sent, outputs: [compared], truncate: true };
      return {
        path: "/v1/encode",
        body,
        code: encodeCalls(
          model, compared, sent, "print((unit @ unit.T).round(2))",
          `response = client.embeddings.create(\n    model=${python(model.name)},\n    input=${python(texts, 4)},\n)\nunit = np.array([item.embedding for item in response.data])\nprint((unit @ unit.T).round(2))`,
        ),
        render: (json) => heatMap(texts, json[compared], prompt),
      };
    },
  });
}

/** A table of cosines whose colors span from the lowest one, rounded down, to 1. */
function heatMap(all, everyVector, prompt) {
  const [texts, vectors] = [all.slice(0, COMPARED), everyVector.slice(0, COMPARED)];
  const cosines = vectors.map((a) => vectors.map((b) => cosine(a, b)));
  const lowest = Math.min(...cosines.flat());
  const from = Math.min(Math.floor(lowest * 10) / 10, 0.9);
  const cell = (value, row, column) => {
    const share = Math.min(Math.max((value - from) / (1 - from), 0), 1);
    const element = h("td", { class: share > 0.75 ? "hot" : null, title: `${row + 1} and ${column + 1}: ${value.toFixed(4)}` }, number(value, 2));
    element.style.setProperty("--share", String(share));
    return element;
  };
  const numbers = texts.map((_, at) => at + 1);
  const table = h(
    "table",
    { class: "heat" },
    h("caption", { class: "hidden" }, "Cosine of each pair of texts"),
    h("thead", {}, h("tr", {}, h("td"), numbers.map((at) => h("th", { scope: "col", title: texts[at - 1] }, String(at))))),
    h("tbody", {}, cosines.map((row, at) => h("tr", {}, h("th", { scope: "row", title: texts[at] }, h("span", { class: "index" }, String(at + 1)), h("span", { class: "text" }, texts[at])), row.map((value, column) => cell(value, at, column))))),
  );
  const legend = h("div", { class: "legend", "aria-hidden": "true" }, from.toFixed(1), h("span", { class: "scale" }), "1.0");
  return [
    h("div", { class: "scroll map", tabindex: "0", role: "region", "aria-label": "Similarity map" }, table),
    legend,
    h("ol", { class: "numbered" }, texts.map((text) => h("li", {}, text))),
    all.length > COMPARED ? h("p", { class: "note" }, `Only the first ${COMPARED} of ${all.length} texts are compared.`) : null,
    prompt ? h("p", { class: "muted" }, `Each text is sent after the model's prompt “${prompt}”.`) : null,
  ];
}
