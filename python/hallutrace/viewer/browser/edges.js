// The attention graph of one layer of a trace. A row has what its token looked at; a column, who looked at it.

/**
 * A graph with what is asked of it again and again:
 *   order   edges of each row, the heaviest first (of equal ones the earlier token)
 *   before  of each edge: the weight of the heavier edges of its row
 *   sums    weight of all edges of each row
 *   columns, queries, edgeOf   the edges by column: starts, the row of each, its place in `keys`
 */
export function graphOf(data) {
  const { indptr, keys, weights } = data;
  const tokens = indptr.length - 1;
  const order = new Uint32Array(keys.length), before = new Float64Array(keys.length), sums = new Float64Array(tokens);
  for (let row = 0; row < tokens; row++) {
    sortRow(order, indptr[row], indptr[row + 1], keys, weights);
    let sum = 0;
    for (let at = indptr[row]; at < indptr[row + 1]; at++) {
      before[order[at]] = sum;
      sum += weights[order[at]];
    }
    sums[row] = sum;
  }
  return { ...data, tokens, order, before, sums, ...byColumn(indptr, keys, tokens) };
}

function sortRow(order, begin, end, keys, weights) {
  for (let at = begin; at < end; at++) order[at] = at;
  if (end - begin > 40) {
    order.subarray(begin, end).sort((a, b) => weights[b] - weights[a] || keys[a] - keys[b]);
    return;
  }
  for (let at = begin + 1; at < end; at++) { // edges lie by key, so that equal weights keep that order
    const edge = order[at];
    let to = at;
    while (to > begin && weights[order[to - 1]] < weights[edge]) { order[to] = order[to - 1]; to--; }
    order[to] = edge;
  }
}

function byColumn(indptr, keys, tokens) {
  const columns = new Uint32Array(tokens + 1);
  for (const key of keys) columns[key + 1]++;
  for (let i = 0; i < tokens; i++) columns[i + 1] += columns[i];
  const next = columns.slice(0, tokens), queries = new Uint32Array(keys.length), edgeOf = new Uint32Array(keys.length);
  for (let row = 0; row < tokens; row++) {
    for (let edge = indptr[row]; edge < indptr[row + 1]; edge++) {
      const at = next[keys[edge]]++;
      queries[at] = row;
      edgeOf[at] = edge;
    }
  }
  return { columns, queries, edgeOf };
}

/** Whether an edge is among the fewest heaviest ones that carry a share of what its row kept. */
export const isCarried = (graph, row, edge, share) => graph.before[edge] < share * graph.sums[row];

/** What a token looked at: [{token, weight}], the heaviest first. */
export function lookedAt(graph, token, share = 1) {
  const found = [];
  for (let at = graph.indptr[token]; at < graph.indptr[token + 1]; at++) {
    const edge = graph.order[at];
    if (!isCarried(graph, token, edge, share)) break;
    found.push({ token: graph.keys[edge], weight: graph.weights[edge] });
  }
  return found;
}

/** Who looked at a token: [{token, weight}], the heaviest first. */
export function lookedAtBy(graph, token, share = 1) {
  const found = [];
  for (let at = graph.columns[token]; at < graph.columns[token + 1]; at++) {
    const [row, edge] = [graph.queries[at], graph.edgeOf[at]];
    if (isCarried(graph, row, edge, share)) found.push({ token: row, weight: graph.weights[edge] });
  }
  return found.sort((a, b) => b.weight - a.weight || a.token - b.token);
}

/** Of a row: its edges, those that the share keeps, their weights, and what pruning had dropped. */
export function rowSummary(graph, token, share) {
  const carried = lookedAt(graph, token, share);
  return {
    edges: graph.indptr[token + 1] - graph.indptr[token], kept: graph.sums[token], dropped: graph.dropped[token],
    carried: carried.length, weight: carried.reduce((sum, one) => sum + one.weight, 0),
  };
}

/** Median and largest of the mass that pruning dropped, over the rows where it is known. */
export function droppedSummary(graph) {
  const known = Float32Array.from(graph.dropped).filter((one) => !Number.isNaN(one)).sort();
  if (!known.length) return null;
  const middle = known.length >> 1;
  return { median: known.length % 2 ? known[middle] : (known[middle - 1] + known[middle]) / 2, most: known.at(-1) };
}
