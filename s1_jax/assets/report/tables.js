// The tables of settings and methods; a row of the first selects its setting.

function head(names) {
  return el("thead", {}, el("tr", {}, names.map((name) => el("th", { scope: "col" }, name))));
}

function bar({ accuracy, interval, accuracy_if_undecided_right: most }) {
  const range = el("span", { class: "range" });
  const open = el("span", { class: "open" });
  const mark = el("span", { class: "mark" });
  range.style.left = `${interval[0]}%`;
  range.style.width = `${interval[1] - interval[0]}%`;
  open.style.left = mark.style.left = `${accuracy}%`;
  open.style.width = `${most - accuracy}%`;
  return el("span", { class: "bar", "aria-hidden": "true" }, range, open, mark);
}

const severalSeeds = runs.some((run) => run.seeds > 1);
const someUndecided = runs.some((run) => run.undecided);

function outcome(one) {
  return [
    el("td", {}, tokens(one.thinking_tokens)),
    el("td", {}, percent(one.accuracy)),
    someUndecided && el("td", { class: "open" }, upTo(one).replace(/[ ()]|up to/g, "")),
    el("td", {}, `${number(one.interval[0], 1)} to ${number(one.interval[1], 1)}`),
    severalSeeds && el("td", {}, typeof one.between_seeds === "number" ? `\u00b1 ${number(one.between_seeds, 1)}` : ""),
    el("td", { class: "bars" }, bar(one)),
  ].filter(Boolean);
}

function settingRows(run, i) {
  const label = [run.label, run.draws].filter(Boolean).join(", ");
  const choose = () => update({ setting: i, draw: 0 });
  const cells = [
    ...["natural", "forced", "context"].map((end) => number(run.ends[end] ?? 0)),
    number(run.ignores_used, 1),
    number(run.answer_ends.length ?? 0),
    number(run.without_answer),
    ...(someUndecided ? [number(run.undecided)] : []),
  ];
  const first = el("th", { scope: "row" }, el("button", { type: "button", onclick: choose }, label));
  const row = el("tr", { "data-setting": i }, first, ...outcome(run), ...cells.map((cell) => el("td", {}, cell)));
  const votes = run.majority.slice(1).map((vote) => voteRow(`majority of ${vote.k}`, vote));
  const passes = (run.pass_at ?? []).slice(1).map((pass) => voteRow(`any right of ${pass.k} (pass@${pass.k})`, pass));
  return [row, ...votes, ...passes];
}

function voteRow(label, vote) {
  return el("tr", { class: "vote" }, el("th", { scope: "row" }, label), ...outcome(vote), el("td", { colspan: someUndecided ? 7 : 6 }));
}

function drawTables() {
  const names = ["setting", "thinking tokens", "accuracy", someUndecided && "up to", "95% interval", severalSeeds && "between seeds", ""].filter((name) => name !== false);
  const counts = ["by itself", "cut at maximum", "cut by context", "ends ignored", "answer cut", "no answer", ...(someUndecided ? ["undecided"] : [])];
  byId("settings").append(head([...names, ...counts]), el("tbody", {}, runs.flatMap(settingRows)));
  const methods = data.summary.methods.map((method) => [
    method.name,
    number(method.runs),
    percent(method.control, 0),
    number(method.scaling, 1),
    percent(method.performance) + (method.performance_if_undecided_right > method.performance ? ` (up to ${percent(method.performance_if_undecided_right)})` : ""),
  ]);
  const rows = methods.map(([name, ...cells]) =>
    el("tr", {}, el("th", { scope: "row" }, name), ...cells.map((cell) => el("td", {}, cell))),
  );
  byId("methods").append(head(["method", "runs", "Control", "Scaling", "Performance"]), el("tbody", {}, rows));
  const scope = data.summary.scaling_over === "within" ? "within one ignore count" : "across all ignore counts";
  byId("scaling-note").append(
    `Control: runs that keep to their budget. Scaling: percentage points per doubling of thinking tokens, mean over all pairs of runs ${scope}. Performance: the best run.`,
  );
  if (someUndecided) {
    byId("open-key").hidden = false;
    const note = "Undecided: no rule could tell whether the answer is right. Such answers count as wrong; up to: the accuracy if all of them were right (hatched).";
    byId("settings").closest("section").append(el("p", { class: "note" }, note));
  }
  byId("cost").append(data.cost);
}

function markTable() {
  for (const row of byId("settings").querySelectorAll("[data-setting]")) {
    const chosen = Number(row.dataset.setting) === state.setting;
    row.classList.toggle("chosen", chosen);
    row.querySelector("button").setAttribute("aria-pressed", chosen);
  }
}

views.push((changed) => changed.has("setting") && markTable());
