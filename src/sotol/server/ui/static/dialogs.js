// Dialogs and menus. Each dialog is made when it is asked for, and gone when it closes.

import { copy, h, icon, iconButton } from "./dom.js";

/** A dialog; `make(close)` gives its parts. Resolves with what it is closed with, null where it is left. */
export function dialog(title, make, { small = false, panel = false, label = title } = {}) {
  return new Promise((resolve) => {
    let result = null;
    const back = document.activeElement;
    const element = h("dialog", { class: `${small ? "small" : ""}${panel ? "panel" : ""}`, "aria-label": label });
    const close = (value = null) => {
      result = value;
      element.close();
    };
    element.append(
      h("div", { class: "dialog-head" }, h("h2", {}, title), iconButton("close", "Close", () => close())),
      ...make(close).flat(),
    );
    element.addEventListener("close", () => {
      element.remove();
      back?.focus?.();
      resolve(result);
    });
    element.addEventListener("click", (event) => event.target === element && close());
    document.body.append(element);
    element.showModal();
    element.querySelector("[autofocus]")?.focus();
  });
}

export function confirmed(title, text, act) {
  return dialog(
    title,
    (close) => [
      h("div", { class: "dialog-body" }, h("p", {}, text)),
      h(
        "div",
        { class: "dialog-foot" },
        h("button", { type: "button", class: "button", onclick: () => close(null) }, "Cancel"),
        h("button", { type: "button", class: "button danger", autofocus: true, onclick: () => close(true) }, act),
      ),
    ],
    { small: true },
  );
}

function form(close, value, body, act) {
  const submit = (event) => {
    event.preventDefault();
    close(value());
  };
  return h(
    "form",
    { onsubmit: submit },
    h("div", { class: "dialog-body" }, ...body),
    h("div", { class: "dialog-foot" }, h("button", { type: "button", class: "button", onclick: () => close(null) }, "Cancel"), h("button", { class: "button primary", type: "submit" }, act)),
  );
}

/** Another name for something. */
export function renamed(title, before) {
  return dialog(
    title,
    (close) => {
      const input = h("input", { value: before, maxlength: "200", required: true, autofocus: true, "aria-label": "Name" });
      queueMicrotask(() => input.select());
      return [form(close, () => input.value.trim() || null, [h("div", { class: "field" }, input)], "Rename")];
    },
    { small: true },
  );
}

/** The server's key: { key, keep }. */
export function askedForKey(wrong) {
  return dialog(
    "This server asks for a key",
    (close) => {
      const input = h("input", { type: "password", required: true, autofocus: true, autocomplete: "off", "aria-label": "API key" });
      const keep = h("input", { type: "checkbox" });
      return [
        form(
          close,
          () => ({ key: input.value.trim(), keep: keep.checked }),
          [
            h("p", {}, wrong ? "The key was not accepted. Ask whoever runs the server." : "Whoever runs the server gave it a key (--api-key) and can tell you. It is sent to this server only."),
            h("div", { class: "field" }, input),
            h("label", {}, keep, " Remember it in this browser"),
          ],
          "Go on",
        ),
      ];
    },
    { small: true },
  );
}

/** Everything that is known of a message, as JSON. */
export function showRecord(message) {
  const text = JSON.stringify(message, null, 2);
  const button = h("button", { type: "button", class: "button", onclick: () => copy(text, button) }, icon("copy"), "Copy");
  return dialog("Details", () => [
    h("div", { class: "dialog-body record" }, h("pre", { tabindex: "0" }, text)),
    h("div", { class: "dialog-foot" }, button),
  ]);
}

export function showShortcuts(shortcuts) {
  const rows = shortcuts.flatMap(({ keys, does }) => [
    h("dt", {}, does),
    h("dd", {}, ...keys.flatMap((key, i) => [i ? " " : null, h("kbd", {}, key)])),
  ]);
  return dialog("Keyboard shortcuts", () => [
    h("div", { class: "dialog-body" }, h("dl", { class: "shortcuts" }, ...rows), h("p", {}, "Single letters work while no text is being written.")),
  ]);
}

/** A menu below a button: items are { icon, label, act, danger }. */
export function menu(button, items) {
  const element = h("div", { class: "menu", role: "menu" });
  const close = (focus = true) => {
    if (!element.isConnected) return;
    element.remove();
    button.setAttribute("aria-expanded", "false");
    document.removeEventListener("pointerdown", outside, true);
    if (focus) button.focus();
  };
  const outside = (event) => element.contains(event.target) || close(false);
  for (const item of items) {
    const act = () => {
      close();
      item.act();
    };
    element.append(h("button", { type: "button", role: "menuitem", class: item.danger ? "danger" : "", onclick: act }, icon(item.icon), item.label));
  }
  element.addEventListener("keydown", (event) => {
    const all = [...element.children];
    const at = all.indexOf(document.activeElement);
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) all[(at + step + all.length) % all.length].focus();
    else if (event.key === "Home") all[0].focus();
    else if (event.key === "End") all.at(-1).focus();
    else if (event.key === "Escape" || event.key === "Tab") close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  (button.closest("nav, main") ?? document.body).append(element); // within a landmark
  const { left, bottom, top } = button.getBoundingClientRect();
  const { offsetWidth, offsetHeight } = element;
  element.style.left = `${Math.max(8, Math.min(left, innerWidth - offsetWidth - 8))}px`;
  element.style.top = `${bottom + offsetHeight + 8 > innerHeight ? Math.max(8, top - offsetHeight - 4) : bottom + 4}px`;
  button.setAttribute("aria-expanded", "true");
  document.addEventListener("pointerdown", outside, true);
  element.firstElementChild.focus();
}
