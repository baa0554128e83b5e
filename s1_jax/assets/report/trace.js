// One problem: what every setting answered, and the chosen one's thinking with all that was put in or passed by.

const result = (problem, setting) => {
  const draws = problem.results[setting].draws;
  return draws[Math.min(state.draw, draws.length - 1)];
};

// What tells a run's draws apart: its seed, its sample, or both.
const drawParts = (run) =>
  [run.seeds > 1 && ["seed", (one) => one.seed], (run.samples > 1 || run.seeds === 1) && ["sample", (one) => one.sample + 1]].filter(Boolean);

const verdict = (one) => el("span", { class: `verdict ${verdictOf(one)}` }, verdictOf(one));
const shownAnswer = (one) => (one.found === null ? el("em", {}, "none") : el("bdi", {}, answerNodes(one.found)));
const tally = ({ right, undecided, of }) => `${right} of ${of} right${undecided ? `, ${undecided} undecided` : ""}`;

function answersTable(problem) {
  const rows = places.map((i) => {
    const { of } = problem.results[i];
    if (!of) return null;
    const one = result(problem, i);
    const name = [runs[i].label, ...(of > 1 ? drawParts(runs[i]).map(([part, value]) => `${part} ${value(one)}`) : [])].join(", ");
    const choose = el("button", { type: "button", "aria-pressed": i === state.setting, onclick: () => update({ setting: i }) }, name);
    const cells = [
      el("td", { class: "word" }, shownAnswer(one)),
      el("td", { class: "word" }, of > 1 ? tally(problem.results[i]) : verdict(one)),
      el("td", {}, number(one.tokens)),
      el("td", { class: "word" }, ENDS[one.end] ?? one.end),
    ];
    return el("tr", { class: i === state.setting ? "chosen" : "", "data-setting": i }, el("th", { scope: "row" }, choose), cells);
  });
  const names = ["setting", "answer", "", "thinking tokens", "thinking"];
  return el("div", { class: "wide" }, el("table", { id: "answers" }, head(names), el("tbody", {}, rows)));
}

function drawButtons(problem) {
  const { draws, of } = problem.results[state.setting];
  if (draws.length < 2) return null;
  const parts = drawParts(runs[state.setting]);
  const buttons = draws.map((one, i) =>
    el(
      "button",
      { type: "button", class: verdictOf(one), "aria-pressed": i === state.draw, onclick: () => update({ draw: i }) },
      parts.map(([, value]) => value(one)).join(" / "),
    ),
  );
  const rest = of > draws.length ? `the text of ${of - draws.length} more is in records.jsonl` : null;
  return el("p", { class: "draws" }, `${parts.map(([part]) => part).join(" / ")} `, buttons, rest && el("span", { class: "note" }, rest));
}

// What stands at positions of the trace: ends that were ignored, with the string put in, and settings that stop there.
function events(problem, one, text) {
  const string = runs[state.setting].setting.ignore_string ?? "";
  const strings = Array.isArray(string) ? string : [string];
  const ignored = one.ignored.map((at, i) => {
    const put = strings.length > 1 && one.unmarked ? "" : strings[i % strings.length];
    const whole = text.startsWith(put, at) && at + put.length <= one.at;
    return { at, ignored: true, length: whole ? put.length : 0 };
  });
  const stops = new Map();
  for (const [setting, draw, at] of problem.traces[one.trace].branches) {
    const other = problem.results[setting].draws[draw];
    if (setting === state.setting) continue;
    if (!stops.has(at)) stops.set(at, { at, stops: new Map() });
    if (!stops.get(at).stops.has(setting)) stops.get(at).stops.set(setting, other);
  }
  return [...ignored, ...stops.values()].sort((a, b) => a.at - b.at || Boolean(a.ignored) - Boolean(b.ignored));
}

function tags(stops) {
  const nodes = [...stops].map(([setting, other]) =>
    el(
      "button",
      {
        type: "button",
        class: `stop ${verdictOf(other)}`,
        title: `${runs[setting].label} ${ENDS[other.end] ?? other.end} here; its answer is ${verdictOf(other)}`,
        onclick: () => update({ setting, draw: 0 }),
      },
      `${runs[setting].label}: `,
      other.found === null ? "no answer" : answerNodes(other.found),
    ),
  );
  return el("span", { class: "stops" }, nodes);
}

function annotated(text, from, to, all, formulas) {
  const nodes = [];
  let at = from;
  for (const event of all.filter((one) => one.at >= from && (one.at < to || (one.at === to && !one.ignored)))) {
    nodes.push(textNodes(text, at, event.at, formulas));
    at = Math.max(at, event.at);
    if (event.ignored) {
      nodes.push(el("span", { class: "ignored", title: "an end of thinking was drawn here and ignored" }, "end ignored"));
      nodes.push(el("mark", { title: "put in by budget forcing, not drawn" }, text.slice(event.at, event.at + event.length)));
      at = event.at + event.length;
    } else nodes.push(tags(event.stops));
  }
  return [...nodes, textNodes(text, at, to, formulas)];
}

