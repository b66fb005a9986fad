// How a message looks, and what can be done with it. `acts` are what the conversation does when asked.

import { copy, h, icon, iconButton } from "./dom.js";
import { asJson, Flow } from "./flow.js";
import { showRecord } from "./dialogs.js";

const FINISHES = { length: "Cut off: the answer reached its limit or the context's" };
const numbers = new Intl.NumberFormat();

/** A message as an element. place: [which, siblings] among its alternatives. */
export function messageElement(message, place, acts) {
  const make = { user: userElement, assistant: answerElement, tool: toolElement }[message.role];
  return make(message, place, acts);
}

function versions(message, [at, siblings], acts) {
  if (siblings.length < 2) return null;
  const go = (to, label, name) => iconButton(name, label, () => acts.show(siblings[to]), { disabled: to < 0 || to >= siblings.length });
  return h(
    "span",
    { class: "versions", role: "group", "aria-label": "Versions" },
    go(at - 1, "Previous version", "left"),
    h("span", { "aria-label": `Version ${at + 1} of ${siblings.length}` }, `${at + 1}/${siblings.length}`),
    go(at + 1, "Next version", "right"),
  );
}

function userElement(message, place, acts) {
  const body = h("div", { class: "body" }, message.content);
  const long = message.content.length > 3000 || message.content.split("\n").length > 40;
  const more = h("button", { type: "button", class: "chip", onclick: () => more.remove() || body.classList.remove("long") }, "Show all");
  if (long) body.classList.add("long");
  const button = iconButton("copy", "Copy message", () => copy(message.content, button));
  return h(
    "article",
    { class: "message user", "data-id": message.id },
    h("h2", { class: "visually-hidden" }, "You"),
    body,
    long && more,
    h("div", { class: "actions" }, versions(message, place, acts), button, iconButton("edit", "Edit message", () => acts.edit(message), { "data-act": "edit" })),
  );
}

function toolElement(message) {
  return h(
    "article",
    { class: "message tool", "data-id": message.id },
    h("h2", { class: "about" }, "Result of a tool"),
    h("div", { class: "body", tabindex: "0", role: "group", "aria-label": "Result of a tool" }, asJson(message.content) ?? message.content),
  );
}

function answerElement(message, place, acts) {
  const view = new AnswerView(message, place, acts);
  view.finish(message, true);
  return view.element;
}

/** An answer, also while it comes. */
export class AnswerView {
  constructor(message, place, acts) {
    this.message = message;
    this.place = place;
    this.acts = acts;
    this.text = "";
    this.thought = "";
    this.flowElement = h("div", { class: "flow" });
    this.flow = new Flow(this.flowElement);
    this.waiting = h("p", { class: "waiting" }, "Waiting for the model");
    this.reasoning = null;
    this.calls = h("div", {});
    this.actions = h("div", { class: "actions" });
    this.element = h(
      "article",
      { class: "message assistant", "data-id": message.id },
      h("h2", { class: "about" }, message.details.model || "Answer"),
      this.flowElement,
      this.calls,
      this.actions,
    );
  }

  /** From now on it is being written. */
  begin() {
    this.element.setAttribute("aria-busy", "true");
    this.element.insertBefore(this.waiting, this.flowElement);
  }

  /** The model has it. */
  received() {
    this.waiting.textContent = "Reading";
  }

