// An answer's text as nodes, while it comes: blocks that are whole stay as they are, only the last is made anew.

import { blocks } from "./blocks.js";
import { Code } from "./code.js";
import { rendered } from "./markdown.js";
import { formula, formulas, typeset } from "./maths.js";
import { later } from "./slices.js";

const AT_ONCE = 4; // blocks of a text that is whole, before the rest is left to slices
const JSON_LONGEST = 200_000;

export class Flow {
  constructor(element) {
    this.element = element;
    this.at = 0; // where the last block begins
    this.before = null; // the block before it
    this.live = []; // nodes of the last block
    this.code = null; // it, if it is code
    this.text = "";
  }

  /** What has come by now. done: it is all. */
  write(text, done) {
    this.text = text;
    if (done && this.at === 0) {
      const json = asJson(text);
      if (json !== null) return this.#json(json);
    }
    for (const block of blocks(text, this.at, this.before)) {
      const whole = done || !block.open;
      this.#show(block, whole);
      if (!whole) break;
    }
    return undefined;
  }

  /** A text that is whole, a few blocks at once and the rest as there is time. */
  writeSliced(text) {
    const json = asJson(text);
    if (json !== null) return this.#json(json);
    const all = blocks(text);
    const step = (count) => {
      for (let i = 0; i < count; i++) {
        const { value, done } = all.next();
        if (done) return true;
        this.#show(value, true);
      }
      return false;
    };
    this.text = text;
    const more = () => {
      if (!step(2)) later(more, true);
    };
    if (!step(AT_ONCE)) later(more, true);
    return undefined;
  }

  #show(block, whole) {
    // The line that begins it may come in pieces, and its language with it.
    if (block.kind === "code" && this.code?.info === block.language) {
      this.code.write(block.body);
    } else {
      this.#clear();
      this.live = this.#nodes(block);
      this.element.append(...this.live);
    }
    if (whole) this.#settle(block);
  }

  #clear() {
    for (const node of this.live) node.remove();
    this.live = [];
    this.code = null;
  }

  #nodes(block) {
    if (block.kind === "code") {
      this.code = new Code(block.language);
      this.code.write(block.body);
      return [this.code.element];
    }
    if (block.kind === "maths") return [formula(block.body, true)];
    if (block.kind === "plain") return [Object.assign(document.createElement("div"), { className: "plain", textContent: block.text })];
    return [...rendered(block.more ? block.head + block.text : block.text).childNodes].filter(
      (node) => node.nodeType === Node.ELEMENT_NODE || node.textContent.trim() !== "",
    );
  }

  /** The last block is whole: it joins those before it. */
  #settle(block) {
    const nodes = this.live;
    const previous = nodes[0]?.previousElementSibling;
    if (block.kind === "code") {
      const code = this.code;
      later(() => code.highlight());
    } else if (block.kind === "list" && this.before?.kind === "list" && nodes.length === 1 && previous?.tagName === nodes[0].tagName) {
      previous.append(...nodes[0].children);
      nodes[0].remove();
      for (const found of formulas([previous.lastElementChild])) later(() => typeset(found));
    } else if (block.kind === "table" && block.more && previous?.matches(".table") && nodes[0].matches?.(".table")) {
      previous.querySelector("tbody")?.append(...nodes[0].querySelectorAll("tbody > tr"));
      nodes[0].remove();
    }
    for (const found of formulas(nodes.filter((node) => node.parentNode))) later(() => typeset(found));
    this.live = [];
    this.code = null;
    this.before = block;
    this.at = block.to;
  }

  #json(text) {
    this.#clear();
    const code = new Code("json");
    code.write(text);
    this.element.replaceChildren(code.element);
    later(() => code.highlight());
    return undefined;
  }
}

/** A text that is a JSON object or list, indented; null for any other. */
export function asJson(text) {
  const trimmed = text.trim();
  if (!/^[[{]/.test(trimmed) || trimmed.length < 2 || trimmed.length > JSON_LONGEST) return null;
  try {
    return JSON.stringify(JSON.parse(trimmed), null, 2);
  } catch {
    return null;
  }
}
