// The run as a whole.

import { el } from "../dom.js";
import { bytes, counted, number } from "../format.js";
import { register } from "../registry.js";

register({
  id: "run",
  title: "Run",
  order: 10,
  ofOneRun: true,
  needs: ["run"],
  async render({ source }) {
    const run = await source.get("run");
    const model = run.identity.model;
    const facts = [
      ["model", String(model.name)], ["traces", number(run.traces)], ["failures", number(run.counts.failures)],
      ["size", bytes(run.bytes)], ["a trace", bytes(run.bytes / run.traces)],
    ];
    return el("section", {},
      el("p", {}, `${counted(run.traces, "trace")} of ${model.name} in ${counted(run.shards, "shard")}.`),
      el("dl", { class: "facts" }, facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))));
  },
});
