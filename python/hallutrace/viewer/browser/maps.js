// The maps of a run: which can be shown, and which one the address names.

import { state } from "./state.js";

export const METHODS = { pca: "PCA", tsne: "t-SNE", umap: "UMAP" };
export const TOKENS = { last_prompt: "last prompt token", last_answer: "last answer token", last: "last token", mean_answer: "answer (mean)", first_answer: "first answer token" };

/** The maps that can be shown: stored ones, and PCAs where the source has them. */
export function availableMaps(about, source) {
  const found = [...about.stored];
  if (about.pca) {
    for (const layer of about.layers) for (const token of about.tokens) found.push({ method: "pca", layer, token, seed: 0 });
  }
  const seen = new Set();
  return found.filter((one) => {
    const key = JSON.stringify(parameters(one));
    const isNew = !seen.has(key);
    seen.add(key);
    return isNew && source.has("map", parameters(one));
  });
}

export const parameters = ({ method, layer, token, seed }) => ({ method, layer: String(layer), token, seed: String(seed) });
export const methodOf = (one) => `${one.method} ${one.seed}`;
export const distinct = (values) => [...new Set(values)];

/** The map that the address names, as far as there is one. */
export function chosenMap(maps, about) {
  const now = state();
  let left = maps;
  const narrow = (keep, fallback) => {
    const kept = left.filter(keep);
    left = kept.length ? kept : left.filter(fallback);
  };
  narrow((one) => String(one.layer) === (now.layer ?? String(about.layer)), (one) => one.layer === (left.some((other) => other.layer === about.layer) ? about.layer : left[0].layer));
  narrow((one) => one.token === (now.token ?? about.token), (one) => one.token === left[0].token);
  narrow((one) => methodOf(one) === now.mapmethod, (one) => one === (left.find((other) => other.method === "pca") ?? left[0]));
  return left[0];
}
