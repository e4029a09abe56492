// The views of the page. Each file in views/ registers one.

const views = [];

/**
 * Adds a view.
 *   id        in the address
 *   title     on the tab
 *   order     of the tabs
 *   needs     names of payloads without which an embedded page does not show the tab
 *   servedOnly  whether only the explorer has it
 *   render    async (context) => element; context is {source, state, settings}
 *   update    optional (state, before) => whether the shown element took the change by itself
 */
export function register(view) {
  views.push(view);
  views.sort((a, b) => a.order - b.order);
}

export function allViews() {
  return views;
}
