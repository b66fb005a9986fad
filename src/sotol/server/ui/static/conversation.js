// The conversation that is shown: its messages, and asking for answers. Of a long one the last messages are made first,
// and earlier ones as the reader scrolls up.

import { server } from "./api.js";
import { byId, h, say } from "./dom.js";
import { AnswerView, editElement, messageElement } from "./message.js";
import { Tree } from "./tree.js";

const WINDOW = 24; // messages that are made at a time
const AGAIN_MS = 1500; // until a conversation is looked at again in which another window's answer comes
const NEAR = 90; // pixels from the end, within which the end is followed
const IDEAS = ["Explain why the sky is blue, to a child of six", "Write a Python function that finds prime numbers, with a test", "Draft a short, friendly note that declines an invitation"];

export class Conversation {
  /** acts: changed (a conversation), busy (whether an answer is coming), meter (used, context), begin (makes one),
   *  abandon (deletes it), model (the one that is chosen), giveBack (what could not be sent), retry, stopped. */
  constructor(acts) {
    this.acts = acts;
    this.scroller = byId("scroller");
    this.thread = byId("thread");
    this.top = h("div", { class: "top-of-thread" });
    this.jump = byId("jump");
    this.following = true;
    this.about = null;
    this.running = null;
    this.scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.jump.addEventListener("click", () => this.follow());
    new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && this.#earlier(), { root: this.scroller, rootMargin: "600px 0px 0px" }).observe(this.top);
    new ResizeObserver(() => this.following && this.#toEnd()).observe(this.thread);
  }

  get id() {
    return this.about?.id ?? null;
  }

  /** Nothing yet. */
  clear(send) {
    this.#leave();
    this.about = null;
    this.tree = new Tree([], null);
    this.acts.meter(null, null);
    this.thread.replaceChildren(
      h(
        "div",
        { class: "empty" },
        document.querySelector(".brand .mark").cloneNode(true),
        h("h2", {}, "What would you like to know?"),
        h("p", {}, "The model runs on your own machine. Ask below, or begin with one of these."),
        h("div", { class: "ideas" }, ...IDEAS.map((idea) => h("button", { type: "button", onclick: () => send(idea) }, idea))),
      ),
    );
  }

  /** Show a conversation as the server has it. */
  show(data) {
    this.#leave();
    const { messages, ...about } = data;
    this.about = about;
    this.tree = new Tree(messages, about.leaf);
    this.draw();
    this.follow();
    if (messages.some((message) => message.status === "streaming")) {
      // Another window's, or one that was just closed: the server has not stopped it yet.
      setTimeout(() => this.about === about && !this.running && this.acts.stopped(), AGAIN_MS);
    }
  }

  /** All of the branch anew. */
  draw() {
    const branch = this.tree.branch;
    this.first = Math.max(0, branch.length - WINDOW);
    this.thread.replaceChildren(this.top, ...branch.slice(this.first).map((message) => this.#element(message)));
    this.#meter();
  }

  #element(message) {
    return messageElement(message, this.tree.place(message), this.messageActs);
  }

  get messageActs() {
    return {
      show: (id) => this.#branch(id),
      edit: (message) => this.edit(message),
      again: (message) => this.again(message),
      results: (message, results) => this.ask({ parent: message.id, results }),
      isLast: (message) => this.tree.leaf === message.id,
      painted: () => {},
    };
  }

  #earlier() {
    if (!this.first || !this.top.isConnected) return;
    const branch = this.tree.branch;
    const before = Math.max(0, this.first - WINDOW);
    const { scrollHeight, scrollTop } = this.scroller;
    this.top.after(...branch.slice(before, this.first).map((message) => this.#element(message)));
    this.first = before;
    this.scroller.scrollTop = scrollTop + this.scroller.scrollHeight - scrollHeight;
  }

  #meter() {
    const last = this.tree.branch.findLast((message) => message.details.usage);
    const usage = last?.details.usage;
    this.acts.meter(usage ? usage.prompt + usage.completion : null, last?.details.context ?? null);
  }

  /** Show another version of a message, and what goes on from it. */
  async #branch(id) {
    if (this.running) return;
    this.tree.leaf = this.tree.end(id);
    this.draw();
    this.thread.querySelector(`[data-id="${id}"]`)?.scrollIntoView({ block: "nearest" });
    const [at, siblings] = this.tree.place(this.tree.known.get(id));
    say(`Version ${at + 1} of ${siblings.length}`);
    this.thread.querySelector(`[data-id="${id}"] .versions button:not(:disabled)`)?.focus();
    try {
      this.acts.changed(await server.change(this.id, { leaf: this.tree.leaf }));
    } catch {} // the next answer says where it belongs, anyway
  }

  edit(message) {
    if (this.running) return;
    const element = this.thread.querySelector(`[data-id="${message.id}"]`);
    const { element: form, focus } = editElement(
      message,
      (content) => this.ask({ parent: message.parent, content }),
      () => {
        form.replaceWith(element);
        element.querySelector('[data-act="edit"]')?.focus();
      },
    );
    element.replaceWith(form);
    focus();
  }

  /** Answer a message again: another version beside this answer. */
  again(message) {
    return this.ask({ parent: message.parent });
  }

  /** The last answer of the branch, or message of the reader's. */
  last(role) {
    return this.tree.branch.findLast((message) => message.role === role) ?? null;
  }

  /** Ask for an answer: { parent, content } adds a message, { parent } answers it again, { parent, results } a tool's. */
  async ask(body) {
    if (this.running) return false;
    const running = { stop: new AbortController(), message: null, before: this.tree.leaf };
    this.running = running;
    this.acts.busy(true);
    this.thread.querySelectorAll(".problem, .empty, .results").forEach((element) => element.remove());
    this.#cutAfter(body.parent);
    const pending = body.content === undefined ? null : this.#element({ id: "pending", parent: body.parent, role: "user", content: body.content, details: {} });
    const view = new AnswerView({ id: "pending", parent: null, details: { model: this.acts.model() } }, [0, ["pending"]], {
      ...this.messageActs,
      painted: (tokens) => this.acts.meter(running.prompt + tokens, running.context),
    });
    view.begin();
    this.thread.append(...[pending, view.element].filter(Boolean));
    this.follow();
    say("Waiting for the answer");
    let begun = false;
    try {
      const id = this.id ?? (await this.acts.begin());
      const model = this.acts.model();
      if (model && model !== this.about.model) this.about = await server.change(id, { model }); // its own is not here
      for await (const event of server.answer(id, body, running.stop.signal)) {
        if (this.running !== running) return true;
        if (event.type === "begin") {
          begun = true;
          this.#begin(event, view, pending, running);
        } else if (event.type === "delta") {
          view.take(event);
        } else if (event.type === "end") {
          this.#end(event.message, view);
        }
      }
      return true;
    } catch (problem) {
      if (this.running !== running || problem.name === "AbortError") return begun;
      await this.#failed(problem, body, running.before, view, pending);
      return begun;
    } finally {
      if (this.running === running) {
        this.running = null;
        this.acts.busy(false);
      }
    }
  }

  #begin(event, view, pending, running) {
    this.about = event.conversation;
    const added = event.messages;
    for (const message of added) this.tree.put(message);
    this.tree.leaf = added.at(-1).id;
    [running.message, running.prompt, running.context] = [added.at(-1).id, event.prompt_tokens, event.context];
    view.message = added.at(-1);
    view.received();
    view.place = this.tree.place(view.message);
    view.element.dataset.id = view.message.id;
    const shown = added.slice(0, -1).map((message) => this.#element(message));
    if (pending) pending.replaceWith(...shown);
    else view.element.before(...shown);
    this.acts.changed(event.conversation);
    this.acts.meter(event.prompt_tokens, event.context);
  }

  #end(message, view) {
    this.tree.put(message);
    view.finish(message);
    if (this.following) this.#toEnd();
    this.#meter();
    say(message.status === "stopped" ? "Stopped" : "The answer is complete");
  }

