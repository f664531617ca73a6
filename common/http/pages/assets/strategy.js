// The page of a strategy. It sends with the same GET as any other client, and shows the live counters. Everything that
// comes from the server is set as text, never as HTML.

const BETWEEN_STATS = 1000; // ms

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en", { maximumFractionDigits: 3 });
const PARTS = ["to", "subject", "text"];

// Sending

$("send").addEventListener("submit", (event) => {
  event.preventDefault();
  send(`/${PARTS.map((part) => encode($(part).value)).join("/")}`);
});

for (const part of PARTS) {
  // A browser resolves a part "." or ".." as a step in the path, even if it is encoded, and would request another URL.
  $(part).addEventListener("input", ({ target }) => {
    target.setCustomValidity(
      [".", ".."].includes(target.value) ? "A browser cannot request a URL with “.” or “..” as a part; curl --path-as-is can." : "",
    );
  });
}

/** Encode one part of the path. Half a surrogate pair would make encodeURIComponent throw; an @ needs no encoding. */
function encode(text) {
  return encodeURIComponent(text.toWellFormed?.() ?? text).replaceAll("%40", "@");
}

async function send(url) {
  $("answer").hidden = false;
  $("url").textContent = location.origin + url;
  $("took").textContent = "waiting for the answer";
  $("body").textContent = "";
  setPill($("status"), "…", "");
  const begin = performance.now();
  try {
    const response = await fetch(url, { cache: "no-store" });
    const body = await response.text();
    showAnswer(`${response.status} ${response.statusText}`, response.ok, begin, pretty(body));
  } catch (error) {
    showAnswer("no answer", false, begin, String(error.message));
  }
  showStats();
}

function showAnswer(status, good, begin, body) {
  setPill($("status"), status, good ? "good" : "warn");
  $("took").textContent = `after ${number.format(Math.round((performance.now() - begin) * 10) / 10)} ms`;
  $("body").textContent = body;
}

function pretty(body) {
  try {
    return JSON.stringify(JSON.parse(body), null, 2);
  } catch {
    return body;
  }
}

function setPill(pill, text, mood) {
  if (pill.textContent !== text) pill.textContent = text; // an unchanged text must not be read aloud again
  pill.className = `pill ${mood}`;
}

// The counters

async function showStats() {
  try {
    const { strategy, ...figures } = await (await fetch("/stats", { cache: "no-store" })).json();
    if (strategy !== document.body.dataset.strategy) return location.reload(); // now another strategy runs on this port
    $("figures").replaceChildren(...Object.entries(figures).map(([name, value]) => row(name, value)));
    $("hint").hidden = !Object.values(figures).includes(null);
    setPill($("connection"), "running", "good");
  } catch {
    setPill($("connection"), "no answer", "warn");
  }
}

function row(name, value) {
  const line = document.createElement("div");
  const term = line.appendChild(document.createElement("dt"));
  const figure = line.appendChild(document.createElement("dd"));
  term.textContent = name.replaceAll("_", " ");
  figure.textContent = shown(value);
  figure.classList.toggle("unknown", value === null);
  return line;
}

function shown(value) {
  if (value === null) return "unknown";
  if (typeof value === "number") return number.format(value);
  if (typeof value === "boolean") return value ? "yes" : "no";
  return typeof value === "string" ? value : JSON.stringify(value);
}

async function watch() {
  if (!document.hidden) await showStats();
  setTimeout(watch, BETWEEN_STATS);
}

document.addEventListener("visibilitychange", () => document.hidden || showStats());

// To a browser "localhost" and "127.0.0.1" are different sites, and the inbox refuses requests from another site.
if ($("inbox") && location.hostname.endsWith("localhost")) {
  const link = new URL($("inbox").href);
  link.hostname = location.hostname;
  $("inbox").href = link;
}

watch();

// The inbox serves all six strategies on its own port, so the link tells it which page to link back to.
if ($("inbox")) {
  const link = new URL($("inbox").href);
  link.hash = new URLSearchParams({ back: location.origin }).toString();
  $("inbox").href = link;
}
