// What the address says of a trace, made valid; and the changes that a reader makes to it.

import { setState, state } from "./state.js";

const MOST_PINS = 20;
export const WHOLE = 100; // percent of a row

/** Questions and changes: all read the address when they are called. */
export function traceState(data) {
  const count = data.tokens.ids.length, prompt = data.prompt_length;
  const inTrace = (at) => Number.isInteger(at) && at >= 0 && at < count;
  const at = {
    layer: () => (data.layers.includes(Number(state().layer)) ? Number(state().layer) : data.layers[0]),
    layerAt: () => data.layers.indexOf(at.layer()),
    head: () => Math.min(Math.max(Math.floor(Number(state().head)) || 0, 0), data.heads[at.layerAt()] - 1),
    token: () => (state().token !== undefined && inTrace(Number(state().token)) ? Number(state().token) : Math.min(prompt, count - 1)),
    pins: () => [...new Set((state().trace_pins ?? "").split(".").filter(Boolean).map(Number).filter(inTrace))].slice(0, MOST_PINS),
    share: () => Math.min(Math.max(Number(state().trace_keep ?? WHOLE) || 1, 1), WHOLE) / WHOLE,
    marginal: () => (Object.hasOwn(data.marginals, state().trace_marginal ?? "") ? state().trace_marginal : "entropy"),
    color: () => state().trace_color,

    /** Pins a token, or unpins it if it was; null unpins all. */
    pin(token) {
      const now = at.pins();
      const next = now.includes(token) ? now.filter((one) => one !== token) : [...now, token].slice(-MOST_PINS);
      setState(token === null ? { trace_pins: null } : { token, trace_pins: next.join(".") });
    },
    move: (token) => setState({ token }, { replace: true }),
    stepLayer(by) {
      const next = data.layers[at.layerAt() + by];
      if (next !== undefined) setState({ layer: next }, { replace: true });
    },
  };
  return at;
}
