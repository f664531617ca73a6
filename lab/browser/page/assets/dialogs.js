// The dialogs: what to do to a process, the prediction, the result, and the help.

import { wordsOf } from "./lanes.js";

const dialog = document.getElementById("dialog");
const ACTS = {
  kill: ["kill -9", "The process ends at once and cannot clean up."],
  term: ["SIGTERM", "The process finishes its current work, then stops."],
  freeze: ["freeze", "The process is suspended (SIGSTOP) until you thaw it."],
  thaw: ["thaw", "The process continues (SIGCONT)."],
  add: ["add a second worker", "A second worker process starts."],
};
const EFFECTS = { lost: "How many will be lost?", twice: "How many will arrive twice?" };

/** A count as a prediction names it: 0 none, 1 some, 2 half of the emails or more. */
export const amountOf = (count, emails) => (count === 0 ? 0 : 2 * count < Math.max(1, emails) ? 1 : 2);

/** The words for these amounts. `emails`: of the experiment; undefined if their number is not known before. */
const amountsOf = (emails) => (emails ? ["none", `1 to ${Math.ceil(emails / 2) - 1}`, `${Math.ceil(emails / 2)} or more`] : ["none", "fewer than half", "half or more"]);

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
  const before = document.activeElement;
  const lane = before.closest("article");
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => {
    if (!before.isConnected) (lane?.querySelector(".processes button") ?? document.getElementById("burst")).focus();
    resolve(dialog.returnValue);
  }, { once: true }));
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
  label.append(predict, "let me predict the result first (the lab then stops sending and counts)");
  const choices = element("div", "", { className: "acts" });
  for (const act of ["kill", "term", frozen ? "thaw" : "freeze", ...(canAdd ? ["add"] : [])]) {
    const [words, effect] = ACTS[act];
    const button = element("button", words, { value: act, type: "submit" });
    button.setAttribute("aria-describedby", `act-${act}`);
    choices.append(button, element("span", effect, { id: `act-${act}` }));
  }
  choices.firstElementChild.className = "primary";
  const where = redis ? "lanes 4, 5 and 6 share it" : `lane ${lane}`;
  const what = form(element("p", pid ? `${where}, process ${pid}` : where, { className: "quiet" }), choices, label, actions(["", "Cancel"]));
  const how = await open(wordsOf(role), true, what);
  localStorage.setItem("lab.predict", predict.checked ? "yes" : "no");
  return { how, predict: predict.checked && ["kill", "term", "freeze"].includes(how) };
}

/**
 * Ask how many emails will be lost and arrive twice. Resolves with lane -> {lost, twice}, or null. Each is an amount, or
 * null if the user left the question open. `emails` as in amountsOf.
 */
export async function askPrediction(title, what, lanes, emails) {
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
      cell.append(choice(`${name}-${effect}`, `${words}: ${question}`, amountsOf(emails)));
    }
  }
  const free = element("p", "You can leave questions open. Only the answers that you choose count.", { className: "quiet" });
  const asked = form(element("p", what), free, table, actions(["go", "Do it", true], ["", "Cancel"]));
  if ((await open(title, false, asked)) !== "go") return null;
  const given = new FormData(asked);
  const amount = (name) => (given.has(name) ? Number(given.get(name)) : null);
  return Object.fromEntries(lanes.map(({ name }) => [name, { lost: amount(`${name}-lost`), twice: amount(`${name}-twice`) }]));
}

function choice(name, label, amounts) {
  const group = element("span", "", { className: "choice" });
  group.setAttribute("role", "radiogroup");
  group.setAttribute("aria-label", label);
  amounts.forEach((words, amount) => {
    const option = element("label", words);
    option.prepend(element("input", "", { type: "radio", name, value: amount }));
    group.append(option);
  });
  return group;
}

/** Show the predictions beside what was measured. Resolves with "next", "again" or "". */
export function showResult(title, lanes, predictions, results, next, emails) {
  const table = element("table");
  const head = table.createTHead().insertRow();
  for (const words of ["lane", "lost", "twice", "why"]) head.append(element("th", words, { scope: "col" }));
  const body = table.createTBody();
  let [right, asked] = [0, 0];
  for (const { name, title: words } of lanes) {
    const found = results[name];
    if (!found) continue;
    const row = body.insertRow();
    row.dataset.lane = name;
    row.append(element("th", words, { scope: "row" }));
    for (const effect of Object.keys(EFFECTS)) {
      const said = predictions[name][effect];
      const good = said === amountOf(found[effect], emails ?? found.accepted);
      const cell = row.insertCell();
      cell.dataset.head = effect;
      cell.append(element("strong", `${found[effect]}`), ` of ${found.accepted} `, element("br"));
      if (said === null) continue;
      [right, asked] = [right + good, asked + 1];
      cell.append(element("span", `${good ? "✓" : "✗"} you said ${amountsOf(emails)[said]}`, { className: `verdict ${good ? "good" : "bad"}` }));
    }
    const why = row.insertCell();
    why.className = "why";
    why.append(found.closed ? found.text : `The numbers did not add up in time. ${found.text}`, " ", element("a", "Read more", { href: found.link.replace("127.0.0.1", location.hostname), target: "_blank", rel: "noopener" }));
  }
  const verdict = element("p", asked ? `${right} of ${asked} predictions were right.` : "You made no prediction this time.", { className: "right" });
  verdict.append(" ", element("span", "“1 of 40” means: of the 40 emails that the lane accepted, 1.", { className: "quiet" }));
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
    element("p", "At every moment, an accepted email (the caller got a 2xx) is in exactly one of the columns: delivered, in flight, waiting, failed, not yet known, or lost. When nothing changes any more, the lab moves the “not yet known” emails to another column. “✓ adds up” means that nothing changes any more, and that the strategy's own counters agree."),
    list, form(actions(["", "Close", true])));
}
