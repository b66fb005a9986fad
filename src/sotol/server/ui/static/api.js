// Asking the server: JSON, files, and answers as they stream. Knows nothing of what is shown.

const KEY = "sotol.key";

/** Why something was refused, in words for the reader. status: 0 where the server can't be reached. */
export class Problem extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let askForKey = async () => null;
let asking = null;

/** ask: shows a dialog, and gives a key and whether to keep it; null if the reader does not want to. */
export function onMissingKey(ask) {
  askForKey = ask;
}

function storedKey() {
  try {
    return sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY);
  } catch {
    return null;
  }
}

function storeKey(key, forLong) {
  try {
    sessionStorage.removeItem(KEY);
    localStorage.removeItem(KEY);
    (forLong ? localStorage : sessionStorage).setItem(KEY, key);
  } catch {} // then it is asked for again
}

async function request(path, { method = "GET", body, text, signal } = {}, again = true) {
  const headers = {};
  const key = storedKey();
  if (key) headers.authorization = `Bearer ${key}`;
  const sent = text ?? (body === undefined ? undefined : JSON.stringify(body));
  if (sent !== undefined || method === "POST") headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, body: sent, signal, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The server can't be reached. Is it still running?");
  }
  if (response.status === 401 && again) {
    asking ??= askForKey(Boolean(key)).finally(() => (asking = null)); // once, however many requests fail
    const given = await asking;
    if (given) {
      storeKey(given.key, given.keep);
      return request(path, { method, body, text, signal }, given.key !== key);
    }
  }
  if (!response.ok) throw new Problem(response.status, await reason(response));
  return response;
}

async function reason(response) {
  try {
    const said = await response.json();
    return said.error?.message ?? said.error ?? `The server answered with ${response.status}.`;
  } catch {
    return `The server answered with ${response.status}.`;
  }
}

export const ask = async (path, options) => (await request(path, options)).json();
export const download = async (path) => (await request(path)).text();

/** Events of a stream, one by one. Problem where it fails, also in the middle. */
export async function* events(path, body, signal) {
  const response = await request(path, { method: "POST", body, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  let ended = false;
  try {
    for (;;) {
      let read;
      try {
        read = await reader.read();
      } catch (error) {
        if (error.name === "AbortError") throw error;
        throw new Problem(0, "The connection broke off. What had come is kept.");
      }
      if (read.done) break;
      waiting += read.value;
      const parts = waiting.split("\n\n");
      waiting = parts.pop();
      for (const part of parts) {
        const data = part.split("\n").find((line) => line.startsWith("data: "));
        if (!data) continue; // a sign of life
        const event = JSON.parse(data.slice(6));
        if (event.error) throw new Problem(500, event.error.message ?? "The answer failed.");
        ended ||= event.type === "end";
        yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
  if (!ended) throw new Problem(0, "The connection broke off. What had come is kept.");
}

const conversation = (id) => `api/conversations/${encodeURIComponent(id)}`;

export const server = {
  about: () => ask("api/about"),
  models: async () => (await ask("../v1/models")).data,
  list: (search, before) => {
    const query = new URLSearchParams({ ...(search && { search }), ...(before && { before }) });
    return ask(`api/conversations?${query}`);
  },
  begin: (model, settings) => ask("api/conversations", { method: "POST", body: { model, settings } }),
  conversation: (id) => ask(conversation(id)),
  change: (id, changes) => ask(conversation(id), { method: "PATCH", body: changes }),
  remove: (id) => ask(conversation(id), { method: "DELETE" }),
  exported: (id, form) => download(`${conversation(id)}/export?form=${form}`),
  everything: () => download("api/export"),
  bring: (text) => ask("api/import", { method: "POST", text }),
  answer: (id, body, signal) => events(`${conversation(id)}/answers`, body, signal),
  stop: (message) => ask(`api/messages/${message}/stop`, { method: "POST" }),
};
