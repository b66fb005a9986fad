// The settings of a conversation: system prompt, presets, sampling, thinking, JSON, tools.

import { dialog } from "./dialogs.js";
import { h, iconButton, kept } from "./dom.js";

// name: label, help, least, most, step
const NUMBERS = [
  ["temperature", "Temperature", "0 takes the likeliest word, 1 draws as the model says.", 0, 2, 0.05],
  ["top_p", "Top p", "Keeps the fewest words whose probabilities reach this.", 0, 1, 0.01],
  ["min_p", "Min p", "Keeps words at least this times as likely as the best.", 0, 1, 0.01],
  ["top_k", "Top k", "Keeps so many words; 0 keeps all.", 0, 200, 1],
  ["repeat_penalty", "Repeat penalty", "Against what was just said; 1 is off.", 0.5, 2, 0.01],
];
const WHOLE = [
  ["max_tokens", "Longest answer (tokens)", 1],
  ["seed", "Seed", 0],
];
const PRESETS = [
  { name: "Default", settings: {} },
  { name: "Precise", settings: { temperature: 0.2, top_p: 0.9 } },
  { name: "Creative", settings: { temperature: 1.1, top_p: 0.98, min_p: 0.05 } },
  { name: "Repeatable", settings: { temperature: 0, seed: 1 } },
];
const SAMPLED = [...NUMBERS, ...WHOLE].map(([name]) => name);

/** Ask for settings; null where nothing is to change. defaults: what holds where a setting is left out. */
export function askedForSettings(before, defaults) {
  return dialog("Settings of this conversation", (close) => new Panel(before, defaults, close).parts, { panel: true });
}

