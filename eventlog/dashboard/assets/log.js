// The page of the log. The server sends the state after each change. Buttons send a POST with the token of this page. All
// data of the log is shown as text, never as HTML.

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const BETWEEN_CONNECTIONS = 2000; // ms

// The connection

function connect() {
  const events = new EventSource("/log/events");
  events.onopen = () => say($("connection"), "live", "good");
  events.onmessage = (event) => {
    const state = JSON.parse(event.data);
    if (state.error) return say($("connection"), state.error, "warn");
    say($("connection"), "live", "good");
    show(state);
  };
  events.onerror = () => {
    say($("connection"), "disconnected, reconnecting", "warn");
    if (events.readyState === EventSource.CLOSED) setTimeout(connect, BETWEEN_CONNECTIONS); // otherwise the browser reconnects
  };
}

function say(pill, text, mood) {
  if (pill.textContent !== text) pill.textContent = text; // setting the same text would make a screen reader repeat it
  pill.classList.toggle("good", mood === "good");
  pill.classList.toggle("warn", mood === "warn");
}

// The state

function show({ now, events, older, limits, partitions, consumers, audit }) {
  $("empty").hidden = partitions.length > 0;
  $("totals").textContent = `${number.format(events)} events in total`;
  $("older").hidden = older === 0;
  $("older").textContent = `${number.format(older)} older events are not shown, or were trimmed.`;
  $("legend").hidden = partitions.length === 0;
  $("legend-sealed").hidden = !limits;
  $("legend-open").textContent = limits
    ? `open partition: its bar is full after ${ago(limits[0])} or ${number.format(limits[1])} events, and the next append seals it`
    : "the stream: it is one partition, which is never sealed";
  const longest = Math.max(1, ...partitions.map((partition) => (partition.sealed ? partition.length : 0)));
  const share = (partition) => (partition.sealed ? partition.length / longest : used(partition, limits, now));
  const bars = partitions.map((partition) => bar(partition, share(partition), now, consumers, events));
  $("partition-list").replaceChildren(...bars.toReversed());
  showConsumers(consumers);
  $("audit").replaceChildren(...rows(Object.entries(audit)));
}

/** How full an open partition is, from 0 to 1: by its age or by its length, whichever is larger. */
function used(partition, limits, now) {
  if (!limits) return 1;
  return Math.min(1, Math.max((now - partition.opened) / limits[0], partition.length / limits[1]));
}

function bar(partition, share, now, consumers, events) {
  const item = $("bar").content.firstElementChild.cloneNode(true);
  item.classList.toggle("open", !partition.sealed);
  part(item, "when").textContent = time(partition.opened);
  part(item, "fill").style.width = `${100 * share}%`;
  const what = [`${number.format(partition.length)} events`, bytes(partition.bytes), `${ago(now - partition.opened)} old`];
  part(item, "what").textContent = [...what, partition.sealed ? "sealed" : "open"].join(" · ");
  const here = consumers.filter((consumer) => partitionOf(consumer.position, partition));
  const byPlace = Map.groupBy(here, (consumer) => 100 * share * placeOf(consumer, partition, events));
  part(item, "ticks").replaceChildren(...[...byPlace.keys()].map(tick));
  part(item, "cursors").replaceChildren(...[...byPlace].map(([percent, group]) => flags(percent, group, partition.number === "stream")));
  return item;
}

/** The place of a consumer in a partition, from 0 to 1. Positions in a stream do not count events, so for a stream the
 * place is computed from the number of events after it. */
function placeOf(consumer, partition, events) {
  const done = partition.number === "stream"
    ? events - consumer.waiting - consumer.pending - partition.first
    : Number(consumer.position.split("-")[1]);
  return partition.length ? Math.min(1, Math.max(0, done / partition.length)) : 0;
}

function tick(percent) {
  const mark = document.createElement("i");
  mark.style.left = `${percent}%`;
  return mark;
}

function flags(percent, consumers, inStream) {
  const group = document.createElement("span");
  group.style.left = `${percent}%`;
  group.style.transform = `translateX(-${percent}%)`; // keeps the group within the page at both ends
  group.append(...consumers.map((consumer) => flag(consumer, inStream)));
  return group;
}

/** Whether a position is in this partition. The log on Streams has only one. */
const partitionOf = (position, partition) =>
  position !== undefined && (partition.number === "stream" || position.split("-")[0] === partition.number);

function flag(consumer, inStream) {
  const pill = document.createElement("span");
  pill.className = "pill";
  pill.textContent = inStream ? consumer.name : `${consumer.name} at ${consumer.position.split("-")[1]}`;
  return pill;
}

const cards = new Map(); // name -> card: cards are updated in place, so that your input stays

function showConsumers(consumers) {
  const shown = consumers.map((consumer) => {
    const card = cards.get(consumer.name) ?? newCard(consumer.name);
    update(card, consumer);
    return card;
  });
  for (const [name, card] of cards) if (!shown.includes(card)) cards.delete(name);
  const box = $("consumers");
  if (shown.length !== box.children.length || shown.some((card, at) => box.children[at] !== card)) box.replaceChildren(...shown);
}

