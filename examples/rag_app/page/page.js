// The assistant's page. What documents and models wrote goes in as text nodes only: nothing of it is markup here.
import { draw, element, reasons, scores } from "./parts.js";

const $ = (id) => document.getElementById(id);
const button = (label, onclick, attributes = {}) => element("button", { type: "button", onclick, ...attributes }, label);
let before = []; // the questions of this conversation
let asking = null; // stops the answer that is being written

async function send(method, path, body, signal) {
  const json = body !== undefined && !(body instanceof Blob);
  let response;
  try {
    response = await fetch(path, { method, signal, headers: json ? { "Content-Type": "application/json" } : {}, body: json ? JSON.stringify(body) : body });
  } catch (error) {
    throw signal?.aborted ? error : new Error("The assistant does not answer. Is it still running?");
  }
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({}));
  throw new Error(answer.error?.message ?? `The assistant answered ${response.status}`);
}

/** The JSON lines of an answer as they come. */
async function* lines(response) {
  let held = "";
  for await (const piece of pieces(response.body.pipeThrough(new TextDecoderStream()).getReader())) {
    const parts = (held + piece).split("\n");
    held = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}

async function* pieces(reader) {
  for (let { done, value } = await reader.read(); !done; { done, value } = await reader.read()) yield value;
}

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

// ---------------------------------------------------------------------------------------- answers

async function ask(question) {
  asking?.abort();
  const mine = (asking = new AbortController());
  const answer = element("p", { class: "answer", dir: "auto" });
  const sources = element("ul", { class: "sources" });
  const turn = element("article", { class: "turn" }, element("p", { class: "asked", dir: "auto" }, question));
  $("hint")?.remove();
  $("turns").append(turn);
  $("new").hidden = false;
  turn.scrollIntoView({ block: "end" });
  say("Reading …");
  const filter = $("filter").value.trim() || null;
  const about = { question, passages: [] };
  const note = (text, bad = false) => answer.before(element("p", { class: bad ? "quiet bad" : "quiet", dir: "auto" }, text));
  turn.append(answer, sources);
  let done = false;
  try {
    for await (const event of lines(await send("POST", "ask", { question, before, filter }, mine.signal))) {
      if (event.type === "question") {
        about.question = event.text;
        if (event.text !== question) note(`Understood as: ${event.text}`);
      } else if (event.type === "passages") Object.assign(about, { passages: event.passages, request: { query: about.question, mode: event.mode, limit: event.limit, filter } });
      else if (event.type === "text") answer.append(event.text);
      else if (event.type === "citation") answer.append(button(String(event.number), () => open(about, event.number), { class: "cite", "aria-label": `Passage ${event.number}` }));
      else if (event.type === "notice") note(event.text, true);
      else if (event.type === "error") throw new Error(event.text);
      else if (event.type === "done") {
        done = true;
        finish(event, about, answer, sources);
      }
    }
    if (!done) throw new Error("The answer broke off.");
    before.push(question);
  } catch (error) {
    if (mine.signal.aborted) return;
    note(error.message, true);
    say("");
  }
}

function finish(event, about, answer, sources) {
  say(`${event.seconds} s`);
  const cited = (passage) => event.cited.includes(passage.number);
  if (!event.answered) answer.replaceChildren(element("strong", {}, "Not in the documents."), about.passages.length ? " These passages come closest:" : " There are none to look in yet, or the filter leaves none.");
  else if (!event.cited.length) answer.before(element("p", { class: "quiet bad" }, "This answer names no passage: it may not be from your documents."));
  const shown = event.answered && event.cited.length ? about.passages.filter(cited) : about.passages;
  sources.append(...shown.map((passage) => element("li", {}, button(`${passage.number}  ${passage.title}`, () => open(about, passage.number), { dir: "auto", class: cited(passage) ? null : "uncited" }))));
  sources.lastElementChild?.scrollIntoView({ block: "nearest" });
}

async function open({ question, passages, request }, number) {
  const passage = passages[number - 1];
  $("passage-title").textContent = `${number}  ${passage.title}`;
  $("passage-text").textContent = passage.text;
  $("judged").textContent = "";
  for (const [id, relevant] of [["yes", true], ["no", false]]) {
    $(id).setAttribute("aria-pressed", "false");
    $(id).onclick = () => judge(question, passage.id, relevant);
  }
  $("why").textContent = "…";
  $("document").replaceChildren();
  $("around").open = false;
  $("around").ontoggle = () => $("around").open && unfold(passage);
  $("passage").showModal();
  try {
    const answer = await (await send("POST", "v1/explain", request)).json();
    const hit = answer.hits.find(({ id }) => id === passage.id);
    if (!hit) return ($("why").textContent = "This passage is no longer found.");
    draw($("passage-text"), passage.text, hit.explanation);
    $("why").replaceChildren(scores(hit), ...reasons(hit.explanation));
  } catch (error) {
    $("why").textContent = error.message;
  }
}

async function unfold(passage) {
  try {
    const all = await (await send("POST", "v1/passages", { document_id: passage.document_id })).json();
    $("document").replaceChildren(...all.map(({ id, text }) => element("p", { class: id === passage.id ? "part here" : "part", dir: "auto" }, text)));
  } catch (error) {
    $("document").textContent = error.message;
  }
}

async function judge(question, passage, relevant) {
  try {
    await send("PUT", "judgements", { question, passage, relevant });
    $("yes").setAttribute("aria-pressed", String(relevant));
    $("no").setAttribute("aria-pressed", String(!relevant));
    $("judged").textContent = "Noted.";
  } catch (error) {
    $("judged").textContent = error.message;
  }
}

// -------------------------------------------------------------------------------------- documents

async function refresh() {
  try {
    const { model, files, fields } = await (await send("GET", "about")).json();
    const names = Object.keys(files);
    $("about").textContent = model ? `Answers by ${model}` : "Answers are sentences of the documents: no chat model is set";
    $("count").textContent = `${names.length} ${names.length === 1 ? "file" : "files"}`;
    $("held").replaceChildren(...names.map((name) => held(name, files[name])));
    const values = Object.entries(fields).flatMap(([field, all]) => all.map((value) => [field, value]));
    $("fields").replaceChildren(...values.map(([field, value]) => button(`${field}: ${value}`, () => narrow(`${field} == ${JSON.stringify(value)}`))));
  } catch (error) {
    say(error.message, true);
  }
}

function held(name, passages) {
  const remove = async () => {
    if (!confirm(`Delete ${name} from the folder?`)) return;
    await send("DELETE", `files?name=${encodeURIComponent(name)}`).catch((error) => say(error.message, true));
    refresh();
  };
  return element(
    "li",
    {},
    button(name, () => narrow(`file == ${JSON.stringify(name)}`), { class: "name", title: `Ask ${name} alone` }),
    element("span", { class: passages ? "quiet" : "quiet bad" }, passages ? String(passages) : "not read"),
    button("✕", remove, { class: "small", "aria-label": `Delete ${name}` }),
  );
}

/** Put a condition into the filter, or take it out again. */
function narrow(condition) {
  const all = $("filter").value.split(" and ").map((each) => each.trim()).filter(Boolean);
  const left = all.filter((each) => each !== condition);
  $("filter").value = (left.length < all.length ? left : [...all, condition]).join(" and ");
}

/** One file after the other, each with its progress and what it lost. */
async function take(files) {
  for (const [line, bar, said, file] of [...files].map(coming)) {
    try {
      for await (const event of lines(await send("PUT", `files?name=${encodeURIComponent(file.name)}`, file))) {
        if (event.error) throw new Error(event.error);
        if (event.stage) said.textContent = ` ${event.stage}: ${event.done}`;
        else {
          said.textContent = event.documents ? ` ${event.documents} ${event.documents === 1 ? "document" : "documents"}` : " not taken";
          line.append(...event.problems.map((text) => element("div", { class: "bad" }, text)));
        }
      }
    } catch (error) {
      line.append(element("div", { class: "bad" }, error.message));
    }
    bar.remove();
  }
  refresh();
}

function coming(file) {
  const bar = element("progress", { "aria-label": file.name });
  const said = element("span", { class: "quiet" }, " waiting");
  const line = element("li", {}, file.name, said, bar);
  $("coming").append(line);
  return [line, bar, said, file];
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = $("question").value.trim();
  $("question").value = "";
  if (question) ask(question);
});
$("new").addEventListener("click", () => {
  asking?.abort();
  before = [];
  $("turns").replaceChildren();
  $("new").hidden = true;
  say("");
  $("question").focus();
});
$("files").addEventListener("change", (event) => take(event.target.files));
for (const kind of ["dragover", "drop", "dragleave"])
  document.addEventListener(kind, (event) => {
    event.preventDefault(); // a file that misses must not replace the page
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files);
  });
if (matchMedia("(max-width: 48rem)").matches) $("side").open = false;
refresh();
$("question").focus();
