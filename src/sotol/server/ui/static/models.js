// Which model answers, whether it is loaded, and how much of its context is used.

import { server } from "./api.js";
import { byId, h, kept } from "./dom.js";

const WORDS = { ready: "", loading: " (loading)", unloaded: " (loads when asked)", failed: " (failed to load)" };
const EVERY_MS = 4000; // while one is loading
const numbers = new Intl.NumberFormat();

export class Models {
  /** changed: is told the name that was chosen. */
  constructor(changed) {
    this.select = byId("model");
    this.dot = byId("model-state");
    this.listed = [];
    this.timer = null;
    this.select.addEventListener("change", () => {
      kept.set("model", this.select.value);
      this.#show();
      changed(this.select.value);
    });
    this.select.addEventListener("focus", () => this.load().catch(() => {}));
  }

  get name() {
    return this.select.value;
  }

  /** What the server has. Problem where it does not say. */
  async load() {
    clearTimeout(this.timer);
    this.listed = (await server.models()).map(({ id, aliases = [], max_model_len, meta, status }) => ({
      id,
      aliases,
      context: max_model_len ?? meta?.n_ctx ?? null,
      state: stateOf(status),
    }));
    const wanted = this.wanted ?? this.select.value;
    this.choose(wanted);
    if (this.listed.some(({ state }) => state === "loading")) this.timer = setTimeout(() => this.load().catch(() => {}), EVERY_MS);
  }

  /** Choose a conversation's model; the reader's last one, or the first, where the server does not have it. */
  choose(name) {
    this.wanted = name;
    const found = (wanted) => this.listed.find(({ id, aliases }) => id === wanted || aliases.includes(wanted));
    const chosen = found(name) ?? found(kept.get("model")) ?? this.listed[0];
    this.select.replaceChildren(...this.listed.map(({ id, state }) => h("option", { value: id }, id + (WORDS[state] ?? ""))));
    if (chosen) this.select.value = chosen.id;
    this.#show();
  }

  #show() {
    const state = this.listed.find(({ id }) => id === this.select.value)?.state ?? "unloaded";
    this.dot.dataset.state = state;
    this.select.title = `${this.select.value}${WORDS[state] ?? ""}`;
  }

  /** used, context: tokens; null shows nothing. */
  meter(used, context) {
    const meter = byId("meter");
    meter.hidden = !used || !context;
    if (meter.hidden) return;
    const percent = Math.min(100, Math.round((100 * used) / context));
    meter.setAttribute("aria-valuenow", percent);
    const text = `${numbers.format(used)} of ${numbers.format(context)} tokens of the context are used`;
    meter.setAttribute("aria-valuetext", text);
    meter.title = text;
    meter.dataset.level = percent >= 95 ? "full" : percent >= 80 ? "high" : "";
    meter.querySelector(".fill").style.strokeDasharray = `${percent} 100`;
    byId("meter-text").textContent = `${percent} %`;
  }
}

/** A server with one loaded model says nothing of states; llama-server's form is { value }. */
function stateOf(status) {
  const value = typeof status === "object" && status !== null ? status.value : status;
  return value === undefined ? "ready" : value === "loaded" ? "ready" : value;
}
