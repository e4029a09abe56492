// Traces as a table that is sorted by a click; a row opens its trace.

import { classOf } from "./colors.js";
import { el } from "./dom.js";
import { decimals, line } from "./format.js";
import { setState } from "./state.js";
import { virtualTable } from "./table.js";

/** The sign and the name of a label. */
function labelSign(label) {
  const kind = classOf(label);
  return el("span", {}, el("span", { "aria-hidden": "true", style: { color: kind.color } }, `${kind.mark} `), kind.name);
}

/**
 * Rows of a payload of traces.
 *   traces   columns, as the payload `traces` has them
 *   rows     indices into the columns
 *   protocol whose labels are shown; null for none
 *   name     what the table lists
 *   extra    more columns, whose functions take an index
 * The rest is handed to virtualTable.
 */
export function traceTable({ traces, rows, protocol, name, extra = [], ...rest }) {
  const labels = traces.labels[protocol] ?? null;
  const columns = [
    labels && { name: "label", value: (i) => labels[i], cell: (i) => labelSign(labels[i]), width: "8em" },
    { name: "question", value: (i) => traces.question[i], text: (i) => line(traces.question[i], 160), width: "minmax(11em, 2fr)" },
    { name: "answer", value: (i) => traces.answer[i], text: (i) => line(traces.answer[i], 160), width: "minmax(9em, 1.4fr)" },
    ...extra,
    { name: "tokens", number: true, value: (i) => traces.answer_tokens[i], width: "4.5em" },
    { name: "logprob", number: true, value: (i) => traces.mean_logprob[i], text: (i) => decimals(traces.mean_logprob[i], 2), width: "5em" },
  ].filter(Boolean);
  return virtualTable({ columns, rows, label: name, open: (i) => setState({ view: "trace", trace: traces.key[i] }), ...rest });
}
