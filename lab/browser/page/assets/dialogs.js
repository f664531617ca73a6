// The dialogs: what to do to a process, the prediction, the result, and the help.

import { wordsOf } from "./lanes.js";

const dialog = document.getElementById("dialog");
const AMOUNTS = ["none", "some", "half or more"];
const EFFECTS = { lost: "How many will be lost?", twice: "How many will arrive twice?" };

/** The amount as a prediction names it: 0 none, 1 some, 2 half or more of the accepted emails. */
export const amountOf = (count, accepted) => (count === 0 ? 0 : 2 * count < Math.max(1, accepted) ? 1 : 2);

export const isOpen = () => dialog.open;

function element(name, text = "", properties = {}) {
  const made = Object.assign(document.createElement(name), properties);
  made.textContent = text;
  return made;
}

/** Show the dialog and resolve with the value of the button that closes it; "" for Escape. */
function open(title, small, ...content) {
  const heading = element("h2", title, { id: "dialog-title" });
  dialog.replaceChildren(heading, ...content);
  dialog.classList.toggle("small", small);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true }));
}

function actions(...buttons) {
  const row = element("p", "", { className: "actions" });
  row.append(...buttons.map(([value, text, primary]) => {
    const button = element("button", text, { value, type: "submit" });
    if (primary) button.className = "primary";
    if (!value) button.formNoValidate = true;
    return button;
  }));
  return row;
}

function form(...content) {
  const made = element("form", "", { method: "dialog" });
  made.append(...content);
  return made;
}

/** Ask what to do to a process. Resolves with {how, predict}; how is "" for nothing. */
export async function askWhat(lane, role, pid, frozen, canAdd) {
  const redis = role === "redis";
  const predict = element("input", "", { type: "checkbox", checked: localStorage.getItem("lab.predict") !== "no" });
  const label = element("label", "", { className: "inline" });
  label.append(predict, "let me predict the result first (the lab then stops the load and counts)");
  const choices = [["kill", "kill -9", true], ["term", "SIGTERM"], frozen ? ["thaw", "thaw"] : ["freeze", "freeze"]];
  if (canAdd) choices.push(["add", "add a second worker"]);
  const where = redis ? "lanes 4, 5 and 6 share it" : `lane ${lane}`;
  const what = form(element("p", pid ? `${where}, process ${pid}` : where, { className: "quiet" }), actions(...choices, ["", "nothing"]), label);
  const how = await open(wordsOf(role), true, what);
  localStorage.setItem("lab.predict", predict.checked ? "yes" : "no");
  return { how, predict: predict.checked && ["kill", "term", "freeze"].includes(how) };
}

/** Ask how many emails will be lost and arrive twice. Resolves with lane -> {lost, twice}, or null. */
export async function askPrediction(title, what, lanes) {
  const table = element("table");
  const head = table.createTHead().insertRow();
  for (const words of ["lane", ...Object.values(EFFECTS)]) head.append(element("th", words, { scope: "col" }));
  const body = table.createTBody();
  for (const { name, title: words } of lanes) {
    const row = body.insertRow();
    row.append(element("th", words, { scope: "row" }));
    for (const [effect, question] of Object.entries(EFFECTS)) {
      const cell = row.insertCell();
      cell.dataset.head = question;
      cell.append(choice(`${name}-${effect}`, `${words}: ${question}`));
    }
  }
  const asked = form(element("p", what), table, actions(["go", "Do it", true], ["", "not now"]));
  if ((await open(title, false, asked)) !== "go") return null;
  const given = new FormData(asked);
  return Object.fromEntries(lanes.map(({ name }) => [name, { lost: Number(given.get(`${name}-lost`)), twice: Number(given.get(`${name}-twice`)) }]));
}

function choice(name, label) {
  const group = element("span", "", { className: "choice" });
  group.setAttribute("role", "radiogroup");
  group.setAttribute("aria-label", label);
  AMOUNTS.forEach((words, amount) => {
    const option = element("label", words);
    option.prepend(element("input", "", { type: "radio", name, value: amount, checked: amount === 0 }));
    group.append(option);
  });
  return group;
}

/** Show the predictions beside what was measured. Resolves with "next", "again" or "". */
export function showResult(title, lanes, predictions, results, next) {
  const table = element("table");
  const head = table.createTHead().insertRow();
  for (const words of ["lane", "lost", "twice", "why"]) head.append(element("th", words, { scope: "col" }));
  const body = table.createTBody();
  let right = 0;
  for (const { name, title: words } of lanes) {
    const found = results[name];
    if (!found) continue;
    const row = body.insertRow();
    row.dataset.lane = name;
    row.append(element("th", words, { scope: "row" }));
    for (const effect of Object.keys(EFFECTS)) {
      const good = amountOf(found[effect], found.accepted) === predictions[name][effect];
      right += good;
      const cell = row.insertCell();
      cell.dataset.head = effect;
      cell.append(element("strong", `${found[effect]}`), ` of ${found.accepted} `, element("br"));
      cell.append(element("span", `${good ? "✓" : "✗"} you said ${AMOUNTS[predictions[name][effect]]}`, { className: `verdict ${good ? "good" : "bad"}` }));
    }
    const why = row.insertCell();
    why.className = "why";
    why.append(found.closed ? found.text : `The account did not close in time. ${found.text}`, " ", element("a", "Read more", { href: found.link.replace("127.0.0.1", location.hostname), target: "_blank", rel: "noopener" }));
  }
  const asked = 2 * body.rows.length;
  const verdict = element("p", `${right} of ${asked} predictions were right.`, { className: "right" });
  const buttons = next ? [["next", `Next: ${next}`, true], ["again", "Again"], ["", "Play freely"]] : [["", "Go on", true]];
  const closed = open(title, false, verdict, table, form(actions(...buttons)));
  return { right, asked, closed };
}

export function showHelp() {
  const keys = [
    ["Tab", "to reach every process and control"], ["Enter", "on a process: kill -9, SIGTERM, freeze, thaw"], ["b", "send 20 emails"],
    ["+ and -", "change the steady rate"], ["n", "the next experiment"], ["p", "pause the picture"], [".", "one step while it is paused"], ["?", "this help"],
  ];
  const list = element("table");
  for (const [key, words] of keys) {
    const row = list.insertRow();
    row.insertCell().append(element("kbd", key));
    row.insertCell().append(words);
  }
  return open("The lab", true,
    element("p", "Six programs send the same emails in six ways. They are real processes on this machine, and you can kill them. Every number comes from the callers' answers, the mail server's record and the strategies' own counters."),
    element("p", "An accepted email (the caller got a 2xx) is at every moment in exactly one of the columns: delivered, in flight, waiting, failed, not yet known, or lost. “Not yet known” becomes a number elsewhere when the lane is at rest."),
    list, form(actions(["", "Close", true])));
}
