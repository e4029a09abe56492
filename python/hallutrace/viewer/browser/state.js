// What is looked at, kept in the address: a view can be sent to a colleague.

const listeners = new Set();
let current = read();

/** All of the state: texts by name. */
export function state() {
  return current;
}

/** Changes some of the state; null removes a name. `replace` keeps the history short (sliders). */
export function setState(changes, { replace = false } = {}) {
  const next = { ...current };
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === undefined || value === "") delete next[name];
    else next[name] = String(value);
  }
  const text = `#${new URLSearchParams(next)}`;
  if (text === `#${new URLSearchParams(current)}`) return;
  const before = current;
  current = next;
  try {
    if (replace) history.replaceState(null, "", text);
    else history.pushState(null, "", text);
  } catch {
    // A page within a notebook has no address of its own: its state lasts as long as it is open.
  }
  tell(before);
}

/** Calls `listener(state, before)` whenever it changes. */
export function onState(listener) {
  listeners.add(listener);
}

/** Whether something changed from one state to the next, and nothing but these names. */
export function onlyChanged(now, before, names) {
  const changed = Object.keys({ ...now, ...before }).filter((name) => now[name] !== before?.[name]);
  return Boolean(before && changed.length && changed.every((name) => names.includes(name)));
}

function read() {
  return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
}

function tell(before) {
  for (const listener of [...listeners]) listener(current, before);
}

window.addEventListener("popstate", () => {
  const before = current;
  current = read();
  tell(before);
});
