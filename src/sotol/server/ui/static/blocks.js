// Cuts Markdown into blocks as it comes, so that only the last one is ever made anew. Knows nothing of how they look.
//
// A block is { kind, text, from, open }: kind is "text", "list" (one item of a list), "table" (its head and some rows),
// "code", "maths" or "plain" (too long a line to be anything). `more` marks what goes on with the block before it.

const LONGEST = 8192; // characters of a block that Markdown is looked for in
const ROWS = 24; // of a table, in one block
const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`]*)$/;
const ITEM = /^( {0,3})(?:[-*+]|\d{1,9}[.)])(?:[ \t]|$)/;
const HEADING = /^ {0,3}#{1,6}(?:[ \t]|$)/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const DELIMITERS = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const MARKS = /^[\s\-*_#`~=+\d.)|:$\\[>]*$/;
const MATHS = { "$$": "$$", "\\[": "\\]" };

/** All blocks of a text from an offset on, where a block begins. before: the block that ends there. */
export function* blocks(text, from = 0, before = null) {
  let at = from;
  let previous = before;
  while (at < text.length) {
    const block = next(text, at, previous);
    at = block.to;
    if (block.text.trim() === "" && block.kind === "text") continue;
    yield block;
    previous = block;
  }
}

function line(text, at) {
  const end = text.indexOf("\n", at);
  return end < 0 ? [text.slice(at, Math.min(text.length, at + LONGEST + 1)), text.length] : [text.slice(at, Math.min(end, at + LONGEST + 1)), end + 1];
}

function made(kind, text, from, to, more = {}) {
  return { kind, text: text.slice(from, to), from, to, open: isOpen(kind, text, to), ...more };
}

/** Whether what comes next may still belong to a block: a last line is not known for what it is while it has marks only,
 *  and one below a table may become a row. */
function isOpen(kind, text, to) {
  if (to >= text.length) return true;
  const last = text.lastIndexOf("\n") + 1;
  return to >= last && (kind === "table" || MARKS.test(text.slice(last, last + LONGEST)));
}

function next(text, from, previous) {
  const [first, second] = line(text, from);
  if (first.length > LONGEST) return made("plain", text, from, Math.min(from + LONGEST, second));
  if (previous?.kind === "plain" && text[from - 1] !== "\n") return made("plain", text, from, second); // the line's rest
  if (first.trim() === "") return made("text", text, from, second);
  const fence = FENCE.exec(first);
  if (fence) return code(text, from, second, fence);
  const opening = first.trimStart().slice(0, 2);
  if (MATHS[opening]) return maths(text, from, MATHS[opening], first.indexOf(opening) + 2);
  if (HEADING.test(first)) return made("text", text, from, second);
  if (previous?.kind === "table" && previous.full && first.includes("|")) return table(text, from, from, previous.head);
  if (RULE.test(first)) return made("text", text, from, second);
  if (ITEM.test(first)) return item(text, from);
  const [under, third] = line(text, second);
  if (first.includes("|") && second < text.length && DELIMITERS.test(under) && under.includes("|")) {
    return table(text, from, third, text.slice(from, third));
  }
  return paragraph(text, from);
}

function code(text, from, after, [, marks, language]) {
  const closing = new RegExp(`^ {0,3}${marks[0] === "`" ? "`" : "~"}{${marks.length},}[ \\t]*\\r?$`);
  let at = after;
  while (at < text.length) {
    const [now, end] = line(text, at);
    if (closing.test(now)) return { ...made("code", text, from, end), body: text.slice(after, at), language: language.trim(), open: end >= text.length && !text.endsWith("\n") };
    at = end;
  }
  return { ...made("code", text, from, text.length), body: text.slice(after), language: language.trim(), open: true };
}

function maths(text, from, closing, skip) {
  const end = text.indexOf(closing, from + skip);
  const blank = text.indexOf("\n\n", from + skip);
  if (end < 0 && blank < 0 && text.length - from <= LONGEST) return { ...made("maths", text, from, text.length), body: text.slice(from + skip), open: true };
  if (end < 0 || (blank >= 0 && blank < end)) return paragraph(text, from); // nothing of the kind
  const [rest, to] = line(text, end + 2);
  if (rest.trim() !== "") return paragraph(text, from); // maths that a line begins with
  return { ...made("maths", text, from, to), body: text.slice(from + skip, end) };
}

function table(text, from, rowsFrom, head) {
  let at = rowsFrom;
  for (let rows = 0; at < text.length; rows++) {
    const [now, end] = line(text, at);
    if (!now.includes("|") || now.trim() === "") break;
    if (rows >= ROWS || end - from > LONGEST) return made("table", text, from, at, { head, full: true, more: from === rowsFrom });
    at = end;
  }
  return made("table", text, from, at, { head, full: false, more: from === rowsFrom });
}

function item(text, from) {
  let [, at] = line(text, from);
  let blank = false;
  let fence = null;
  while (at < text.length) {
    const [now, end] = line(text, at);
    if (end - from > LONGEST) break;
    const marks = FENCE.exec(now.trimStart());
    if (fence) {
      if (marks && marks[1].startsWith(fence) && !marks[2]) fence = null;
    } else if (now.trim() === "") {
      blank = true;
      at = end;
      continue;
    } else {
      const indented = /^(?: {2,}|\t)/.test(now);
      if (!indented && (blank || ITEM.test(now) || HEADING.test(now) || marks || RULE.test(now))) break;
      if (indented && marks) fence = marks[1];
    }
    blank = false;
    at = end;
  }
  return made("list", text, from, at);
}

function paragraph(text, from) {
  let [, at] = line(text, from);
  while (at < text.length) {
    const [now, end] = line(text, at);
    if (now.trim() === "") break;
    if (end - from > LONGEST || FENCE.test(now) || HEADING.test(now) || /^ {0,3}(?:[-*+]|1[.)])[ \t]/.test(now)) break;
    if (MATHS[now.trim().slice(0, 2)] && now.trim().length <= 2) break;
    at = end;
  }
  return made("text", text, from, at);
}
