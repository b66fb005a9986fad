// The list of conversations: by day, searched, a page at a time.

import { server } from "./api.js";
import { byId, h, iconButton } from "./dom.js";
import { menu } from "./dialogs.js";

const DAY = 86_400_000;
const SEARCH_MS = 180; // of quiet, before a search begins

function dayOf(changed) {
  const today = new Date().setHours(0, 0, 0, 0);
  if (changed >= today) return "Today";
  if (changed >= today - DAY) return "Yesterday";
  if (changed >= today - 7 * DAY) return "Last seven days";
  return new Date(changed).toLocaleDateString(undefined, { month: "long", year: "numeric" });
}

export class List {
  /** acts: rename, remove, save (a conversation, and in which form), and failed (a problem). */
  constructor(acts) {
    this.acts = acts;
    this.element = byId("list");
    this.search = byId("search");
    this.current = null;
    this.items = [];
    this.following = null;
    this.asked = 0;
    this.end = h("div", { class: "end" });
    this.watch = new IntersectionObserver((entries) => entries.some((e) => e.isIntersecting) && this.#more(), { root: this.element, rootMargin: "400px" });
    let timer = null;
    this.search.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.load(), SEARCH_MS);
    });
    this.search.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown") {
        event.preventDefault();
        this.element.querySelector("a")?.focus();
      } else if (event.key === "Escape" && this.search.value) {
        event.stopPropagation();
        this.search.value = "";
        this.load();
      }
    });
    this.element.addEventListener("keydown", (event) => this.#walk(event));
  }

  /** Load it anew. */
  async load() {
    const asked = ++this.asked;
    try {
      const { conversations, next } = await server.list(this.search.value.trim());
      if (asked !== this.asked) return;
      [this.items, this.following] = [conversations, next];
      this.#show();
    } catch (problem) {
      if (asked === this.asked) this.#failed(problem);
    }
  }

  async #more() {
    if (!this.following) return;
    const [asked, before] = [this.asked, this.following];
    this.following = null;
    try {
      const { conversations, next } = await server.list(this.search.value.trim(), before);
      if (asked !== this.asked) return;
      const known = new Set(this.items.map(({ id }) => id));
      this.items.push(...conversations.filter(({ id }) => !known.has(id)));
      this.following = next;
      this.#show();
    } catch (problem) {
      this.acts.failed(problem);
    }
  }

  /** Put a conversation where it belongs: first, if it has just changed. */
  put(conversation) {
    if (this.search.value.trim()) return;
    this.items = [conversation, ...this.items.filter(({ id }) => id !== conversation.id)].sort((a, b) => b.changed - a.changed || (a.id < b.id ? 1 : -1));
    this.#show();
  }

  drop(id) {
    this.items = this.items.filter((item) => item.id !== id);
    this.#show();
  }

  select(id) {
    this.current = id;
    for (const link of this.element.querySelectorAll("a")) {
      if (link.dataset.id === id) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }

  /** The conversation that is so many places below the current one. */
  near(step) {
    const at = this.items.findIndex(({ id }) => id === this.current);
    return this.items[at < 0 ? 0 : at + step]?.id ?? null;
  }

  #show() {
    this.watch.disconnect();
    const words = this.search.value.trim();
    const shown = [];
    let day = null;
    let group = null;
    for (const item of this.items) {
      const now = words ? "Found" : dayOf(item.changed);
      if (now !== day) {
        day = now;
        group = h("ul", { "aria-label": day });
        shown.push(h("h2", {}, day), group);
      }
      group.append(this.#entry(item, words));
    }
    const nothing = words ? "Nothing has all of these words." : "Your conversations will be here.";
    if (shown.length === 0) shown.push(h("p", { class: "nothing" }, nothing));
    this.element.replaceChildren(...shown, this.end);
    if (this.following) this.watch.observe(this.end);
  }

  #entry(item, words) {
    const current = item.id === this.current;
    const name = item.title || "New conversation";
    const more = iconButton("more", `More for ${name}`, (event) => {
      event.preventDefault();
      menu(more, [
        { icon: "edit", label: "Rename", act: () => this.acts.rename(item) },
        { icon: "export", label: "Export as Markdown", act: () => this.acts.save(item, "markdown") },
        { icon: "export", label: "Export as JSON", act: () => this.acts.save(item, "json") },
        { icon: "trash", label: "Delete", danger: true, act: () => this.acts.remove(item) },
      ]);
    }, { class: "icon-button more", "aria-haspopup": "menu", "aria-expanded": "false" });
    return h(
      "li",
      {},
      h(
        "a",
        { class: "entry", href: `#/c/${item.id}`, "data-id": item.id, "aria-current": current && "page", title: name },
        h("span", { class: "name" }, ...marked(name, words)),
        item.excerpt && h("span", { class: "excerpt" }, ...marked(item.excerpt, words)),
      ),
      more,
    );
  }

  #failed(problem) {
    this.element.replaceChildren(h("div", { class: "nothing" }, h("p", {}, problem.message), h("button", { type: "button", class: "button", onclick: () => this.load() }, "Try again")));
  }

  #walk(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !event.target.matches("a")) return;
    event.preventDefault();
    const links = [...this.element.querySelectorAll("a")];
    const at = links.indexOf(event.target) + step;
    if (at < 0) this.search.focus();
    else links[Math.min(at, links.length - 1)].focus();
  }
}

/** A text with the words of a search marked. */
function marked(text, words) {
  const listed = words.split(/\s+/).filter(Boolean).map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  if (listed.length === 0) return [text];
  const pattern = new RegExp(`(${listed.join("|")})`, "gi");
  return text.split(pattern).map((part, i) => (i % 2 ? h("mark", {}, part) : part));
}
