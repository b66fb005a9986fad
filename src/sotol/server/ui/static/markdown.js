// Markdown to nodes. A model's text is never trusted as HTML: markdown-it is told to make text of it, DOMPurify lets only
// a few harmless elements through, and nothing is loaded from elsewhere: an image is a link to it.

import MarkdownIt from "./vendor/markdown-it.mjs";
import DOMPurify from "./vendor/purify.mjs";
import { mathsRules } from "./maths.js";

const TAGS = [
  "a", "blockquote", "br", "code", "div", "em", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "s", "span", "strong", "sub",
  "sup", "table", "tbody", "td", "th", "thead", "tr", "ul",
];
const LINK = /^(?:https?:|mailto:)/i;

const purify = (html) =>
  DOMPurify.sanitize(html, {
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ["class", "href", "start"],
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    ALLOWED_URI_REGEXP: LINK,
    RETURN_DOM_FRAGMENT: true,
  });

const markdown = new MarkdownIt({ html: false, linkify: false, typographer: false, maxNesting: 24 }).use(mathsRules);
markdown.validateLink = (url) => LINK.test(url);

const { rules } = markdown.renderer;
const { escapeHtml } = markdown.utils;
// The page has the first two levels of headings; an answer's go on below them.
const level = (tag) => Math.min(Number(tag.slice(1)) + 2, 6);
rules.heading_open = (tokens, i) => `<h${level(tokens[i].tag)} class="${tokens[i].tag}">`;
rules.heading_close = (tokens, i) => `</h${level(tokens[i].tag)}>\n`;
rules.table_open = () => '<div class="table"><table>\n';
rules.table_close = () => "</table></div>\n";
for (const cell of ["th", "td"]) {
  rules[`${cell}_open`] = (tokens, i) => {
    const found = /text-align:(right|center)/.exec(tokens[i].attrGet("style") ?? "");
    return found ? `<${cell} class="${found[1]}">` : `<${cell}>`;
  };
}
rules.image = (tokens, i) => {
  const { content } = tokens[i];
  const source = tokens[i].attrGet("src") ?? "";
  const name = escapeHtml(content || source);
  return LINK.test(source) ? `<a href="${escapeHtml(source)}">${name}</a>` : name;
};

/** A block of text as a fragment. */
export function rendered(text) {
  const fragment = purify(markdown.render(text));
  for (const link of fragment.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
  }
  for (const table of fragment.querySelectorAll(".table")) {
    table.tabIndex = 0; // to scroll it by keys
    table.setAttribute("role", "group");
    table.setAttribute("aria-label", "Table");
  }
  return fragment;
}

/** What a highlighter made, as a fragment. */
export const colours = (html) => purify(html);
