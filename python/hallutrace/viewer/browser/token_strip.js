// Prompt and answer as tokens. Painting and marking change colours alone, so nothing is laid out again.

import { css, ink } from "./colors.js";
import { el } from "./dom.js";

const MOST = 4096; // tokens that are shown; of longer traces the last ones
const CHUNK = 256; // tokens that are painted together, once they are seen

/** A token as it is shown: what is white space becomes a sign. */
export function shown(text) {
  if (text === "") return "∅";
  const marked = text.replaceAll("\n", "⏎");
  return marked.trim() === "" ? marked.replaceAll(" ", "␣") : marked;
}

/**
 * The strip.
 *   texts     of all tokens
 *   prompt    number of those of the prompt
 *   spans     [{tokens: [begin, end), label}], places in the answer
 *   hover     called with the token under the pointer, or null
 *   pin       called with a token that is clicked, or on which Enter is pressed; null unpins all
 *   move      called with the token that the keys moved to
 * Returns {element, from, paint(colorOf), mark({current, pins, links}), focusOn(token)}: from is the
 * first token that is shown, `colorOf(token)` gives [r, g, b] or null, `links` are [{token, weight}].
 */
export function tokenStrip({ texts, prompt, spans, hover, pin, move }) {
  const from = Math.max(0, texts.length - MOST);
  const labelled = new Map(spans.flatMap(({ tokens: [begin, end], label }) =>
    Array.from({ length: Math.max(end - begin, 0) }, (_, i) => [prompt + begin + i, label])));
  const tokens = texts.slice(from).map((text, at) => el("span", {
    id: `token-${from + at}`, role: "option", "aria-selected": "false", "data-token": from + at,
    class: labelled.has(from + at) ? "token labelled" : "token", title: labelled.get(from + at) ?? null,
  }, shown(text)));
  const part = (name, begin, end) => el("div", { role: "group", "aria-label": name }, el("span", { class: "part", "aria-hidden": "true" }, name), chunks(Math.max(begin, from), end));
  const chunks = (begin, end) => Array.from({ length: Math.ceil(Math.max(end - begin, 0) / CHUNK) }, (_, i) => {
    const first = begin + i * CHUNK, last = Math.min(first + CHUNK, end);
    return el("div", { class: "chunk", role: "presentation", "data-first": first, "data-last": last }, i ? el("span", { class: "part", "aria-hidden": "true" }, `from token ${first}`) : null,
      tokens.slice(first - from, last - from).map((token, at) => (texts[first + at].includes("\n") ? [token, el("br")] : token)));
  });
  const tokenOf = (event) => { const found = event.target.dataset?.token; return found === undefined ? null : Number(found); };
  let current = from;
  const element = el("div", {
    class: "strip", role: "listbox", tabindex: "0", "aria-multiselectable": "true", "aria-label": "Tokens of prompt and answer",
    onpointerover: (event) => hover(tokenOf(event)), onpointerleave: () => hover(null),
    onclick: (event) => tokenOf(event) !== null && pin(tokenOf(event)),
    onkeydown: (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -10, ArrowDown: 10, Home: -Infinity, End: Infinity }[event.key];
      if (step !== undefined) move(Math.min(Math.max(current + step, from), texts.length - 1));
      else if (event.key === "Enter" || event.key === " ") pin(current);
      else if (event.key === "Escape") pin(null);
      else return;
      event.preventDefault();
    },
  }, part("Prompt", 0, prompt), part("Answer", prompt, texts.length));
  let marked = [], color = () => null;

  // Only the chunks that are seen are painted at once; the others when they come into sight.
  const parts = [...element.querySelectorAll(".chunk")], seen = new Set(parts), stale = new Set();
  const paintChunk = (chunk) => {
    stale.delete(chunk);
    for (let at = Number(chunk.dataset.first); at < Number(chunk.dataset.last); at++) {
      const found = color(at), { style } = tokens[at - from];
      style.backgroundColor = found ? css(found) : "";
      style.color = found ? ink(found) : "";
    }
  };
  const observer = new IntersectionObserver((entries) => entries.forEach(({ target, isIntersecting }) => {
    seen[isIntersecting ? "add" : "delete"](target);
    if (isIntersecting && stale.has(target)) paintChunk(target);
    if (isIntersecting) mark(last);
  }), { root: element, rootMargin: "50px" });
  parts.forEach((one) => observer.observe(one));
  window.addEventListener("beforeprint", function all() {
    if (element.isConnected) stale.forEach(paintChunk);
    else window.removeEventListener("beforeprint", all); // the trace is gone
  });

  let last = { current: from, pins: [], links: [] };
  function mark(next) {
    last = next;
    for (const token of marked) { token.classList.remove("current", "pinned"); token.style.boxShadow = ""; token.setAttribute("aria-selected", "false"); }
    marked = [];
    const touch = (at) => { const token = tokens[at - from]; if (token) marked.push(token); return token; };
    for (const { token: at, weight } of next.links) {
      if (!seen.has(tokens[at - from]?.parentNode)) continue; // each chunk that changes is painted again
      touch(at).style.boxShadow = `0 ${(1.5 + 3 * weight).toFixed(1)}px color-mix(in srgb, var(--accent) ${Math.round(30 + 70 * weight)}%, transparent)`;
    }
    for (const at of next.pins) { const token = touch(at); token?.classList.add("pinned"); token?.setAttribute("aria-selected", "true"); }
    touch(next.current)?.classList.add("current");
  }

  return {
    element, from,
    paint(colorOf) {
      color = colorOf;
      for (const chunk of parts) {
        if (seen.has(chunk)) paintChunk(chunk);
        else stale.add(chunk);
      }
    },
    mark,
    /** The token that keys start from; it is brought into sight within the strip, and the page stays. */
    focusOn(at) {
      current = Math.max(at, from);
      element.setAttribute("aria-activedescendant", `token-${current}`);
      const [box, token] = [element.getBoundingClientRect(), tokens[current - from].getBoundingClientRect()];
      if (token.top < box.top) element.scrollTop += token.top - box.top - 30;
      else if (token.bottom > box.bottom) element.scrollTop += token.bottom - box.bottom + 30;
    },
  };
}
