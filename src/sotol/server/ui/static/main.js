// The page: what its buttons, keys and addresses do.

import { onMissingKey, server } from "./api.js";
import { Conversation } from "./conversation.js";
import { askedForKey, confirmed, menu, renamed, showShortcuts } from "./dialogs.js";
import { byId, h, icon, kept, save, say, toast } from "./dom.js";
import { List } from "./list.js";
import { Models } from "./models.js";
import { askedForSettings } from "./settings.js";

const text = byId("composer-text");
const app = byId("app");
const narrow = matchMedia("(max-width: 52rem)");
const touch = matchMedia("(pointer: coarse)");
let settings = {}; // of the conversation, or of the one that begins
let defaults = {};

onMissingKey(askedForKey);

const list = new List({ rename, remove, save: exportOne, failed: (problem) => toast(problem.message) });
const models = new Models((name) => conversation.id && change({ model: name }));
const conversation = new Conversation({
  model: () => models.name,
  meter: (used, context) => models.meter(used, context),
  busy,
  changed(about) {
    list.put(about);
    showAbout(about);
  },
  async begin() {
    const about = await server.begin(models.name, settings);
    conversation.about = about;
    history.replaceState(null, "", `#/c/${about.id}`);
    list.put(about);
    list.select(about.id);
    return about.id;
  },
  async abandon(id) {
    try {
      await server.remove(id);
    } catch {
      return; // then it is used for the next try
    }
    conversation.about = null;
    history.replaceState(null, "", "#");
    list.drop(id);
    showAbout(null);
  },
  giveBack(content) {
    if (!text.value) text.value = content;
    sized();
  },
  retry(body) {
    if (body.content !== undefined && text.value === body.content) write("");
    conversation.ask(body);
  },
  stopped: () => route(true),
});

// ---- what is shown

function showAbout(about) {
  const title = about?.title || "New conversation";
  byId("title-text").textContent = title;
  document.title = about?.title ? `${title} – Sotol` : "Sotol";
  byId("title").disabled = !about;
  byId("export-one").hidden = !about;
}

async function route(again = false) {
  const id = /^#\/c\/([0-9a-f]+)$/.exec(location.hash)?.[1] ?? null;
  closeSidebar();
  if (id === null) {
    settings = {};
    conversation.clear(send);
    showAbout(null);
    list.select(null);
    return;
  }
  if (id === conversation.id && !again) return;
  list.select(id);
  try {
    const data = await server.conversation(id);
    settings = data.settings;
    models.choose(data.model);
    conversation.show(data);
    showAbout(data);
    if (!touch.matches) text.focus();
  } catch (problem) {
    conversation.clear(send);
    showAbout(null);
    const retry = h("button", { type: "button", class: "button", onclick: () => route(true) }, "Try again");
    byId("thread").replaceChildren(h("div", { class: "problem", role: "alert" }, h("p", {}, problem.message), retry));
  }
}

function busy(on) {
  const send = byId("send");
  send.replaceChildren(icon(on ? "stop" : "send"));
  send.setAttribute("aria-label", on ? "Stop" : "Send");
  send.title = on ? "Stop (Esc)" : "Send (Enter)";
  send.dataset.busy = on ? "yes" : "";
  canSend();
}

function canSend() {
  byId("send").disabled = !byId("send").dataset.busy && text.value.trim() === "";
}

function sized() {
  if (!CSS.supports("field-sizing", "content")) {
    text.style.height = "auto";
    text.style.height = `${text.scrollHeight}px`;
  }
  kept.set("draft", text.value || null);
  canSend();
}

function write(value) {
  text.value = value;
  sized();
}

// ---- what is done

function send(content) {
  if (conversation.running || !content.trim()) return;
  if (text.value === content) write("");
  conversation.ask({ parent: conversation.tree.leaf, content: content.trim() });
}

function begin() {
  if (location.hash) location.hash = "";
  else route(true);
  text.focus();
}

async function change(changes) {
  try {
    const about = await server.change(conversation.id, changes);
    conversation.about = about;
    list.put(about);
    showAbout(about);
  } catch (problem) {
    toast(problem.message);
  }
}

async function rename(item) {
  const title = await renamed("Rename the conversation", item.title);
  if (!title) return;
  try {
    const about = await server.change(item.id, { title });
    list.put(about);
    if (item.id === conversation.id) showAbout(about);
  } catch (problem) {
    toast(problem.message);
  }
}

async function remove(item) {
  const name = item.title || "New conversation";
  if (!(await confirmed("Delete the conversation?", `“${name}” and all of its branches will be gone for good.`, "Delete"))) return;
  try {
    await server.remove(item.id);
    list.drop(item.id);
    say("Deleted");
    if (item.id === conversation.id) begin();
  } catch (problem) {
    toast(problem.message);
  }
}

