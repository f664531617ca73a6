// Keeps an open page up to date. The server sends the figures when they have changed; the page then fetches itself again
// and replaces the parts that differ. It shows what a reload would show, rendered and escaped by the server. This script
// builds no HTML, and the page's content security policy allows no other script.

const BETWEEN_PAGES = 1000; // ms, at least
const UNTIL_AGES = 5000; // ms: ages change even when nothing else does
const BETWEEN_CONNECTIONS = 2000; // ms

const number = new Intl.NumberFormat("en");
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// The connection

function connect() {
  const events = new EventSource(document.body.dataset.events);
  events.onmessage = (event) => {
    const figures = JSON.parse(event.data);
    if (figures.unavailable) return showStatus(figures.unavailable, "warn");
    showStatus("live", "good");
    showCounts(figures);
    refresh();
  };
  events.onerror = () => {
    showStatus("no connection, trying again", "warn");
    if (events.readyState === EventSource.CLOSED) setTimeout(connect, BETWEEN_CONNECTIONS); // otherwise the browser reconnects
  };
}

function showStatus(text, mood) {
  const pill = document.getElementById("connection");
  if (pill.textContent !== text) pill.textContent = text; // an unchanged text would be read aloud again
  pill.className = `pill ${mood}`;
}

function showCounts(figures) {
  const counts = {
    queues: number.format(figures.waiting),
    delayed: number.format(figures.delayed) + (figures.more_delayed ? "+" : ""),
    failed: number.format(figures.failed),
    workers: number.format(figures.processes),
  };
  for (const place of document.querySelectorAll("[data-figure]")) {
    place.textContent = counts[place.dataset.figure] ?? "";
  }
}

// The page

let stale = false;
let busy = false;

async function refresh() {
  stale = true;
  if (busy) return;
  busy = true;
  while (stale && !document.hidden) {
    stale = false;
    try {
      const response = await fetch(location.href, { cache: "no-store" });
      if (response.ok) replaceParts(new DOMParser().parseFromString(await response.text(), "text/html"));
    } catch {
      // the status already shows it; the next event tries again
    }
    await sleep(BETWEEN_PAGES);
  }
  busy = false;
}

function replaceParts(page) {
  for (const part of document.querySelectorAll("[data-live]")) {
    const fresh = page.getElementById(part.id);
    if (fresh) arrange(part, [...fresh.children]);
  }
}

/** Give a part these children, matched by their keys; children that are equal or in use stay. */
function arrange(part, wanted) {
  const present = keyed([...part.children]);
  const arranged = [...keyed(wanted)].map(([key, child]) => {
    const old = present.get(key);
    return old && (inUse(old) || old.isEqualNode(child)) ? old : document.adoptNode(child);
  });
  const keep = new Set(arranged);
  for (const child of [...part.children]) if (!keep.has(child)) child.remove();
  let cursor = part.firstElementChild;
  for (const child of arranged) {
    if (child === cursor) cursor = cursor.nextElementSibling;
    else part.insertBefore(child, cursor);
  }
}

/** The children by their keys; repeated keys (two equal jobs) get a suffix. */
function keyed(children) {
  const found = new Map();
  for (const child of children) {
    let key = child.dataset.key;
    while (found.has(key)) key += "+";
    found.set(key, child);
  }
  return found;
}

/** Whether the reader has it open, focused or selected: then it must not change or move. */
function inUse(part) {
  const selection = getSelection();
  return (
    part.contains(document.activeElement) ||
    part.querySelector("details[open]") !== null ||
    part.matches("details[open]") ||
    (!selection.isCollapsed && selection.containsNode(part, true))
  );
}

setInterval(() => document.hidden || refresh(), UNTIL_AGES);
document.addEventListener("visibilitychange", () => document.hidden || refresh());
connect();
