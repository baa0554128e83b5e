// The page, in the order in which it is read; then the keys.

function drawHeader() {
  const { summary } = data;
  const most = runs[best];
  byId("facts").append([...data.facts, `${number(summary.records)} records`, `${number(runs.length)} settings`].join(" \u00b7 "));
  byId("lead").append(...lead(most));
}

// The best accuracy in a sentence. Nothing right is nothing to praise, and neither is one setting, or all alike, the best.
function lead(most) {
  const alike = runs.filter((run) => run.accuracy === most.accuracy).length;
  const interval = `95% interval ${number(most.interval[0], 1)} to ${number(most.interval[1], 1)}`;
  const where = ` at ${tokens(most.thinking_tokens)} thinking tokens (${most.label})`;
  const open = most.undecided ? `, up to ${percent(most.accuracy_if_undecided_right)} if ${openAnswers(most.undecided)}` : "";
  if (most.accuracy === 0) {
    const all = runs.reduce((sum, run) => sum + run.undecided, 0);
    return [`No answer is right${runs.length > 1 ? " under any setting" : ""}: 0.0%, ${interval}.`, all ? ` ${number(all)} ${all > 1 ? "are" : "is"} undecided.` : ""];
  }
  const value = el("strong", { class: alike < runs.length ? "best" : "" }, percent(most.accuracy));
  if (runs.length === 1) return ["Accuracy: ", value, `${where}, ${interval}${open}.`];
  if (alike === runs.length) return ["Every setting: ", value, `, ${interval}${open}.`];
  if (alike > 1) return ["Best: ", value, ` under ${alike} of ${runs.length} settings, with the fewest thinking tokens${where}, ${interval}${open}.`];
  return ["Best: ", value, `${where}, ${interval}${open}.`];
}

const KEYS = {
  j: () => step(1),
  ArrowDown: () => step(1),
  k: () => step(-1),
  ArrowUp: () => step(-1),
  ArrowRight: () => state.setting + 1 < runs.length && update({ setting: state.setting + 1, draw: 0 }),
  ArrowLeft: () => state.setting > 0 && update({ setting: state.setting - 1, draw: 0 }),
  f: () => canDraw && update({ formulas: state.formulas === "source" ? "drawn" : "source" }),
  "/": () => byId("query").focus(),
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches?.("input, select");
  if (typing && event.key === "Escape") event.target.blur();
  // up and down scroll the page until a problem is being read
  const scrolls = ["ArrowUp", "ArrowDown"].includes(event.key) && !byId("traces").contains(document.activeElement);
  if (typing || scrolls || event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  KEYS[event.key]();
});

drawHeader();
drawTables();
drawList();
Object.assign(state, read(location.hash));
filterList();
drawChart();
markTable();
showProblem();
markColumn();
markList();
if (location.hash) byId("traces").scrollIntoView();
addEventListener("hashchange", () => update(read(location.hash)));

let width = byId("chart").clientWidth;
new ResizeObserver(() => {
  if (width !== byId("chart").clientWidth) drawChart();
  width = byId("chart").clientWidth;
}).observe(byId("chart"));
