// Keeps an open page up to date. The server tells the figures when they have changed; the page then asks for itself again
// and exchanges those parts that differ. What comes is what a reload would show, made and escaped by the server; nothing
// is put together as HTML here, and the page's policy lets no script run that is not ours.

const BETWEEN_PAGES = 1000; // ms, at least
const UNTIL_AGES = 5000; // ms: ages grow even when nothing changes
const BETWEEN_CONNECTIONS = 2000; // ms

const number = new Intl.NumberFormat("en");
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// The connection

function connect() {
  const events = new EventSource(document.body.dataset.events);
  events.onmessage = (event) => {
    const figures = JSON.parse(event.data);
    if (figures.away) return say(figures.away, "warn");
    say("live", "good");
    showCounts(figures);
    refresh();
  };
  events.onerror = () => {
    say("no connection, trying again", "warn");
    if (events.readyState === EventSource.CLOSED) setTimeout(connect, BETWEEN_CONNECTIONS); // else the browser tries
  };
}

function say(text, mood) {
  const pill = document.getElementById("connection");
  if (pill.textContent !== text) pill.textContent = text; // a screen reader would read it out again
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
      if (response.ok) exchange(new DOMParser().parseFromString(await response.text(), "text/html"));
    } catch {
      // the connection's pill says it; the next event asks again
    }
    await sleep(BETWEEN_PAGES);
  }
  busy = false;
}

function exchange(page) {
  for (const part of document.querySelectorAll("[data-live]")) {
    const fresh = page.getElementById(part.id);
    if (fresh) arrange(part, [...fresh.children]);
  }
}

/** Make a part hold these children, known by their keys; those that are the same, or in use, are left alone. */
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

/** By their keys; several of the same key (two equal jobs) are counted. */
function keyed(children) {
  const found = new Map();
  for (const child of children) {
    let key = child.dataset.key;
    while (found.has(key)) key += "+";
    found.set(key, child);
  }
  return found;
}

/** Whether somebody reads it, selects in it or is about to press its button: that must not move away under them. */
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
