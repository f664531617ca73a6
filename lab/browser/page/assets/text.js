// Text that changes often. An element that already has the text is not changed, because every change costs a new
// layout.

const shown = new WeakMap(); // element -> its text, which is faster than reading it from the page

export function setText(element, text) {
  if (shown.get(element) === text) return;
  shown.set(element, text);
  element.textContent = text;
}
