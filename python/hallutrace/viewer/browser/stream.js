// Work that a server does for the page and tells of as it goes on.

import { fill, problem } from "./dom.js";

/** Posts a body as JSON; what the server refuses is an error. */
export async function posted(address, body, signal = undefined) {
  const headers = { "content-type": "application/json", "x-hallutrace": "1" };
  const answer = await fetch(address, { method: "POST", headers, body: JSON.stringify(body), signal, credentials: "same-origin" });
  if (answer.ok) return answer;
  const { message } = await answer.json().catch(() => ({}));
  throw new Error(message ?? `the server answered ${answer.status}`);
}

/**
 * Posts a body, and calls `told(name, content)` for each server-sent event of the answer.
 * Ends with the last of them; `signal` of an AbortController stops the work.
 */
async function streamed(address, body, told, signal) {
  const answer = await posted(address, body, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (waiting + value).split("\n\n");
    waiting = events.pop();
    for (const one of events) tell(one, told);
  }
}

/** The same, with how it stands and what went wrong in a line of status; `told` has a function for each other event. */
export async function toldIn(status, address, body, told, signal, stopped) {
  const each = {
    state: ({ text }) => fill(status, text),
    failed: ({ message, stopped: isStopped }) => fill(status, isStopped ? message : problem(new Error(message))),
    ...told,
  };
  try {
    await streamed(address, body, (name, content) => each[name]?.(content), signal);
  } catch (error) {
    fill(status, error.name === "AbortError" ? stopped() : problem(error));
  }
}

function tell(text, told) {
  const fields = Object.fromEntries(text.split("\n").filter((one) => !one.startsWith(":"))
    .map((one) => [one.slice(0, one.indexOf(":")), one.slice(one.indexOf(":") + 1).trimStart()]));
  if (fields.data) told(fields.event, JSON.parse(fields.data));
}
