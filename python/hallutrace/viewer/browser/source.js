// Where data come from: the page itself, or the server of `hallutrace explore`.

import { Missing } from "./dom.js";
import { fromBase64, unpack } from "./payload.js";

const MOST_KEPT = 64; // answers of a server

/** The key of a payload: name, and parameters in the order of their names. */
function keyOf(name, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined);
  const text = given.sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `${encodeURIComponent(key)}=${encodeURIComponent(value)}`).join("&");
  return text ? `${name}?${text}` : name;
}

/** Data that the page carries. */
export class EmbeddedSource {
  constructor(root = document, missing = {}) {
    this.served = false;
    this.missing = missing; // why a payload is not in the run, by its name
    this.elements = new Map();
    for (const one of root.querySelectorAll("script[data-key]")) this.elements.set(one.dataset.key, one);
    this.values = new Map();
  }

  has(name, parameters) {
    return this.elements.has(keyOf(name, parameters));
  }

  keys(name) {
    return [...this.elements.keys()].filter((key) => key === name || key.startsWith(`${name}?`));
  }

  get(name, parameters) {
    const key = keyOf(name, parameters);
    if (!this.elements.has(key)) {
      return Promise.reject(new Missing(this.missing[name] ?? "This page does not carry these data; `hallutrace explore` shows them."));
    }
    if (!this.values.has(key)) this.values.set(key, unpack(fromBase64(this.elements.get(key).textContent)));
    return this.values.get(key);
  }
}

/** Data that a server gives: `data/RUN/NAME?parameters`. The newest few answers are kept. */
export class ServedSource {
  constructor(run) {
    this.served = true;
    this.run = run;
    this.values = new Map();
    this.used = new Map(); // what the view that is shown has asked for
  }

  has() {
    return true;
  }

  get(name, parameters = {}) {
    const key = keyOf(name, parameters);
    this.used.set(key, [name, parameters]);
    if (this.values.has(key)) {
      const value = this.values.get(key);
      this.values.delete(key);
      this.values.set(key, value); // now the newest
      return value;
    }
    const value = fetched(`data/${encodeURIComponent(this.run)}/${key}`);
    this.values.set(key, value);
    value.catch(() => this.values.delete(key));
    if (this.values.size > MOST_KEPT) this.values.delete(this.values.keys().next().value);
    return value;
  }

  /** As `get`, of what changes while it is looked at: never an answer that was kept. */
  fresh(name, parameters) {
    return fetched(`data/${encodeURIComponent(this.run)}/${keyOf(name, parameters)}`);
  }
}

/** What a server answers: a payload, or JSON with `message`; 404 is what the run does not have. */
export async function fetched(address, options = {}) {
  const answer = await fetch(address, { credentials: "same-origin", ...options });
  if (answer.ok) return unpack(await answer.arrayBuffer());
  const told = await answer.json().catch(() => ({}));
  const message = told.message ?? `the server answered ${answer.status}`;
  throw answer.status === 404 ? new Missing(message) : new Error(message);
}
