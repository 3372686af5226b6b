// Classify: labels, labeled spans or answer spans, as the head of the model says.

import { args, client, curl, grpc, grpcTexts } from "./calls.js";
import { field, h, linesOf } from "./dom.js";
import { makeView, meter, number } from "./view.js";

export const HEADS = ["sequence_classification", "token_classification", "question_answering", "replaced_token_detection"];

export function classifyView(app) {
  const area = h("textarea", { rows: "5", spellcheck: "false", name: "texts" }, "Alice met the White Rabbit in London.\nThe tarts were terrible, and the tea was cold.");
  const question = h("input", { type: "text", name: "question", value: "Who ran away?", autocomplete: "off" });
  const context = h("textarea", { rows: "5", spellcheck: "false", name: "context" }, "The White Rabbit started violently, dropped the gloves and the fan, and ran away into the darkness.");
  const texts = field("Texts, one a line", area);
  const asked = h("div", { class: "fields" }, field("Question", question), field("Context", context));
  const view = makeView(app, {
    inputs: [texts, asked],
    action: "Classify",
    prepare() {
      const model = app.model();
      const answers = model.head === "question_answering";
      const given = answers ? { question: question.value, context: context.value, top_k: 3 } : { text: linesOf(area), truncate: true };
      const sent = answers ? [[given.question, given.context]] : given.text;
      const options = answers ? { top_k: 3 } : { truncate: true };
      return {
        path: "/v1/classify",
        body: { model: model.name, ...given },
        code: {
          curl: curl("/v1/classify", { model: model.name, ...given }),
          python: client(`    response = client.classify(\n${args({ ...given, model: model.name })}    )\nprint(response.${member(model)})`),
          grpc: grpc("Classify", { model: model.name, text: grpcTexts(sent), ...options }),
        },
        render: (json) => results(model, json, answers ? [given.context] : given.text),
      };
    },
  });
  view.adapt = () => {
    const answers = app.model()?.head === "question_answering";
    texts.hidden = answers;
    asked.hidden = !answers;
  };
  return view;
}

function member(model) {
  return { sequence_classification: "labels", question_answering: "answers" }[model.head] ?? "spans";
}

function results(model, json, texts) {
  const rows = json[member(model)];
  return h("ol", { class: "results" }, rows.map((items, at) => h("li", {}, model.head === "sequence_classification" ? labels(texts[at], items) : spans(texts[at], items, model))));
}

function labels(text, items) {
  const low = Math.min(0, ...items.map((item) => item.score));
  const high = Math.max(...items.map((item) => item.score), 1e-9);
  return [
    h("p", { class: "text" }, text),
    h("ul", { class: "scores" }, items.map((item) => h("li", {}, meter((item.score - low) / (high - low), number(item.score, 3)), h("span", { class: "label" }, item.label)))),
  ];
}

/** The text with its spans marked, and a list of them; offsets count code points. */
function spans(text, items, model) {
  const characters = [...text];
  const parts = [];
  let at = 0;
  for (const item of [...items].sort((a, b) => a.start - b.start)) {
    if (item.start < at) continue; // answer spans overlap
    parts.push(characters.slice(at, item.start).join(""));
    const mark = h("mark", { title: `${item.label ?? "answer"} ${item.score.toFixed(3)}` }, characters.slice(item.start, item.end).join(""));
    if (model.head === "replaced_token_detection") mark.style.setProperty("--share", String(item.score));
    if (item.label && model.head === "token_classification") mark.append(h("span", { class: "tag" }, item.label));
    parts.push(mark);
    at = item.end;
  }
  parts.push(characters.slice(at).join(""));
  return [
    h("p", { class: "text marked" }, parts),
    items.length === 0 ? h("p", { class: "muted" }, "No spans.") : null,
    h("ul", { class: "scores" }, items.map((item) => h("li", {}, meter(item.score, number(item.score, 3)), h("span", { class: "label" }, [item.label, item.text].filter(Boolean).join(": ")), h("span", { class: "muted num" }, `${item.start}–${item.end}`)))),
  ];
}
