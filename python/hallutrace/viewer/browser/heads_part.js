// One marginal of the token in every layer and head.

import { choice } from "./controls.js";
import { el, fill, problem } from "./dom.js";
import { figure } from "./figure.js";
import { headGrid } from "./token_head_grid.js";
import { setState } from "./state.js";

/** The part of the page, with `load()` and `draw(token)`. */
export function headsPart({ data, at, source }) {
  let values = null, name = null, missing = 0, drawn = at.token();
  const grid = headGrid({ layers: data.layers, most: Math.max(...data.heads), label: "Layers and heads for the token", pick: (place, head) => setState({ layer: data.layers[place], head }) });
  const place = el("div", {}, grid.element);
  const rowOf = (token) => Math.max(token - missing, -1);

  async function load() {
    const asked = at.marginal();
    try {
      const found = await source.get("token_heads", { trace: data.key, marginal: asked });
      if (asked !== at.marginal()) return;
      [values, name, missing] = [found, asked, data.tokens.ids.length - found.values.shape[2]];
      if (!grid.element.isConnected) fill(place, grid.element);
      draw(drawn);
    } catch (error) {
      fill(place, problem(error));
    }
  }

  const draw = (token) => { drawn = token; if (values && name === at.marginal()) grid.draw(values, rowOf(token), at.layerAt()); };

  function table() {
    const row = values ? rowOf(at.token()) : -1, [, width, rows] = values?.values.shape ?? [];
    return { columns: ["layer", "head", data.marginals[at.marginal()]],
      rows: row < 0 ? [] : values.heads.flatMap((count, layer) => Array.from({ length: count }, (_, head) => [data.layers[layer], head, values.values[(layer * width + head) * rows + row]])) };
  }

  const options = Object.entries(data.marginals).map(([value, text]) => ({ value, text }));
  const element = figure({ title: "The token in every layer and head", sentence: "A number of each head, made before pruning, for this token. Down: layers. Across: heads. A click shows that layer.",
    controls: [choice("trace_marginal", "Show", options, "entropy")], picture: place, table, name: `heads-${data.position}` });
  return { element, load, draw };
}