  /** before: the leaf of the branch that is shown again, where the answer has not begun. */
  async #failed(problem, body, before, view, pending) {
    let again = body;
    if (view.message.id !== "pending") {
      const message = { ...view.message, content: view.text, reasoning: view.thought, status: "stopped" };
      this.tree.put(message);
      view.finish(message);
      again = { parent: message.parent };
    } else {
      view.element.remove();
      pending?.remove();
      this.tree.leaf = before;
      this.draw();
      if (body.content !== undefined) this.acts.giveBack(body.content);
      if (this.id && this.tree.known.size === 0) await this.acts.abandon(this.id); // it has nothing yet
    }
    const retry = h("button", { type: "button", class: "button", onclick: () => this.acts.retry(again) }, "Try again");
    this.thread.append(h("div", { class: "problem", role: "alert" }, h("p", {}, problem.message), retry));
    this.follow();
  }

  /** Take away what comes after a message, while another branch begins there. */
  #cutAfter(parent) {
    const leaf = this.tree.leaf;
    if (parent === leaf) return;
    this.tree.leaf = parent ?? null;
    this.draw();
  }

  /** Stop the answer that is coming; the server keeps what there is. */
  async stop() {
    const { running } = this;
    if (!running) return;
    if (running.message === null) {
      running.stop.abort();
      this.running = null;
      this.acts.busy(false);
      this.thread.querySelectorAll('[data-id="pending"]').forEach((element) => element.remove());
      this.acts.stopped();
      return;
    }
    try {
      await server.stop(running.message);
    } catch {
      running.stop.abort();
    }
  }

  /** Leave an answer that is coming: its connection ends, and with it the answer. */
  #leave() {
    this.running?.stop.abort();
    if (this.running) this.acts.busy(false);
    this.running = null;
  }

  // ---- scrolling

  follow() {
    this.following = true;
    this.jump.hidden = true;
    this.#toEnd();
  }

  #toEnd() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    const near = scrollHeight - scrollTop - clientHeight < NEAR;
    if (near) this.following = true;
    else if (scrollTop < (this.lastTop ?? 0)) this.following = false; // upwards: the reader's wish
    this.lastTop = scrollTop;
    this.jump.hidden = near || this.following;
  }
}
