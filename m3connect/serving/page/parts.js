// What pages over the service share. Texts go into a page as text nodes only: nothing of a document is markup here.
const NOT_WITHIN = "(?<![\\p{Script=Latin}\\p{Script=Greek}\\p{Script=Cyrillic}\\p{Script=Arabic}\\p{Script=Hebrew}])"; // scripts that part words
const SPECIAL = /^(<.*>|\[[A-Z]+\])$/; // such as </s> and [CLS], which say nothing to a reader
const LEGS = ["dense", "sparse", "multivector"];

/** An element; a value whose name begins with "on" listens, and children may be texts, elements or null. */
export function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) {
    if (attribute === "style") for (const [p, v] of Object.entries(value)) node.style.setProperty(p, v);
    else if (attribute.startsWith("on")) node.addEventListener(attribute.slice(2), value);
    else if (value !== null) node.setAttribute(attribute, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** A bar for each leg's score of a hit. */
export function scores(hit) {
  const given = LEGS.filter((leg) => typeof hit.scores[leg] === "number");
  return element(
    "div",
    { class: "scores" },
    ...given.flatMap((leg) => [
      element("span", {}, leg),
      element("span", { class: `bar ${leg}`, style: { width: `${Math.max(0, Math.min(1, hit.scores[leg])) * 100}%` } }),
      element("span", {}, hit.scores[leg].toFixed(3)),
    ]),
  );
}

/** Why a hit was found: what its explanation adds up from. */
export function reasons({ parts, terms, tokens }) {
  return [
    list("Adds up from", Object.entries(parts).map(([leg, part]) => `${leg} ${part.toFixed(3)}`)),
    list("Shared terms", terms.map(([term, part]) => `${plain(term)} ${part.toFixed(3)}`)),
    list("Tokens that met", tokens.filter(([query]) => !SPECIAL.test(query)).slice(0, 12).map(([query, passage, part]) => `${plain(query)} → ${plain(passage)} ${part.toFixed(3)}`)),
  ];
}

const plain = (piece) => piece.replaceAll("▁", "");

function list(title, items) {
  return items.length ? element("div", {}, element("strong", {}, title), element("ul", {}, ...items.map((item) => element("li", { dir: "auto" }, item)))) : "";
}

/** Mark in the text of a node the terms that matched and the tokens that query tokens met. */
export function draw(node, text, { terms, tokens }) {
  const weights = new Map();
  const starts = new Set(); // words of which every piece begins a word: they are not marked within others
  const add = (pieces, kind) => {
    const most = Math.max(...pieces.map(([, weight]) => weight), 1e-9);
    for (const [piece, weight] of pieces) {
      const word = plain(piece).toLowerCase();
      if (word.length < 2) continue;
      if (!weights.has(word)) {
        weights.set(word, [Math.max(0, weight / most), kind]);
        if (piece.startsWith("▁")) starts.add(word);
      } else if (!piece.startsWith("▁")) starts.delete(word);
    }
  };
  add(terms, "");
  add(tokens.map(([, passage, weight]) => [passage, weight]), "met");
  if (!weights.size) return;
  const escape = (word) => `${starts.has(word) ? NOT_WITHIN : ""}${word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}`;
  const longest = [...weights.keys()].sort((a, b) => b.length - a.length).map(escape);
  const pieces = text.split(new RegExp(`(${longest.join("|")})`, "giu"));
  node.replaceChildren(
    ...pieces.map((piece) => {
      const [weight, kind] = weights.get(piece.toLowerCase()) ?? [0, ""];
      return weight ? element("mark", { class: kind || null, style: { "--weight": weight.toFixed(2) } }, piece) : piece;
    }),
  );
}
