// Drawing a part anew without losing where the keyboard is: elements are known by their data-key or data-state.

const keyOf = ({ dataset }) => dataset.key ?? dataset.state;

/** Calls `draw`, then gives the focus back to the element of `place` that has the same key. */
export function keepingFocus(place, draw) {
  const active = document.activeElement;
  const key = place.contains(active) ? keyOf(active) : null;
  const open = [...place.querySelectorAll("details")].map((one) => one.open);
  draw();
  [...place.querySelectorAll("details")].forEach((one, i) => { if (open[i]) one.open = true; });
  if (key && !place.contains(document.activeElement)) [...place.querySelectorAll("[data-key], [data-state]")].find((one) => keyOf(one) === key)?.focus();
}
