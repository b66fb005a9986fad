// A block of code: its language, a button to copy it, and colours once it is whole. The highlighter is loaded when needed.

import { copy, h, icon } from "./dom.js";
import { colours } from "./markdown.js";

const LONGEST = 20_000; // characters that get colours
const HUGE = 4_000; // characters from which a block scrolls by itself
const PART = 8_000; // characters that are laid out at a time: those out of sight are not

let loading = null;
const load = () => (loading ??= import("./vendor/highlight.js").then((module) => module.default));

export class Code {
  constructor(language) {
    this.info = language; // as the fence has it
    this.language = language.split(/[\s,{]/)[0].toLowerCase();
    this.text = "";
    this.code = h("code", {});
    this.#begin();
    const button = h("button", { type: "button", class: "copy", onclick: () => copy(this.text, button) }, icon("copy"), "Copy");
    this.element = h(
      "div",
      { class: "code" },
      h("div", { class: "bar" }, h("span", {}, this.language || "text"), button),
      h("pre", { tabindex: "0", role: "group", "aria-label": `Code${this.language ? ` in ${this.language}` : ""}` }, this.code),
    );
  }

  #begin() {
    this.node = document.createTextNode("");
    this.code.append(h("span", { class: "part" }, this.node));
  }

  /** All of it as it is now: what is new is appended. */
  write(text) {
    let at = this.text.length;
    if (!text.startsWith(this.text)) {
      this.code.replaceChildren();
      this.#begin();
      at = 0;
    }
    while (at < text.length) {
      const line = text.indexOf("\n", at + PART - this.node.length);
      const end = line < 0 ? text.length : line + 1;
      this.node.appendData(text.slice(at, end));
      at = end;
      if (line >= 0 && at < text.length) this.#begin();
    }
    this.text = text;
    this.element.classList.toggle("huge", text.length > HUGE);
  }

  /** Colours, for a block that is whole. */
  async highlight() {
    if (!this.language || this.text.length > LONGEST) return;
    const library = await load();
    if (!library.getLanguage(this.language)) return;
    const { value } = library.highlight(this.text, { language: this.language, ignoreIllegals: true });
    this.code.replaceChildren(colours(value));
  }
}
