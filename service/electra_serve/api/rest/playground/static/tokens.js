// Tokens: pieces, ids and places of texts.

import { curl, post } from "./calls.js";
import { field, h } from "./dom.js";
import { makeView } from "./view.js";

const LISTED = 2000; // browsers take seconds for more

export function tokensView(app) {
  const area = h("textarea", { rows: "4", spellcheck: "false", name: "text" }, 'Unbelievable! Tokenizers split "naïve" words into pieces.');
  const special = h("input", { type: "checkbox", checked: true, name: "special" });
  return makeView(app, {
    inputs: [field("Text", area), h("label", { class: "check" }, special, "Add [CLS] and [SEP]")],
    action: "Tokenize",
    prepare() {
      const model = app.model();
      const body = { model: model.name, text: area.value, ...(special.checked ? {} : { add_special_tokens: false }) };
      return {
        path: "/v1/tokenize",
        body,
        code: {
          curl: curl("/v1/tokenize", body),
          python: post("/v1/tokenize", body, `for token in response.raise_for_status().json()["tokens"][0]:\n    print(token["id"], token["piece"], token.get("start"), token.get("end"))`),
        },
        render: (json) => tokenList(json.tokens[0], model),
      };
    },
  });
}

function tokenList(all, model) {
  const tokens = all.slice(0, LISTED);
  const limit = model.limits?.max_sequence_length;
  const place = (token) => (token.special ? "" : `${token.start}–${token.end}`);
  return [
    h("p", { class: "pieces", "aria-hidden": "true" }, tokens.map((token) => h("span", { class: token.special ? "piece special" : "piece", title: `${token.id}` }, token.piece || "?"))),
    limit && all.length > limit ? h("p", { class: "note" }, `The model takes at most ${limit} ids; the text has ${all.length}.`) : null,
    all.length > LISTED ? h("p", { class: "note" }, `Only the first ${LISTED} are listed.`) : null,
    h(
      "div",
      { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Tokens" },
      h(
        "table",
        { class: "rows" },
        h("thead", {}, h("tr", {}, ["#", "piece", "id", "characters", "text"].map((name) => h("th", { scope: "col", class: ["#", "id", "characters"].includes(name) ? "num" : null }, name)))),
        h("tbody", {}, tokens.map((token, at) => h("tr", {}, h("td", { class: "muted num" }, String(at)), h("th", { scope: "row" }, h("code", {}, token.piece)), h("td", { class: "num" }, String(token.id)), h("td", { class: "num" }, place(token)), h("td", {}, token.text ?? "")))),
      ),
    ),
  ];
}
