// The inbox's page. The server sends the counts when they have changed (at most ten times a second). The page then
// fetches the list, at most about twice a second and one request at a time. Everything that comes from an email is set
// as text, never as HTML.

const NEWEST = 50;
const BETWEEN_LISTS = 400; // ms
const BETWEEN_CONNECTIONS = 2000; // ms

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const time = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23",
});
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// The link back to the strategy whose page led here: only to another port of the same host

const back = new URLSearchParams(location.hash.slice(1)).get("back");
if (back !== null && URL.canParse(back) && new URL(back).hostname === location.hostname && /^https?:/.test(back)) {
  $("back").href = new URL("/", back);
  $("back").hidden = false;
}

// The connection

function connect() {
  const events = new EventSource("/api/events");
  events.onopen = () => {
    setPill($("connection"), "live", "good");
    showFaults();
  };
  events.onmessage = (event) => {
    showStats(JSON.parse(event.data));
    refresh();
  };
  events.onerror = () => {
    setPill($("connection"), "no connection, trying again", "warn");
    if (events.readyState === EventSource.CLOSED) setTimeout(connect, BETWEEN_CONNECTIONS); // else the browser retries
  };
}

function setPill(pill, text, mood) {
  if (pill.textContent !== text) pill.textContent = text; // an unchanged text must not be read aloud again
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
let paused = false;

async function refresh() {
  stale = true;
  if (busy) return;
  busy = true;
  while (stale && !paused && !document.hidden) {
    stale = false;
    try {
      show(await fetchJson(`/api/messages?limit=${NEWEST}`));
    } catch {
      stale = true; // the next event fetches again
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
  // An email that the user has opened stays in the list when it is no longer among the newest, until the inbox is empty.
  const opened = messages.length ? [...items.values()].filter((item) => isOpen(item) && !newest.includes(item)) : [];
  arrange([...newest, ...opened]);
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

/** Make the list contain exactly these items. It moves as few as possible, because a moved item loses the focus. */
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
  paused = !paused;
  $("pause").setAttribute("aria-pressed", paused);
  refresh();
});

$("empty").addEventListener("click", async () => {
  try {
    showStats(await fetchJson("/api/messages", { method: "DELETE" }));
    show([]);
  } catch (error) {
    setPill($("connection"), `not emptied: ${error.message}`, "warn");
  }
});

// The faults. Rates are percentages on the page and numbers from 0 to 1 in the API.

const RATES = ["refuse_rate", "hang_rate", "lose_reply_rate"];
const WHOLE = ["latency_ms", "greylist_seconds", "messages_per_session"];
const NO_FAULTS = Object.fromEntries([...WHOLE, ...RATES].map((name) => [name, 0]));

async function showFaults() {
  if ($("faults").contains(document.activeElement)) return; // the user is editing the form
  try {
    fillFaults(await fetchJson("/api/faults"));
  } catch {
    // the pill shows that there is no connection
  }
}

function fillFaults(faults) {
  for (const name of WHOLE) $(name).value = faults[name];
  $("refuse_code").value = faults.refuse_code;
  for (const rate of RATES) $(rate).value = Number((faults[rate] * 100).toFixed(4));
  const active = [...WHOLE, ...RATES].some((name) => faults[name] > 0);
  setPill($("dial-state"), active ? "on" : "none", active ? "warn" : "good");
}

async function turn(faults) {
  try {
    fillFaults(await fetchJson("/api/faults", { method: "PUT", body: JSON.stringify(faults) }));
    $("faults-answer").textContent = "Applied.";
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