function newCard(name) {
  const card = $("consumer").content.firstElementChild.cloneNode(true);
  part(card, "name").textContent = name;
  part(card, "replay").addEventListener("submit", (event) => {
    event.preventDefault();
    post("replay", { consumer: name, from: startOf(event.target.elements.from.value.trim()) });
  });
  part(card, "all").addEventListener("click", () => post("retry", { consumer: name }));
  part(card, "none").addEventListener("click", () => discard(`all parked events of ${name}`, { consumer: name }));
  part(card, "replay").elements.from.title = "beginning, end, a position (1764061234567-12), a time (2026-11-25 09:00)";
  cards.set(name, card);
  return card;
}

function update(card, consumer) {
  const lag = (consumer.waiting ?? 0) + (consumer.pending ?? 0);
  part(card, "trouble").hidden = !consumer.error;
  part(card, "trouble").textContent = consumer.error ?? "";
  say(part(card, "mood"), consumer.error ? "unknown" : lag ? `${number.format(lag)} behind` : "up to date", lag || consumer.error ? "warn" : "good");
  if (consumer.error) return;
  part(card, "table").replaceChildren(
    ...rows([
      ["cursor", consumer.position],
      ["waiting", consumer.waiting],
      ["in flight or waiting for a retry", consumer.pending],
      ["next attempt", consumer.next_attempt_seconds === null ? "–" : `in ${ago(consumer.next_attempt_seconds)}`],
      ["age of the oldest", consumer.oldest_seconds ? ago(consumer.oldest_seconds) : "–"],
      ["handled", consumer.handled],
      ["parked", consumer.parked],
      ["lost by trimming", consumer.overtaken],
    ]),
  );
  showParked(part(card, "parked-events"), consumer);
}

function showParked(parkedEvents, consumer) {
  parkedEvents.hidden = consumer.parked_events.length === 0;
  const list = parkedEvents.querySelector("ol");
  const state = JSON.stringify(consumer.parked_events);
  if (list.dataset.state === state) return; // details that you opened stay open
  list.dataset.state = state;
  list.replaceChildren(...consumer.parked_events.map((parked) => entry(consumer.name, parked)));
}

function entry(name, parked) {
  const item = $("parked").content.firstElementChild.cloneNode(true);
  part(item, "position").textContent = parked.position;
  part(item, "reason").textContent = parked.reason;
  part(item, "about").textContent = `parked at ${time(parked.at)} after ${parked.attempts} attempt(s)`;
  part(item, "element").textContent = parked.element;
  const again = part(item, "again");
  again.disabled = parked.again;
  again.textContent = parked.again ? "retrying" : "Retry";
  const one = { consumer: name, position: parked.position };
  again.addEventListener("click", () => post("retry", one));
  part(item, "discard").addEventListener("click", () => discard(parked.position, one));
  return item;
}

function rows(pairs) {
  return pairs.map(([name, value]) => {
    const line = document.createElement("div");
    line.appendChild(document.createElement("dt")).textContent = name;
    line.appendChild(document.createElement("dd")).textContent = typeof value === "number" ? number.format(value) : (value ?? "not known");
    return line;
  });
}

const part = (node, name) => node.querySelector(`.${name}`);

function bytes(count) {
  if (count < 1000) return `${count} B`;
  return count < 1e6 ? `${(count / 1e3).toFixed(1)} kB` : `${(count / 1e6).toFixed(1)} MB`;
}

/** The time of day of unix seconds; a dash for invalid data. */
function time(seconds) {
  const date = new Date(seconds * 1000);
  return seconds === null || Number.isNaN(date.getTime()) ? "–" : clock.format(date);
}

function ago(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 120) return `${s} s`;
  return s < 7200 ? `${Math.round(s / 60)} min` : `${Math.round(s / 3600)} h`;
}

// Changes

/** Converts a local date and time to unix seconds. Sends other text unchanged; the server checks it. */
function startOf(text) {
  const time = /^\d{4}-\d\d-\d\d/.test(text) ? Date.parse(text.replace(" ", "T")) : NaN;
  return Number.isNaN(time) ? text : String(time / 1000);
}

$("trim").addEventListener("submit", (event) => {
  event.preventDefault();
  post("trim", Object.fromEntries(new FormData(event.target)));
});

function discard(what, fields) {
  if (confirm(`Discard ${what}? You cannot undo this.`)) post("discard", fields);
}

async function post(what, fields) {
  try {
    const headers = { "X-Token": document.body.dataset.token };
    const response = await fetch(`/log/${what}`, { method: "POST", headers, body: new URLSearchParams(fields) });
    const answer = await response.json();
    say($("done"), answer.done ?? answer.error.reason, response.ok ? "good" : "warn");
  } catch (error) {
    say($("done"), String(error.message), "warn");
  }
}

const begin = JSON.parse($("state").textContent); // null while Redis is down
if (begin) show(begin);
connect();