function traceView(problem) {
  const one = result(problem, state.setting);
  if (!one) return el("p", { class: "note" }, "This setting has no record of this problem.");
  const text = fullText(problem, one.trace);
  const all = events(problem, one, text);
  const formulas = drawnIn(text);
  const count = one.ignored.length + one.unmarked;
  const said = [`${number(one.tokens)} thinking tokens`, ENDS[one.end] ?? one.end];
  if (count) said.push(`${count} end${count > 1 ? "s" : ""} ignored`);
  const parts = [
    el("h4", {}, runs[state.setting].label, el("span", {}, said.join(" \u00b7 "))),
    one.unmarked > 0 &&
      el("p", { class: "note" }, `${one.unmarked} of ${count} ignored ends cannot be marked: these records do not tell where they are.`),
    el("div", { class: "thinking", dir: "auto" }, annotated(text, 0, one.at, all.filter((each) => each.at < one.at), formulas)),
    el(
      "div",
      { class: `answer ${verdictOf(one)}`, dir: "auto" },
      one.put_in && el("mark", { title: "put in by budget forcing, not drawn" }, one.put_in.trim()),
      withFormulas(problem.answers[one.answer].replace(/^\n+/, "")),
    ),
  ];
  const after = all.filter((each) => !each.ignored && each.at >= one.at);
  if (one.at < text.length || after.length) {
    parts.push(
      el("p", { class: "beyond" }, one.at < text.length ? "How settings with more budget think on:" : "Other settings that end here:"),
      el("div", { class: "thinking later", dir: "auto" }, annotated(text, one.at, text.length, after, formulas)),
    );
  }
  return el("div", { id: "trace" }, parts.filter(Boolean));
}

// Formulas as they are written, or drawn.
function sourceButton() {
  const pressed = state.formulas === "source";
  const choose = () => update({ formulas: pressed ? "drawn" : "source" });
  const title = "show formulas as they are written, or drawn (f)";
  return el("button", { type: "button", id: "formulas", "aria-label": "formulas as LaTeX", "aria-pressed": pressed, title, onclick: choose }, "LaTeX");
}

const LONGEST_QUESTION = 18; // lines, as far as one can tell before they are set
let unfolded = null; // the problem whose long question is shown whole

// The question; where it is long, its beginning, and a button for the rest.
function questionView(problem) {
  if (problem.question === null) return [el("p", { class: "question" }, el("em", {}, "These records do not contain the question."))];
  const question = el("div", { class: "question", dir: "auto" }, withFormulas(problem.question));
  const drawings = drawingsIn(problem.question);
  const told = drawings.reduceRight((text, { from, to }) => text.slice(0, from) + text.slice(to), problem.question);
  const length = told.split("\n").reduce((sum, line) => sum + Math.ceil((line.length + 1) / 90), 0);
  if (length <= LONGEST_QUESTION || matchesIn(problem.question).length) return [question];
  const words = (folded) => (folded ? `show the whole question, about ${number(length)} lines` : "fold the question");
  const fold = (folded) => {
    question.classList.toggle("folded", folded);
    button.setAttribute("aria-expanded", !folded);
    button.textContent = words(folded);
    unfolded = folded ? null : problem.id;
  };
  const button = el("button", { type: "button", class: "more", "aria-label": "whole question", onclick: () => fold(!question.classList.contains("folded")) });
  fold(unfolded !== problem.id);
  return [question, button];
}

function showProblem() {
  const problem = problems[state.problem];
  const here = visible.indexOf(state.problem);
  const position = here < 0 ? "not in the list" : `${number(here + 1)} of ${number(visible.length)}`;
  const detail = byId("detail");
  const focused = detail.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") ?? "" : null;
  detail.replaceChildren(
    el(
      "div",
      { class: "steps" },
      el("button", { type: "button", onclick: () => step(-1), title: "k or arrow up", "aria-label": "previous problem" }, "\u2190"),
      el("button", { type: "button", onclick: () => step(1), title: "j or arrow down", "aria-label": "next problem" }, "\u2192"),
      el("span", {}, position),
      canDraw ? sourceButton() : null,
    ),
    el("h3", {}, el("bdi", {}, problem.id)),
    ...questionView(problem),
    el("p", { class: "gold" }, "right answer ", el("bdi", {}, problem.gold === null ? "\u2013" : answerNodes(problem.gold))),
    ...[answersTable(problem), drawButtons(problem), traceView(problem)].filter(Boolean),
  );
  if (focused !== null) {
    const same = [...detail.querySelectorAll("button")].find((one) => one.getAttribute("aria-label") === focused);
    (same ?? detail.querySelector("tr.chosen button"))?.focus({ preventScroll: true });
  }
  stretch(detail);
  highlight();
}

// What was searched for, marked without touching the text (where the browser can).
function highlight() {
  if (!window.CSS?.highlights) return;
  CSS.highlights.clear();
  const words = state.query.toLowerCase();
  if (!words) return;
  const ranges = [];
  const walker = document.createTreeWalker(byId("detail"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.toLowerCase();
    if (text.length !== walker.currentNode.data.length) continue; // a letter whose small form is longer
    for (let at = text.indexOf(words); at >= 0; at = text.indexOf(words, at + words.length)) {
      const range = new Range();
      range.setStart(walker.currentNode, at);
      range.setEnd(walker.currentNode, at + words.length);
      ranges.push(range);
    }
  }
  CSS.highlights.set("found", new Highlight(...ranges));
}

views.push(showProblem);
