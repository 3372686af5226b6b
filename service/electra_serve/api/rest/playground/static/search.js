// Search: lines in the order of their cosine to a query.

import { cosine, promptOf } from "./api.js";
import { python } from "./calls.js";
import { field, h, linesOf } from "./dom.js";
import { encodeCalls, outputSelect } from "./similarity.js";
import { makeView, meter, number } from "./view.js";

const EXAMPLE = `Tap “Forgot password” on the sign-in page and follow the link in the e-mail.
Invoices are sent on the first day of each month.
Parcels take three to five working days within the country.
You can return unused items within thirty days.
Our office is closed on public holidays.
Two-factor codes come from an app, not by text message.`;

export function searchView(app) {
  const query = h("input", { type: "text", name: "query", value: "I forgot my password", autocomplete: "off" });
  const area = h("textarea", { rows: "8", spellcheck: "false", name: "documents" }, EXAMPLE);
  const output = outputSelect();
  return makeView(app, {
    inputs: [field("Query", query), field("Documents, one a line", area), field("Output", output)],
    action: "Search",
    prepare() {
      const model = app.model();
      const [asked, documents, compared] = [query.value, linesOf(area), output.value];
      const sent = [promptOf(model, "query") + asked, ...documents.map((text) => promptOf(model, "document") + text)];
      const embed = (texts, type) => `client.embeddings.create(\n    model=${python(model.name)},\n    input=${python(texts, 4)},\n    extra_body={"input_type": "${type}"},\n)`;
      return {
        path: "/v1/encode",
        body: { model: model.name, text: sent, outputs: [compared], truncate: true },
        code: encodeCalls(
          model, compared, sent, "print(unit[1:] @ unit[0])",
          `query = ${embed([asked], "query")}\ndocuments = ${embed(documents, "document")}\nvectors = np.array([item.embedding for item in documents.data])\nprint(vectors @ np.array(query.data[0].embedding))`,
        ),
        render(json) {
          const [first, ...others] = json[compared];
          return ranking(documents, others.map((vector) => cosine(first, vector)));
        },
      };
    },
  });
}

/** Texts in the order of their scores, the best first. */
export function ranking(texts, scores, digits = 3) {
  const order = scores.map((_, at) => at).sort((a, b) => scores[b] - scores[a] || a - b);
  const [low, high] = [Math.min(0, ...scores), Math.max(1, ...scores)];
  return h(
    "ol",
    { class: "ranking" },
    order.map((at) => h("li", { "data-index": String(at) }, meter((scores[at] - low) / (high - low), number(scores[at], digits)), h("span", { class: "text" }, texts[at]))),
  );
}
