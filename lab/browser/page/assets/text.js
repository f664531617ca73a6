// Text that changes often. An element whose text is already the wanted one is left alone, because every change costs a
// new layout.

const shown = new WeakMap(); // element -> its text, so that the page need not be asked

export function setText(element, text) {
  if (shown.get(element) === text) return;
  shown.set(element, text);
  element.textContent = text;
}
