// A conversation's messages as a tree: what is shown is the branch to its leaf.

export class Tree {
  constructor(messages, leaf) {
    this.known = new Map(messages.map((message) => [message.id, message]));
    this.below = new Map();
    for (const message of messages) this.#under(message);
    this.leaf = this.known.has(leaf) ? leaf : null;
  }

  #under({ id, parent }) {
    const siblings = this.below.get(parent) ?? [];
    if (!siblings.includes(id)) this.below.set(parent, [...siblings, id]);
  }

  /** A message that is new, or that says more than before. */
  put(message) {
    this.known.set(message.id, message);
    this.#under(message);
  }

  get branch() {
    const path = [];
    for (let id = this.leaf; id !== null && id !== undefined; id = this.known.get(id).parent) path.push(this.known.get(id));
    return path.reverse();
  }

  /** The message in the places of its alternatives: [which, of how many]. */
  place({ id, parent }) {
    const siblings = this.below.get(parent) ?? [id];
    return [siblings.indexOf(id), siblings];
  }

  /** The end of the branch that goes on latest from a message. */
  end(id) {
    for (let children; (children = this.below.get(id)); ) id = children.at(-1);
    return id;
  }
}
