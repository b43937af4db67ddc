
"use strict";
const find = (selector, inside = document) => inside.querySelector(selector);
const findAll = (selector, inside = document) => [...inside.querySelectorAll(selector)];

// Colours: the system's until the button is pressed.
const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme ?? (systemIsDark.matches ? "dark" : "light")) === "dark";
const nameTheme = () => { find("#theme").textContent = isDark() ? "Light colours" : "Dark colours"; };
find("#theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
});
systemIsDark.addEventListener("change", nameTheme);
nameTheme();

// One sound at a time.
document.addEventListener("play", ({ target }) => {
  for (const audio of findAll("audio")) if (audio !== target) audio.pause();
}, true);

// The blind vote. A side is what can be voted for: "generated A", "codec", "ground_truth".
const runs = findAll("[data-run]").map(({ dataset }) => ({ run: dataset.run, name: dataset.name, step: Number(dataset.step) }));
const sides = new Map([
  ...runs.map(({ run, name }) => [`generated ${run}`, `${run}: ${name}`]),
  ["codec", "codec resynthesis"],
  ["ground_truth", "ground truth"],
].filter(([side]) => findAll("article").some((article) => soundOf(article, side))));

function soundOf(article, side) {
  const [role, run] = side.split(" ");
  return find(`[data-role="${role}"]${run ? `[data-runs*="${run}"]` : ""} audio`, article);
}

function shuffled(items) {
  const drawn = [...items];
  for (let last = drawn.length - 1; last > 0; last--) {
    const other = crypto.getRandomValues(new Uint32Array(1))[0] % (last + 1);
    [drawn[last], drawn[other]] = [drawn[other], drawn[last]];
  }
  return drawn;
}

const [one, other, ballot] = [find("#one"), find("#other"), find("#ballot")];
for (const select of [one, other]) select.append(...[...sides].map(([side, name]) => new Option(name, side)));
other.selectedIndex = Math.min(1, sides.size - 1);

const pairsOf = (first, second) => first === second ? [] : findAll("article").filter(
  (article) => soundOf(article, first) && soundOf(article, second));
const countPairs = () => {
  const count = pairsOf(one.value, other.value).length;
  find("#vote-count").textContent = `${count} example${count === 1 ? "" : "s"}`;
  find("#ballot-options button").disabled = !count;
};
find("#ballot-options").addEventListener("change", countPairs);
countPairs();

let queue = [];
let votes = [];

find("#ballot-options").addEventListener("submit", (event) => {
  event.preventDefault();
  find("#votes").hidden = true;
  queue = shuffled(pairsOf(one.value, other.value)).map((article) => ({ article, sides: shuffled([one.value, other.value]) }));
  votes = [];
  ballot.showModal();
  showPair();
});

function showPair() {
  const { article, sides: [first, second] } = queue[votes.length];
  find("#ballot-title").textContent = `${votes.length + 1} of ${queue.length}: ${article.dataset.task.replaceAll("_", " ")}`;
  find("#ballot-text").textContent = find(".said", article)?.textContent ?? "";
  find("#ballot-text").hidden = !find(".said", article);
  find("#ballot-given").replaceChildren(...findAll("[data-condition]", article).map((clip) => clip.cloneNode(true)));
  const players = findAll("#ballot-pair audio");
  [first, second].forEach((side, number) => { players[number].src = soundOf(article, side).src; });
  find("#ballot-title").focus();
}

function vote(choice) {
  const { article, sides: [first, second] } = queue[votes.length];
  const { task, id, corpus } = article.dataset;
  votes.push({ task, id, corpus, first, second, vote: choice, preferred: { 1: first, 2: second }[choice] ?? null });
  if (votes.length < queue.length) showPair();
  else { ballot.close(); showVotes(); }
}

for (const button of findAll("[data-vote]")) button.addEventListener("click", () => vote(Number(button.dataset.vote)));
ballot.addEventListener("keydown", (event) => {
  const plain = !event.repeat && !event.ctrlKey && !event.metaKey && !event.altKey;
  if (plain && ["0", "1", "2"].includes(event.key)) vote(Number(event.key));
});
find("#stop").addEventListener("click", () => ballot.close());
ballot.addEventListener("close", () => {
  for (const audio of findAll("audio", ballot)) audio.pause();
  for (const audio of findAll("#ballot-pair audio")) audio.removeAttribute("src");
});

function showVotes() {
  const pair = [one.value, other.value];
  const count = (some) => [pair[0], null, pair[1]].map((side) => some.filter(({ preferred }) => preferred === side).length);
  const tasks = [...new Set(findAll("article").map(({ dataset }) => dataset.task))];
  const rows = tasks.map((task) => [task.replaceAll("_", " "), votes.filter((cast) => cast.task === task)]).filter(([, cast]) => cast.length);
  find("#votes .one").textContent = sides.get(pair[0]);
  find("#votes .other").textContent = sides.get(pair[1]);
  find("#votes tbody").replaceChildren(...[...rows, ["all", votes]].map(([title, cast]) => {
    const row = document.createElement("tr");
    row.append(...[title, ...count(cast)].map((text, column) => {
      const cell = document.createElement(column ? "td" : "th");
      cell.textContent = text;
      return cell;
    }));
    return row;
  }));
  const [first, neither, second] = count(votes);
  const result = { finished: new Date().toISOString(), runs, sides: pair, totals: { [pair[0]]: first, none: neither, [pair[1]]: second }, votes };
  URL.revokeObjectURL(find("#save").href);
  find("#save").href = URL.createObjectURL(new Blob([JSON.stringify(result, null, 1)], { type: "application/json" }));
  find("#votes").hidden = false;
  find("#votes h3").focus();
}