  /** More of it; what it is to look like is made with the next frame. */
  take(event) {
    this.text += event.content ?? "";
    this.thought += event.reasoning_content ?? "";
    this.tokens = event.tokens;
    this.first ??= performance.now();
    for (const call of event.tool_calls ?? []) this.waiting.textContent = `Calling ${call.function?.name ?? "a tool"}`;
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = null;
      this.#paint();
    });
  }

  #paint() {
    if (this.thought) this.#think(this.text === "");
    if (this.text) {
      this.waiting.remove();
      this.flow.write(this.text, false);
    }
    const seconds = (performance.now() - this.first) / 1000;
    const speed = seconds > 0.3 && this.tokens > 1 ? ` · ${((this.tokens - 1) / seconds).toFixed(1)} tokens/s` : "";
    this.actions.replaceChildren(h("span", { class: "stats" }, `${numbers.format(this.tokens)} tokens${speed}`));
    this.acts.painted(this.tokens);
  }

  #think(now) {
    if (!this.reasoning) {
      this.thoughtText = document.createTextNode("");
      this.thoughtLabel = h("span", {}, "Thinking");
      this.reasoning = h("details", { class: "reasoning" }, h("summary", {}, icon("right"), this.thoughtLabel), h("div", { class: "text" }, this.thoughtText));
      this.element.insertBefore(this.reasoning, this.flowElement);
    }
    const shown = this.thoughtText.data.length;
    if (this.thought.length > shown) this.thoughtText.appendData(this.thought.slice(shown));
    if (now) {
      this.waiting.remove();
      this.thoughtLabel.textContent = "Thinking…";
    } else this.thoughtLabel.textContent = "Reasoning";
  }

  /** It is whole, as the server keeps it. at_once: it was never seen coming. */
  finish(message, stored = false) {
    if (this.frame) cancelAnimationFrame(this.frame);
    this.frame = null;
    this.message = message;
    this.element.dataset.id = message.id;
    this.waiting.remove();
    this.thought = message.reasoning;
    if (this.thought) this.#think(false);
    if (stored) this.flow.writeSliced(message.content);
    else this.flow.write(message.content, true);
    this.calls.replaceChildren(...(message.details.calls ?? []).map(callElement), ...this.#results());
    this.element.removeAttribute("aria-busy");
    this.#finishActions();
  }

  #finishActions() {
    const { message, acts } = this;
    const { usage, speed, finish, error, waited } = message.details;
    const copied = iconButton("copy", "Copy answer", () => copy(message.content, copied), { "data-act": "copy" });
    const source = iconButton("source", "Show the source", () => this.#toggleSource(source), { "aria-pressed": "false" });
    const told = [];
    if (message.status === "streaming") told.push(h("span", { class: "note" }, "Still being written"));
    if (message.status === "stopped") told.push(h("span", { class: "note" }, "Stopped"));
    if (message.status === "failed") told.push(h("span", { class: "note" }, `Failed${error ? `: ${error}` : ""}`));
    if (FINISHES[finish]) told.push(h("span", { class: "note" }, FINISHES[finish]));
    const stats = [usage?.completion ? `${numbers.format(usage.completion)} tokens` : "", speed ? `${speed.toFixed(1)} tokens/s` : ""].filter(Boolean).join(" · ");
    const title = usage ? `${numbers.format(usage.prompt)} tokens before it${usage.cached ? `, of which ${numbers.format(usage.cached)} were known` : ""}; began after ${waited ?? 0} s` : "";
    this.actions.replaceChildren(
      ...[
        versions(message, this.place, acts),
        copied,
        iconButton("again", "Answer again", () => acts.again(message), { "data-act": "again" }),
        message.content ? source : null,
        iconButton("more", "Details", () => showRecord(message)),
        stats && h("span", { class: "stats", title }, stats),
        ...told,
      ].filter(Boolean),
    );
  }

  #toggleSource(button) {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    const fresh = h("div", { class: "flow" });
    if (on) fresh.append(h("pre", { class: "source", tabindex: "0" }, this.message.content));
    else new Flow(fresh).writeSliced(this.message.content);
    this.flowElement.replaceWith(fresh);
    this.flowElement = fresh;
  }

  /** Where the model calls tools, what they gave is asked for. */
  #results() {
    const calls = this.message.details.calls ?? [];
    if (calls.length === 0 || this.message.status !== "complete" || !this.acts.isLast(this.message)) return [];
    const fields = calls.map((call) => h("textarea", { rows: "2", required: true, "data-call": call.id }));
    const submit = (event) => {
      event.preventDefault();
      this.acts.results(this.message, fields.map((field) => ({ call: field.dataset.call, content: field.value })));
    };
    return [
      h(
        "form",
        { class: "results", onsubmit: submit },
        ...calls.map((call, i) => h("label", {}, `What ${call.name} gives`, fields[i])),
        h("button", { class: "button", type: "submit" }, "Send results"),
      ),
    ];
  }
}

function callElement(call) {
  const text = asJson(call.arguments) ?? call.arguments;
  const button = iconButton("copy", "Copy arguments", () => copy(text, button));
  return h(
    "section",
    { class: "call", "aria-label": `Call of ${call.name}` },
    h("div", { class: "head" }, icon("tool"), h("span", {}, "Calls"), h("code", {}, call.name), h("span", { class: "grow" }), button),
    h("pre", { tabindex: "0", role: "group", "aria-label": "Arguments" }, text),
  );
}

/** A message of the reader's, to change and send anew. */
export function editElement(message, send, cancel) {
  const area = h("textarea", { value: message.content, "aria-label": "Edit message" });
  const submit = () => area.value.trim() && send(area.value);
  area.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      cancel();
    } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit();
  });
  const element = h(
    "div",
    { class: "edit" },
    area,
    h(
      "div",
      { class: "row" },
      h("span", {}, "This begins another branch. The present one stays: ‹ › goes back to it."),
      h("button", { type: "button", class: "button", onclick: cancel }, "Cancel"),
      h("button", { type: "button", class: "button primary", onclick: submit }, "Send"),
    ),
  );
  return { element, focus: () => area.focus() };
}