class Panel {
  constructor(before, defaults, close) {
    this.before = before;
    this.defaults = defaults;
    this.close = close;
    this.fields = {};
    this.error = h("p", { class: "error", role: "alert" });
    this.presets = h("div", { class: "presets", role: "group", "aria-label": "Presets" });
    this.parts = [h("form", { onsubmit: (event) => this.#submit(event), novalidate: true }, this.#body(), this.#foot())];
    this.fill(before);
  }

  #body() {
    const { fields } = this;
    fields.system = h("textarea", { id: "set-system", rows: "4", placeholder: "You are a careful assistant…" });
    fields.think = select("set-think", { "": "As the model likes", yes: "Thinks first", no: "Answers at once" });
    fields.form = select("set-form", { "": "Any text", json: "JSON: any object", schema: "JSON by a schema" });
    fields.schema = h("textarea", { id: "set-schema", rows: "5", class: "mono", spellcheck: "false", placeholder: '{"type": "object", "properties": {…}}' });
    fields.tools = h("textarea", { id: "set-tools", rows: "4", class: "mono", spellcheck: "false", placeholder: '[{"type": "function", "function": {"name": "weather", "parameters": {…}}}]' });
    fields.stop = h("textarea", { id: "set-stop", rows: "2", class: "mono", spellcheck: "false" });
    this.schemaField = field("Schema", "set-schema", fields.schema, "A JSON schema that the answer follows.");
    fields.form.addEventListener("change", () => (this.schemaField.hidden = fields.form.value !== "schema"));
    return h(
      "div",
      { class: "dialog-body" },
      field("System prompt", "set-system", fields.system, "Who the model is and how it answers. It goes before the conversation."),
      h("div", { class: "field" }, h("span", { class: "label" }, "Presets"), this.presets),
      ...NUMBERS.map((number) => this.#number(number)),
      h("div", { class: "pair" }, ...WHOLE.map(([name, label, least]) => this.#whole(name, label, least))),
      h("div", { class: "pair" }, field("Thinking", "set-think", fields.think), field("Form of the answer", "set-form", fields.form)),
      this.schemaField,
      h(
        "details",
        {},
        h("summary", {}, "More"),
        h(
          "div",
          { class: "inner" },
          field("Tools", "set-tools", fields.tools, "JSON as OpenAI's API has it. You are asked for what they give."),
          field("Stop before", "set-stop", fields.stop, "The answer ends before one of these texts, one a line."),
        ),
      ),
    );
  }

  #foot() {
    return h(
      "div",
      { class: "dialog-foot" },
      this.error,
      h("span", { class: "grow" }),
      h("button", { type: "button", class: "button", onclick: () => this.close(null) }, "Cancel"),
      h("button", { type: "submit", class: "button primary" }, "Apply"),
    );
  }

  #number([name, label, help, least, most, step]) {
    const range = h("input", { type: "range", min: least, max: most, step, "aria-label": label });
    const exact = h("input", { type: "number", min: least, step: "any", id: `set-${name}`, placeholder: String(this.defaults[name] ?? ""), inputmode: "decimal" });
    const follow = () => (range.value = exact.value === "" ? (this.defaults[name] ?? least) : exact.value);
    range.addEventListener("input", () => {
      exact.value = range.value;
      this.#showPresets();
    });
    exact.addEventListener("input", () => {
      follow();
      this.#showPresets();
    });
    this.fields[name] = exact;
    exact.follow = follow;
    return h("div", { class: "field" }, h("label", { for: `set-${name}` }, label), h("div", { class: "both" }, range, exact), h("span", { class: "help" }, help));
  }

  #whole(name, label, least) {
    const input = h("input", { type: "number", min: least, step: "1", id: `set-${name}`, placeholder: name === "seed" ? "another each time" : "what the context holds", inputmode: "numeric" });
    input.addEventListener("input", () => this.#showPresets());
    this.fields[name] = input;
    return field(label, `set-${name}`, input);
  }

  fill(settings) {
    const { fields } = this;
    fields.system.value = settings.system ?? "";
    for (const name of SAMPLED) {
      fields[name].value = settings[name] ?? "";
      fields[name].follow?.();
    }
    fields.think.value = settings.think === undefined ? "" : settings.think ? "yes" : "no";
    const schema = settings.json_schema;
    fields.form.value = schema === undefined ? "" : Object.keys(schema).length ? "schema" : "json";
    fields.schema.value = schema && Object.keys(schema).length ? JSON.stringify(schema, null, 2) : "";
    this.schemaField.hidden = fields.form.value !== "schema";
    fields.tools.value = settings.tools ? JSON.stringify(settings.tools, null, 2) : "";
    fields.stop.value = (settings.stop ?? []).join("\n");
    this.#showPresets();
  }

  /** The settings as they are written; throws what is wrong with them. */
  read() {
    const { fields } = this;
    const settings = {};
    if (fields.system.value.trim()) settings.system = fields.system.value.trim();
    for (const name of SAMPLED) {
      if (fields[name].validity.badInput) throw new Error(`${labelOf(name)} must be a number.`);
      if (fields[name].value !== "") settings[name] = Number(fields[name].value);
    }
    if (fields.think.value) settings.think = fields.think.value === "yes";
    if (fields.form.value === "json") settings.json_schema = {};
    if (fields.form.value === "schema") settings.json_schema = parsed(fields.schema.value, "The schema", "{");
    if (fields.tools.value.trim()) settings.tools = parsed(fields.tools.value, "The tools", "[");
    const stops = fields.stop.value.split("\n").filter(Boolean);
    if (stops.length) settings.stop = stops;
    return settings;
  }

  #submit(event) {
    event.preventDefault();
    try {
      this.close(this.read());
    } catch (error) {
      this.error.textContent = error.message;
    }
  }

  #showPresets() {
    const own = kept.get("presets", []);
    const chip = ({ name, settings }, mine) => {
      const chosen = SAMPLED.every((field) => this.fields[field].value === String(settings[field] ?? "")) && (settings.system === undefined || settings.system === this.fields.system.value.trim());
      const choose = () => {
        const system = settings.system ?? this.fields.system.value.trim();
        this.fill({ ...this.#others(), ...settings, ...(system && { system }) });
      };
      const button = h("button", { type: "button", class: "chip", "aria-pressed": String(chosen), onclick: choose }, name);
      if (!mine) return [button];
      const forget = () => {
        kept.set("presets", own.filter((preset) => preset.name !== name));
        this.#showPresets();
      };
      return [button, iconButton("close", `Forget the preset ${name}`, forget)];
    };
    this.presets.replaceChildren(
      ...PRESETS.flatMap((preset) => chip(preset, false)),
      ...own.flatMap((preset) => chip(preset, true)),
      h("button", { type: "button", class: "chip", onclick: () => this.#keepPreset() }, "Keep as preset…"),
    );
  }

  /** What presets leave alone. */
  #others() {
    try {
      const settings = this.read();
      for (const name of SAMPLED) delete settings[name];
      return settings;
    } catch {
      return {};
    }
  }

  #keepPreset() {
    const name = h("input", { maxlength: "40", "aria-label": "Name of the preset", placeholder: "Name" });
    const keep = () => {
      if (!name.value.trim()) return;
      const settings = Object.fromEntries(SAMPLED.filter((field) => this.fields[field].value !== "").map((field) => [field, Number(this.fields[field].value)]));
      const system = this.fields.system.value.trim();
      const own = kept.get("presets", []).filter((preset) => preset.name !== name.value.trim());
      kept.set("presets", [...own, { name: name.value.trim(), settings: { ...settings, ...(system && { system }) } }]);
      this.#showPresets();
    };
    name.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      keep();
    });
    this.presets.append(name, h("button", { type: "button", class: "chip", onclick: keep }, "Keep"));
    name.focus();
  }
}

const labelOf = (name) => [...NUMBERS, ...WHOLE].find(([known]) => known === name)[1];

function parsed(text, what, begin) {
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Error(`${what}: ${error.message}`);
  }
  const fits = begin === "[" ? Array.isArray(value) : value !== null && typeof value === "object" && !Array.isArray(value);
  if (!fits) throw new Error(`${what} must be a JSON ${begin === "[" ? "list" : "object"}.`);
  return value;
}

function field(label, id, control, help) {
  return h("div", { class: "field" }, h("label", { for: id }, label), control, help && h("span", { class: "help" }, help));
}

function select(id, options) {
  return h("select", { id }, ...Object.entries(options).map(([value, label]) => h("option", { value }, label)));
}
