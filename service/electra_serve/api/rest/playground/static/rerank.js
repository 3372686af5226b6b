// Rerank: documents in the order of a cross-encoder's scores. Without the rerank routes, pairs are classified.

import { args, client, curl, grpc, grpcTexts } from "./calls.js";
import { field, h, linesOf } from "./dom.js";
import { ranking } from "./search.js";
import { makeView } from "./view.js";

export function rerankView(app) {
  const query = h("input", { type: "text", name: "query", value: "Who was late?", autocomplete: "off" });
  const area = h("textarea", { rows: "7", spellcheck: "false", name: "documents" }, "The Rabbit looked at its watch and hurried on.\nAlice fell asleep on the bank.\nThe Queen made some tarts.");
  return makeView(app, {
    inputs: [field("Query", query), field("Documents, one a line", area)],
    action: "Rerank",
    prepare() {
      const model = app.model();
      const documents = linesOf(area);
      return app.facts.rerank ? reranking(model, query.value, documents) : classification(model, query.value, documents);
    },
  });
}

function reranking(model, query, documents) {
  const body = { model: model.name, query, documents };
  return {
    path: "/v1/rerank",
    body,
    code: {
      curl: curl("/v1/rerank", body),
      python: client(`    response = client.rerank(\n${args({ query, documents, model: model.name })}    )\nprint(response.results)`),
      grpc: grpc("Rerank", body),
    },
    render(json) {
      const scores = Array(documents.length).fill(0);
      for (const { index, relevance_score: score } of json.results) scores[index] = score;
      return ranking(documents, scores);
    },
  };
}

function classification(model, query, documents) {
  const text = documents.map((document) => [query, document]);
  const given = { text, truncation: "only_second" };
  return {
    path: "/v1/classify",
    body: { model: model.name, ...given },
    code: {
      curl: curl("/v1/classify", { model: model.name, ...given }),
      python: client(`    response = client.classify(\n${args({ ...given, model: model.name })}    )\nprint(response.labels)`),
      grpc: grpc("Classify", { model: model.name, text: grpcTexts(text), truncation: "TRUNCATION_ONLY_SECOND" }),
    },
    render: (json) => ranking(documents, json.labels.map(([label]) => label.score)),
  };
}
