// Maths: found in Markdown by rules of its own, and set by KaTeX, which is loaded with the first formula.

// What is beyond these is shown as it is written: it is no formula, or takes too long to set.
const LONGEST = 2000; // characters
const DEEPEST = 24; // braces within braces
const OPTIONS = { throwOnError: true, trust: false, strict: "ignore", maxExpand: 200, maxSize: 20, output: "htmlAndMathml" };
const DISPLAYED = { "$$": "$$", "\\[": "\\]" };
const WITHIN = { "$": "$", "\\(": "\\)" };

let loading = null;

function load() {
  loading ??= (async () => {
    const styles = document.createElement("link");
    styles.rel = "stylesheet";
    styles.href = new URL("vendor/katex/katex.css", import.meta.url).href;
    document.head.append(styles);
    await import("./vendor/katex/katex.js");
    return globalThis.katex;
  })();
  return loading;
}

/** Finds $…$, $$…$$, \(…\) and \[…\] within a line; a $ before a space or after a digit's is money. */
export function mathsRules(markdown) {
  markdown.inline.ruler.before("escape", "maths", (state, silent) => {
    const two = state.src.slice(state.pos, state.pos + 2);
    const opening = two in DISPLAYED || two in WITHIN ? two : two[0] in WITHIN ? two[0] : null;
    if (!opening) return false;
    const closing = DISPLAYED[opening] ?? WITHIN[opening];
    const begin = state.pos + opening.length;
    const end = closed(state, begin, opening, closing);
    if (end < 0) return false;
    if (!silent) {
      const token = state.push("maths", "span", 0);
      token.content = state.src.slice(begin, end);
      token.meta = { display: opening in DISPLAYED };
    }
    state.pos = end + closing.length;
    return true;
  });
  markdown.renderer.rules.maths = (tokens, i) => {
    const { content, meta } = tokens[i];
    return `<span class="maths raw${meta.display ? " display" : ""}">${markdown.utils.escapeHtml(content)}</span>`;
  };
}

function closed(state, begin, opening, closing) {
  const limit = Math.min(state.posMax, begin + LONGEST);
  if (opening === "$" && /\s/.test(state.src[begin] ?? " ")) return -1;
  for (let at = begin; at < limit; at++) {
    if (state.src.startsWith(closing, at)) {
      if (at === begin) return -1;
      if (opening !== "$") return at;
      if (/\s/.test(state.src[at - 1])) return -1;
      return /\d/.test(state.src[at + 1] ?? "") ? -1 : at;
    }
    if (state.src[at] === "\\") at++;
  }
  return -1;
}

/** A formula that is not set yet: its source. */
export function formula(source, display) {
  const span = document.createElement(display ? "div" : "span");
  span.className = `maths raw${display ? " display" : ""}`;
  span.textContent = source.trim();
  return span;
}

/** All formulas in some nodes that are not set yet. */
export const formulas = (nodes) => nodes.flatMap((node) => (node.matches?.(".maths.raw") ? [node] : [...(node.querySelectorAll?.(".maths.raw") ?? [])]));

function depth(source) {
  let [now, most] = [0, 0];
  for (const character of source) {
    if (character === "{") most = Math.max(most, ++now);
    else if (character === "}") now--;
  }
  return most;
}

/** Set a formula, in the place of its source. One that KaTeX refuses stays as it is written. */
export async function typeset(element) {
  const source = element.textContent;
  if (source.length > LONGEST || depth(source) > DEEPEST) return;
  const katex = await load();
  const shown = document.createElement("span");
  try {
    katex.render(source, shown, { ...OPTIONS, displayMode: element.classList.contains("display") });
  } catch {
    return; // no formula, or one that would never end
  }
  element.replaceChildren(...shown.childNodes);
  element.classList.remove("raw");
  if (element.classList.contains("display")) element.tabIndex = 0; // to scroll it by keys
}