async function exportOne(item, form) {
  try {
    const content = await server.exported(item.id, form);
    const name = (item.title || "Conversation").replace(/[\\/:*?"<>|]/g, "_");
    if (form === "markdown") save(`${name}.md`, content, "text/markdown");
    else save(`${name}.json`, content, "application/json");
  } catch (problem) {
    toast(problem.message);
  }
}

async function importFile(file) {
  if (!file) return;
  try {
    const { conversations } = await server.bring(await file.text());
    await list.load();
    toast(conversations.length === 1 ? "One conversation was imported" : `${conversations.length} conversations were imported`);
    if (conversations.length === 1) location.hash = `#/c/${conversations[0].id}`;
  } catch (problem) {
    toast(problem.message);
  }
}

async function openSettings() {
  const asked = await askedForSettings(settings, defaults);
  if (asked === null) return;
  const before = settings;
  settings = asked;
  if (!conversation.id) return;
  try {
    conversation.about = await server.change(conversation.id, { settings });
  } catch (problem) {
    settings = before;
    toast(problem.message);
  }
}

function toggleTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try {
    localStorage.setItem("sotol.theme", root.dataset.theme);
  } catch {} // then it holds until the page is closed
  say(dark ? "Light" : "Dark");
}

function openSidebar() {
  if (!narrow.matches) return;
  app.dataset.open = "";
  byId("main").inert = true;
  byId("open-sidebar").setAttribute("aria-expanded", "true");
  byId("close-sidebar").focus();
}

function closeSidebar() {
  if (!("open" in app.dataset)) return;
  delete app.dataset.open;
  byId("main").inert = false;
  byId("open-sidebar").setAttribute("aria-expanded", "false");
  byId("open-sidebar").focus();
}

// ---- keys

const command = (event) => event.ctrlKey || event.metaKey;
const SHORTCUTS = [
  { keys: ["Enter"], does: "Send" },
  { keys: ["Shift", "Enter"], does: "A new line" },
  { keys: ["Esc"], does: "Stop the answer" },
  { keys: ["Ctrl", "K"], does: "Search conversations", is: (e) => command(e) && !e.shiftKey && e.key.toLowerCase() === "k", act: searchFor },
  { keys: ["Ctrl", "Shift", "O"], does: "New conversation", is: (e) => command(e) && e.shiftKey && e.key.toLowerCase() === "o", act: begin },
  { keys: ["/"], does: "To the message box", act: () => text.focus() },
  { keys: ["n"], does: "New conversation", act: begin },
  { keys: ["j"], does: "Next conversation", act: () => go(1) },
  { keys: ["k"], does: "Previous conversation", act: () => go(-1) },
  { keys: ["e"], does: "Edit your last message", act: () => conversation.last("user") && conversation.edit(conversation.last("user")) },
  { keys: ["r"], does: "Answer again", act: () => conversation.last("assistant") && conversation.again(conversation.last("assistant")) },
  { keys: ["c"], does: "Copy the last answer", act: () => [...document.querySelectorAll('[data-act="copy"]')].at(-1)?.click() },
  { keys: ["s"], does: "Settings", act: openSettings },
  { keys: ["t"], does: "Light or dark", act: toggleTheme },
  { keys: ["?"], does: "This list", act: () => showShortcuts(SHORTCUTS) },
];

function searchFor() {
  openSidebar();
  byId("search").focus();
  byId("search").select();
}

function go(step) {
  const id = list.near(step);
  if (id) location.hash = `#/c/${id}`;
}

document.addEventListener("keydown", (event) => {
  if (event.isComposing || document.querySelector("dialog[open]")) return;
  if (event.key === "Escape") {
    if ("open" in app.dataset) closeSidebar();
    else conversation.stop();
    return;
  }
  const writing = event.target.matches("input, textarea, select");
  const found = SHORTCUTS.find(({ keys, is, act }) => act && (is ? is(event) : !writing && !command(event) && !event.altKey && event.key === keys[0]));
  if (!found) return;
  event.preventDefault();
  found.act();
});

// ---- the beginning

function wire() {
  const buttons = {
    new: ["plus", begin], settings: ["settings", openSettings], theme: ["theme", toggleTheme], help: ["help", () => showShortcuts(SHORTCUTS)],
    "open-sidebar": ["menu", openSidebar], "close-sidebar": ["close", closeSidebar], jump: ["down", () => {}],
    import: ["import", () => byId("import-file").click()],
    export: ["export", async () => save("sotol-conversations.json", await server.everything(), "application/json")],
    "export-one": ["export", () => menu(byId("export-one"), ["markdown", "json"].map((form) => ({
      icon: "export", label: form === "json" ? "JSON, with all branches" : "Markdown, to read", act: () => exportOne(conversation.about, form),
    })))],
  };
  for (const [id, [name, act]] of Object.entries(buttons)) {
    byId(id).prepend(icon(name));
    byId(id).addEventListener("click", () => Promise.resolve(act()).catch((problem) => toast(problem.message)));
  }
  byId("new").append("New conversation");
  byId("title").addEventListener("click", () => conversation.about && rename(conversation.about));
  byId("backdrop").addEventListener("click", closeSidebar);
  byId("import-file").addEventListener("change", (event) => {
    importFile(event.target.files[0]);
    event.target.value = "";
  });
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    if (conversation.running) conversation.stop();
    else send(text.value);
  });
  text.addEventListener("input", sized);
  text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || touch.matches) return;
    event.preventDefault();
    if (!conversation.running) send(text.value);
  });
  addEventListener("hashchange", () => route());
  narrow.addEventListener("change", closeSidebar);
}

async function start() {
  wire();
  busy(false);
  write(kept.get("draft", ""));
  const [about] = await Promise.all([
    server.about().catch(() => null),
    models.load().catch((problem) => toast(problem.message)),
    list.load(),
    route(),
  ]);
  defaults = about?.defaults ?? {};
  document.body.dataset.ready = "yes";
  if (!touch.matches) text.focus();
}

start();
