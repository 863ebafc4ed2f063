// The search page. Texts go into the page as text nodes only: nothing of a document is markup here.
import { draw, element, reasons, scores } from "./parts.js";

const $ = (id) => document.getElementById(id);
const MODES = ["dense", "sparse", "multivector", "hybrid", "all"];
let key = sessionStorage.getItem("m3connect-key") ?? "";
let collections = [];
let asked = 0; // only the newest search may write its answer

async function call(path, body) {
  const headers = { "Content-Type": "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers });
  } catch {
    throw new Error("The service does not answer. Is it still running?");
  }
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  if (response.status === 401) $("key-line").hidden = false;
  throw new Error(answer.error?.message ?? answer.error ?? `The service answered ${response.status}`);
}

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

async function start() {
  try {
    collections = await call("v1/collections");
  } catch (error) {
    return say(error.message, true);
  }
  $("collection").replaceChildren(...collections.map(({ name }) => element("option", { value: name }, name)));
  describe();
  const given = new URLSearchParams(location.hash.slice(1));
  for (const name of ["query", "mode", "filter", "limit", "collection"]) if (given.get(name)) $(name).value = given.get(name);
  if (given.get("query")) search();
}

function describe() {
  const chosen = collections.find(({ name }) => name === $("collection").value);
  if (!chosen) return;
  if (chosen.error) return say(chosen.error, true);
  $("about").textContent = `${chosen.records.toLocaleString()} passages, ${chosen.legs.join(" + ")}, ${chosen.model ?? "unknown model"}`;
  const fields = Object.entries(chosen.fields);
  $("fields").replaceChildren(...fields.map(([name, kind]) => element("button", { type: "button", title: kind, onclick: () => addFilter(name, kind) }, name)));
}

function addFilter(name, kind) {
  const value = { keyword: '""', boolean: "true", datetime: "2024-01-01" }[kind] ?? "0";
  const operator = kind === "keyword" || kind === "boolean" ? "==" : ">=";
  const input = $("filter");
  input.value += `${input.value.trim() ? " and " : ""}${name} ${operator} ${value}`;
  input.focus();
  if (value === '""') input.setSelectionRange(input.value.length - 1, input.value.length - 1);
}

async function search() {
  const mine = ++asked;
  const mode = $("mode").value;
  const request = { query: $("query").value, collection: $("collection").value || null, filter: $("filter").value.trim() || null, limit: Number($("limit").value) };
  history.replaceState(null, "", `#${new URLSearchParams({ query: request.query, mode, filter: request.filter ?? "", limit: request.limit, collection: request.collection ?? "" })}`);
  say("Searching …");
  const modes = mode === "compare" ? MODES : [mode];
  const started = performance.now();
  const answers = await Promise.allSettled(modes.map((one) => call("v1/search", { ...request, mode: one })));
  if (mine !== asked) return;
  const failed = answers.find(({ status }) => status === "rejected");
  if (failed && answers.every(({ status }) => status === "rejected")) {
    $("results").replaceChildren();
    return say(failed.reason.message, true);
  }
  $("results").classList.toggle("compare", modes.length > 1);
  $("results").replaceChildren(
    ...answers.map((answer, column) => {
      const list = answer.status === "fulfilled" ? element("ol", { class: "hits" }, ...answer.value.hits.map((hit) => card(hit, { ...request, mode: modes[column] }, modes.length > 1))) : element("p", {}, answer.reason.message);
      return modes.length > 1 ? element("section", { class: "mode" }, element("h2", {}, modes[column]), list) : list;
    }),
  );
  const count = answers[0].value?.hits.length ?? 0;
  const none = request.filter ? "No hits. Does the filter leave anything?" : "No hits.";
  say(count ? `${count} hits in ${Math.round(performance.now() - started)} ms` : none);
}

function card(hit, request, small) {
  const text = element("p", { class: "text", dir: "auto" }, hit.text ?? "");
  const why = element("div", { class: "why" });
  const heading = `${hit.rank}. ${hit.metadata.title ?? hit.document_id ?? hit.id}`;
  return element(
    "li",
    { class: "hit", tabindex: "0" },
    element("h2", { dir: "auto" }, heading, " ", element("span", { class: "quiet" }, hit.score.toFixed(3))),
    text,
    small ? null : scores(hit),
    element(
      "div",
      { class: "actions" },
      element("button", { type: "button", onclick: () => explain(hit, request, text, why) }, "Why?"),
      hit.document_id ? element("button", { type: "button", onclick: () => open(hit, request.collection) }, "In its document") : null,
    ),
    why,
  );
}

async function explain(hit, request, text, why) {
  try {
    const answer = await call("v1/explain", request);
    const same = answer.hits.find(({ id }) => id === hit.id);
    if (!same?.explanation) return why.replaceChildren("This passage is no longer among the hits.");
    draw(text, hit.text ?? "", same.explanation);
    why.replaceChildren(...reasons(same.explanation));
  } catch (error) {
    why.replaceChildren(error.message);
  }
}

async function open(hit, collection) {
  try {
    const passages = await call("v1/passages", { document_id: hit.document_id, collection });
    $("document-title").textContent = hit.metadata.title ?? hit.document_id;
    $("document-body").replaceChildren(...passages.map((passage) => element("p", { class: `passage${passage.id === hit.id ? " here" : ""}`, dir: "auto" }, passage.text)));
    $("document").showModal();
    document.querySelector(".passage.here")?.scrollIntoView({ block: "center" });
  } catch (error) {
    say(error.message, true);
  }
}

$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});
$("collection").addEventListener("change", describe);
$("use-key").addEventListener("click", () => {
  key = $("key").value.trim();
  sessionStorage.setItem("m3connect-key", key);
  $("key-line").hidden = true;
  say("");
  start();
});
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, select, textarea")) return;
  if (event.key === "/") {
    event.preventDefault();
    $("query").focus();
  }
  const hits = [...document.querySelectorAll(".hit")];
  const step = { j: 1, k: -1 }[event.key];
  if (step && hits.length) hits.at((hits.indexOf(document.activeElement.closest(".hit")) + step) % hits.length).focus();
});
start();
