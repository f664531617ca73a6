// Uploads, changes and deletes without leaving the page, and keeps the list as the server has it.

const JSON_ANSWER = { Accept: "application/json" };
const PILLS = { ready: "pill good", failed: "pill warn" };

/** Send a request; returns the answer's JSON. Throws an Error with the server's reason. */
async function send(method, url, body, headers = {}) {
  let answer;
  try {
    answer = await fetch(url, { method, body, headers: { ...JSON_ANSWER, ...headers } });
  } catch {
    throw new Error("the server does not answer");
  }
  const json = answer.status === 204 ? null : await answer.json();
  if (!answer.ok) throw new Error(json.error.reason);
  return json;
}

function say(text, isProblem = false) {
  const line = document.querySelector(".said");
  line.textContent = text;
  line.classList.toggle("problem", isProblem);
}

/** Do the work while the form's buttons are disabled, and say what went wrong. */
function onSubmit(selector, work) {
  const form = document.querySelector(selector);
  form?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    try {
      await work(form);
    } catch (error) {
      say(error.message, true);
    } finally {
      button.disabled = false;
    }
  });
}

function checkSize(file, form) {
  if (file.size > form.dataset.max) throw new Error(`${file.name}: the file is too large`);
}

onSubmit("#upload", async (form) => {
  const files = [...form.elements.file.files];
  const problems = [];
  let done = 0;
  for (const file of files) {
    say(`Uploading ${file.name} …`);
    try {
      checkSize(file, form);
      const body = new FormData();
      body.append("file", file);
      await send("POST", "/files", body);
      done += 1;
    } catch (error) {
      problems.push(error.message.startsWith(file.name) ? error.message : `${file.name}: ${error.message}`);
    }
  }
  form.reset();
  if (problems.length) throw new Error(problems.join("; "));
  say(done === 1 ? `Uploaded ${files[0].name}` : `Uploaded ${done} pictures`);
});

const picture = document.querySelector("#picture");

onSubmit("#rename", async (form) => {
  const body = JSON.stringify({ name: form.elements.name.value });
  const changed = await send("PUT", picture.dataset.url, body, { "Content-Type": "application/json" });
  document.title = changed.name;
  document.querySelector("h1 bdi").textContent = changed.name;
  form.elements.name.value = changed.name;
  say("Renamed");
});

onSubmit("#replace", async (form) => {
  checkSize(form.elements.file.files[0], form);
  const body = new FormData(form);
  await send("PUT", picture.dataset.url, body);
  location.reload();
});

onSubmit("#delete", async () => {
  if (!confirm("Delete this picture?")) return;
  await send("DELETE", picture.dataset.url);
  location.assign("/files");
});

/** Make the item of one picture, or change it where it differs, so that the focus stays where it is. */
function show(item, file) {
  if (item.dataset.shown === JSON.stringify(file)) return;
  item.dataset.shown = JSON.stringify(file);
  const [frame, name] = [item.querySelector(".frame"), item.querySelector(".name")];
  const [pill, reason] = [item.querySelector(".pill"), item.querySelector(".reason")];
  item.querySelector("a").href = file.url;
  name.textContent = file.name;
  pill.textContent = file.state;
  pill.className = PILLS[file.state] ?? "pill";
  reason.textContent = file.reason;
  if (frame.firstElementChild?.getAttribute("src") === file.thumbnail) return;
  frame.replaceChildren();
  if (file.thumbnail) frame.append(Object.assign(new Image(), { src: file.thumbnail, alt: "" }));
}

function newItem(id) {
  const item = document.createElement("li");
  item.className = "card";
  item.dataset.id = id;
  item.innerHTML = `<a><span class="frame"></span><bdi class="name"></bdi></a><span></span><small class="reason"></small>`;
  item.children[1].className = "pill";
  return item;
}

function showList(list, files) {
  const items = new Map([...list.children].map((item) => [item.dataset.id, item]));
  const wanted = new Set(files.map((file) => file.id));
  for (const [id, item] of items) if (!wanted.has(id)) item.remove();
  let place = list.firstElementChild;
  for (const file of files) {
    const item = items.get(file.id) ?? newItem(file.id);
    show(item, file);
    if (item === place) place = place.nextElementSibling;
    else list.insertBefore(item, place);
  }
  document.querySelector(".note").hidden = files.length > 0;
}

function showProblem(text) {
  const line = document.querySelector("main > .problem");
  if (!line) return;
  line.textContent = text;
  line.hidden = !text;
}

const live = document.querySelector("[data-live]");
if (live) {
  const events = new EventSource(live.dataset.live);
  events.onerror = () => showProblem("The server does not answer; trying again.");
  events.onmessage = ({ data }) => {
    const { files, problem } = JSON.parse(data);
    showProblem(problem ?? "");
    if (!files) return;
    if (!picture) return showList(live, files);
    const file = files.find(({ id }) => id === picture.dataset.id);
    if (file && file.state !== picture.dataset.state) location.reload();
  };
}
