// Elements without markup in strings, which the page's policy forbids, as it does inline styles.

/** Makes an element; null children are left out, and attributes that are null or false are not set. */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Replaces the children of an element. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
}

let nextId = 0;

/** Returns an id that no other element has. */
export function uniqueId(prefix) {
  nextId += 1;
  return `${prefix}-${nextId}`;
}

/** A label above its control. */
export function field(label, control, note) {
  if (!control.id) control.id = uniqueId("field");
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control, note ? h("p", { class: "muted" }, note) : null);
}

/**
 * Tabs as the ARIA practices have them: arrows, Home and End move and select, and Tab leaves the list.
 * Each entry has a key, a label and a panel; `hide` hides a tab.
 */
export function tabs(list, entries, onSelect = () => {}) {
  const buttons = new Map();
  let selected = null;
  for (const { key, label, panel } of entries) {
    const id = uniqueId("tab");
    panel.id ||= uniqueId("panel");
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", id);
    const button = h("button", { type: "button", role: "tab", id, "aria-controls": panel.id, "data-tab": key, onclick: () => select(key) }, label);
    buttons.set(key, { button, panel });
    list.append(button);
  }
  const shown = () => [...buttons.keys()].filter((key) => !buttons.get(key).button.hidden);
  function select(key, focus = false) {
    for (const [other, { button, panel }] of buttons) {
      button.setAttribute("aria-selected", String(other === key));
      button.tabIndex = other === key ? 0 : -1;
      panel.hidden = other !== key;
    }
    if (focus) buttons.get(key).button.focus();
    if (selected !== key) {
      selected = key;
      onSelect(key);
    }
  }
  function hide(key, hidden) {
    buttons.get(key).button.hidden = hidden;
    if (hidden && selected === key) select(shown()[0]);
  }
  list.addEventListener("keydown", (event) => {
    const keys = shown();
    const at = keys.indexOf(selected);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: keys.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    select(keys[(to + keys.length) % keys.length], true);
  });
  return { select, hide, get selected() { return selected; } };
}

/** Texts of a text area: its lines that are not blank. */
export function linesOf(area) {
  return area.value.split("\n").map((line) => line.trim()).filter((line) => line !== "");
}

/** Shows text for some seconds in place of a button's own. */
export function flash(button, text) {
  const own = button.dataset.label ?? button.textContent;
  button.dataset.label = own;
  button.textContent = text;
  setTimeout(() => { button.textContent = own; }, 1500);
}
