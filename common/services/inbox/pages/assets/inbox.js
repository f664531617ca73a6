// The inbox's page. The server tells the counts when they have changed (at most ten times a second); the list is then
// fetched, at most about twice a second and never twice at a time, however much mail arrives. All that comes from
// emails is set as text, never as HTML.

const NEWEST = 50;
const BETWEEN_LISTS = 400; // ms
const BETWEEN_CONNECTIONS = 2000; // ms

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const time = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23",
});
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// The way back to the strategy whose link led here; only to another port of the same host

const back = new URLSearchParams(location.hash.slice(1)).get("back");
if (back !== null && URL.canParse(back) && new URL(back).hostname === location.hostname && /^https?:/.test(back)) {
  $("back").href = new URL("/", back);
  $("back").hidden = false;
}

// The connection

function connect() {
  const events = new EventSource("/api/events");
  events.onopen = () => {
    say($("connection"), "live", "good");
    showFaults();
  };
  events.onmessage = (event) => {
    showStats(JSON.parse(event.data));
    refresh();
  };
  events.onerror = () => {
    say($("connection"), "no connection, trying again", "warn");
    if (events.readyState === EventSource.CLOSED) setTimeout(connect, BETWEEN_CONNECTIONS); // else the browser tries
  };
}

function say(pill, text, mood) {
  if (pill.textContent !== text) pill.textContent = text; // a screen reader would read it out again
  pill.className = `pill ${mood}`;
}

function showStats(stats) {
  for (const name of ["received", "unique", "duplicates"]) $(name).textContent = number.format(stats[name]);
  $("duplicates").classList.toggle("warn", stats.duplicates > 0);
}

// The list

const items = new Map(); // Message-ID -> its <li>
let stale = false;
let busy = false;
let held = false;

async function refresh() {
  stale = true;
  if (busy) return;
  busy = true;
  while (stale && !held && !document.hidden) {
    stale = false;
    try {
      show(await fetchJson(`/api/messages?limit=${NEWEST}`));
    } catch {
      stale = true; // the next event asks again
      break;
    }
    await sleep(BETWEEN_LISTS);
  }
  busy = false;
}

function show(messages) {
  const newest = messages.map((message) => {
    const item = items.get(message.message_id) ?? newItem(message);
    update(item, message);
    return item;
  });
  // What is being read stays, even when it is no longer among the newest, until the inbox is empty.
  const read = messages.length ? [...items.values()].filter((item) => isOpen(item) && !newest.includes(item)) : [];
  arrange([...newest, ...read]);
  $("nothing").hidden = messages.length > 0;
}

const isOpen = (item) => item.firstElementChild.open;

function newItem(message) {
  const item = $("message").content.cloneNode(true).firstElementChild;
  item.dataset.id = message.message_id;
  items.set(message.message_id, item);
  return item;
}

function update(item, message) {
  if (item.dataset.arrival === message.received_at && item.dataset.copies === String(message.copies)) return;
  item.dataset.arrival = message.received_at;
  item.dataset.copies = message.copies;
  for (const name of ["from", "to", "subject", "message_id", "text"]) {
    for (const place of item.getElementsByClassName(name)) place.textContent = message[name];
  }
  const arrival = new Date(message.received_at);
  item.querySelector("time").textContent = time.format(arrival);
  item.querySelector("time").dateTime = message.received_at;
  const copies = item.querySelector(".copies");
  copies.hidden = message.copies < 2;
  copies.textContent = `${number.format(message.copies)} copies`;
}

/** Make the list hold exactly these, moving as few as possible: one that is moved would lose the focus. */
function arrange(wanted) {
  const keep = new Set(wanted);
  for (const [id, item] of items) {
    if (!keep.has(item)) {
      item.remove();
      items.delete(id);
    }
  }
  let cursor = $("messages").firstElementChild;
  for (const item of wanted) {
    if (item === cursor) cursor = cursor.nextElementSibling;
    else $("messages").insertBefore(item, cursor);
  }
}

$("pause").addEventListener("click", () => {
  held = !held;
  $("pause").setAttribute("aria-pressed", held);
  refresh();
});

$("empty").addEventListener("click", async () => {
  try {
    showStats(await fetchJson("/api/messages", { method: "DELETE" }));
    show([]);
  } catch (error) {
    say($("connection"), `not emptied: ${error.message}`, "warn");
  }
});

// The dial of faults. Rates are per cent on the page and from 0 to 1 in the API.

const RATES = ["refuse_rate", "hang_rate", "lose_reply_rate"];
const WHOLE = ["latency_ms", "greylist_seconds", "messages_per_session"];
const NO_FAULTS = Object.fromEntries([...WHOLE, ...RATES].map((name) => [name, 0]));

async function showFaults() {
  if ($("faults").contains(document.activeElement)) return; // the user is changing it
  try {
    fillFaults(await fetchJson("/api/faults"));
  } catch {
    // the state of the connection says it
  }
}

function fillFaults(faults) {
  for (const name of WHOLE) $(name).value = faults[name];
  $("refuse_code").value = faults.refuse_code;
  for (const rate of RATES) $(rate).value = Number((faults[rate] * 100).toFixed(4));
  const active = [...WHOLE, ...RATES].some((name) => faults[name] > 0);
  say($("dial-state"), active ? "on" : "none", active ? "warn" : "good");
}

async function turn(faults) {
  try {
    fillFaults(await fetchJson("/api/faults", { method: "PUT", body: JSON.stringify(faults) }));
    $("faults-answer").textContent = "In force.";
  } catch (error) {
    $("faults-answer").textContent = error.message;
  }
}

$("faults").addEventListener("submit", (event) => {
  event.preventDefault();
  const faults = { refuse_code: Number($("refuse_code").value) };
  for (const name of WHOLE) faults[name] = Number($(name).value);
  for (const rate of RATES) faults[rate] = Number($(rate).value) / 100;
  turn(faults);
});
$("faults").addEventListener("input", () => ($("faults-answer").textContent = ""));
$("no-faults").addEventListener("click", () => turn(NO_FAULTS));

/** The JSON answer. Throws an Error with the server's reason. */
async function fetchJson(url, options = {}) {
  const response = await fetch(url, { cache: "no-store", ...options });
  const body = await response.json();
  if (!response.ok) throw new Error([body.error.field, body.error.reason].filter(Boolean).join(": "));
  return body;
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  refresh();
  showFaults();
});
connect();
