// Making elements, and the icons.

const SVG = "http://www.w3.org/2000/svg";

// Paths on a grid of 24, drawn as lines.
const ICONS = {
  plus: "M12 5v14M5 12h14",
  menu: "M4 7h16M4 12h16M4 17h10",
  close: "M6 6l12 12M18 6L6 18",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M7 7h10v10H7z",
  copy: "M9 9h10v10H9zM5 15V5h10",
  check: "M5 12.500l4.500 4.500L19 7.500",
  again: "M4 12a8 8 0 0 1 14-5.300L20 9M20 4v5h-5M20 12a8 8 0 0 1-14 5.300L4 15M4 20v-5h5",
  edit: "M4 20h4L19 9l-4-4L4 16zM13.500 6.500l4 4",
  left: "M14 6l-6 6 6 6",
  right: "M10 6l6 6-6 6",
  down: "M12 5v14M6 13l6 6 6-6",
  more: "M5 12h.01M12 12h.01M19 12h.01",
  trash: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13",
  export: "M12 15V4M8 8l4-4 4 4M5 14v6h14v-6",
  import: "M12 4v11M8 11l4 4 4-4M5 14v6h14v-6",
  settings: "M4 7h9M17 7h3M4 17h3M11 17h9M15 4.500v5M9 14.500v5",
  theme: "M20 14.500A8.500 8.500 0 0 1 9.500 4 8.500 8.500 0 1 0 20 14.500z",
  help: "M9.200 9a2.900 2.900 0 1 1 4.300 2.500c-1 .600-1.500 1.200-1.500 2.300M12 17.500h.01",
  source: "M8 7l-5 5 5 5M16 7l5 5-5 5",
  tool: "M14.500 6.500a4 4 0 0 0-5.300 5L4 16.700 7.300 20l5.200-5.200a4 4 0 0 0 5-5.300L15 12l-3-3z",
};

/** An element; props that are functions named on… listen, and those with false, null or undefined are left out. */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", `icon icon-${name}`);
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** A button that is an icon; its label is its tooltip, too. */
export function iconButton(name, label, onclick, props = {}) {
  return h("button", { type: "button", class: "icon-button", "aria-label": label, title: label, onclick, ...props }, icon(name));
}

export const byId = (id) => document.getElementById(id);

/** Say something to who can't see it. */
export function say(text) {
  byId("status").textContent = text;
}

/** A short notice that goes by itself. */
export function toast(text) {
  const shown = h("div", { class: "toast", role: "status" }, text);
  document.body.append(shown);
  setTimeout(() => shown.remove(), 2500);
}

/** Copy a text; a button shows that it is done. */
export async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = h("textarea", { class: "visually-hidden", value: text });
    button.after(area); // inside of a dialog, too; clipboards are for secure places only
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  const before = button.querySelector(".icon");
  const done = icon("check");
  before?.replaceWith(done);
  say("Copied");
  setTimeout(() => before && done.replaceWith(before), 1400);
}

/** A text as a file to save. */
export function save(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = h("a", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** What is kept in this browser; storage may be full or forbidden. */
export const kept = {
  get(name, otherwise = null) {
    try {
      const text = localStorage.getItem(`sotol.${name}`);
      return text === null ? otherwise : JSON.parse(text);
    } catch {
      return otherwise;
    }
  },
  set(name, value) {
    try {
      if (value === null) localStorage.removeItem(`sotol.${name}`);
      else localStorage.setItem(`sotol.${name}`, JSON.stringify(value));
    } catch {} // then it is forgotten
  },
};
