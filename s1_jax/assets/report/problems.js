// The list of problems: a verdict for every setting, filters, search.

// Share of right draws, null where the setting has not met the problem.
const share = (problem, setting) => {
  const { right, of } = problem.results[setting];
  return of ? right / of : null;
};
const undecided = (problem, setting) => problem.results[setting].undecided;
const wrong = (problem, setting) => problem.results[setting].of - problem.results[setting].right - undecided(problem, setting);
const isRight = (problem, setting) => share(problem, setting) >= 0.5;
const isWrong = (problem, setting) => wrong(problem, setting) > problem.results[setting].of / 2;
const shares = (problem) => places.map((i) => share(problem, i)).filter((one) => one !== null);
const met = (problem) => share(problem, state.from) !== null && share(problem, state.to) !== null;
const found = (problem) => new Set(problem.results.flatMap(({ draws }) => draws.map((one) => one.found)));

const FILTERS = {
  all: ["all", () => true],
  gained: ["wrong, then right", (one) => met(one) && isWrong(one, state.from) && isRight(one, state.to)],
  lost: ["right, then wrong", (one) => met(one) && isRight(one, state.from) && isWrong(one, state.to)],
  never: ["always wrong", (one) => places.every((i) => wrong(one, i) === one.results[i].of)],
  always: ["always right", (one) => shares(one).every((each) => each === 1)],
  differ: ["answers differ", (one) => found(one).size > 1],
  undecided: ["undecided", (one) => places.some((i) => undecided(one, i) > 0)],
};

function fullText(problem, trace) {
  const { parent, at, text } = problem.traces[trace];
  return parent < 0 ? text : fullText(problem, parent).slice(0, at) + text;
}

function holds(problem, words) {
  const texts = [problem.id, problem.gold ?? "", problem.question ?? "", ...problem.answers];
  return [...texts, ...problem.traces.map((trace) => trace.text)].some((text) => text.toLowerCase().includes(words));
}

let visible = problems.map((_, i) => i); // problems that pass filter and search

function select(problem) {
  update({ problem, draw: 0 });
}

function strip(problem) {
  const cells = places.map((i) => {
    const right = share(problem, i);
    const unclear = right === null ? 0 : undecided(problem, i) / problem.results[i].of;
    const kind = right === null ? "none" : right === 1 ? "right" : unclear === 1 ? "undecided" : right || unclear ? "part" : "wrong";
    const cell = el("i", { class: kind, title: runs[i].label });
    if (kind === "part") {
      cell.style.setProperty("--right", `${100 * right}%`);
      cell.style.setProperty("--decided", `${100 * (right + unclear)}%`);
    }
    return cell;
  });
  const right = shares(problem).filter((one) => one >= 0.5).length;
  const unclear = places.filter((i) => undecided(problem, i) > 0).length;
  const said = `right under ${right} of ${shares(problem).length} settings${unclear ? `, undecided under ${unclear}` : ""}`;
  return el("span", { class: "strip", role: "img", "aria-label": said }, cells);
}

function drawList() {
  const rows = problems.map((problem, i) => {
    const choose = (event) => {
      event.preventDefault();
      const cell = event.target.closest(".strip i");
      update({ problem: i, draw: 0, setting: cell ? [...cell.parentNode.children].indexOf(cell) : state.setting });
    };
    const href = `#${new URLSearchParams({ problem: problem.id })}`;
    return el("a", { href, onclick: choose, "data-problem": i, tabindex: -1 }, el("bdi", { title: problem.id }, problem.id), strip(problem));
  });
  byId("list").append(...rows, el("p", { class: "note", id: "nothing" }, "No problem passes the filter and the search."));
  const options = () => runs.map((run, i) => el("option", { value: i }, run.label));
  const choice = (name, words) =>
    el("label", {}, words, el("select", { id: name, onchange: (event) => update({ [name]: Number(event.target.value) }) }, options()));
  const offered = Object.entries(FILTERS).filter(([name]) => name !== "undecided" || runs.some((run) => run.undecided));
  const filters = offered.map(([name, [words]]) =>
    el("button", { type: "button", "data-filter": name, onclick: () => update({ filter: name }) }, words, el("span", { class: "count" })),
  );
  let waiting;
  const search = el("input", {
    id: "query",
    type: "search",
    placeholder: "Search questions, traces and answers",
    "aria-label": "Search questions, traces and answers",
    oninput: (event) => {
      clearTimeout(waiting);
      waiting = setTimeout(() => update({ query: event.target.value }), 150);
    },
  });
  byId("controls").append(
    el("div", { class: "filters", role: "group", "aria-label": "Filter" }, filters),
    el("div", { class: "choices" }, choice("from", "from "), choice("to", " to "), search),
  );
}

function filterList() {
  const words = state.query.toLowerCase();
  const passes = FILTERS[state.filter][1];
  visible = [];
  for (const row of byId("list").querySelectorAll("a")) {
    const i = Number(row.dataset.problem);
    row.hidden = !(passes(problems[i]) && (!words || holds(problems[i], words)));
    if (!row.hidden) visible.push(i);
  }
  byId("nothing").hidden = visible.length > 0;
  for (const button of byId("controls").querySelectorAll("[data-filter]")) {
    button.setAttribute("aria-pressed", button.dataset.filter === state.filter);
    button.querySelector(".count").textContent = number(problems.filter(FILTERS[button.dataset.filter][1]).length);
  }
  for (const name of ["from", "to", "query"]) {
    if (byId(name) !== document.activeElement || name !== "query") byId(name).value = state[name];
  }
}

// The chosen setting's cell of every strip, by a rule of the style sheet.
const column = document.styleSheets[0].cssRules[document.styleSheets[0].insertRule(".strip i { box-shadow: 0 1px var(--ground), 0 3px var(--ink); }")];

function markColumn() {
  column.selectorText = `.strip i:nth-child(${state.setting + 1})`;
}

function markList() {
  const list = byId("list");
  const before = list.querySelector("[aria-current]");
  before?.removeAttribute("aria-current");
  before?.setAttribute("tabindex", -1);
  const row = list.querySelector(`[data-problem="${state.problem}"]`);
  row.setAttribute("aria-current", "true");
  row.setAttribute("tabindex", 0); // one stop of the tab key for the whole list
  if (list.contains(document.activeElement)) row.focus({ preventScroll: true });
  const [top, bottom] = [row.offsetTop - list.scrollTop, row.offsetTop + row.offsetHeight - list.scrollTop];
  if (top < 0 || bottom > list.clientHeight) list.scrollTop = row.offsetTop - list.clientHeight / 2;
}

// The problem so many places further in the list as it is filtered.
function step(by) {
  if (!visible.length) return;
  const here = visible.indexOf(state.problem);
  const next = here >= 0 ? here + by : by > 0 ? visible.findIndex((i) => i > state.problem) : visible.findLastIndex((i) => i < state.problem);
  if (next in visible) select(visible[next]);
}

views.push((changed) => {
  if (["filter", "from", "to", "query"].some((name) => changed.has(name))) {
    filterList();
    if (visible.length && !visible.includes(state.problem)) {
      state.problem = visible[0];
      state.draw = 0;
      changed.add("problem");
    }
  }
  if (changed.has("problem")) markList();
  if (changed.has("setting")) markColumn();
});
