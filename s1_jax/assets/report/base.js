"use strict";
// What all parts of the page use: the data, the selection, and elements whose contents are text, never HTML.

const data = JSON.parse(document.getElementById("data").textContent);
const runs = data.summary.runs;
const problems = data.problems;

const byId = (id) => document.getElementById(id);

// An element; attributes that begin with "on" are listeners, children are elements or text.
function el(tag, attributes = {}, ...children) {
  const node = document.createElementNS(attributes.xmlns || "http://www.w3.org/1999/xhtml", tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name.startsWith("aria-")) node.setAttribute(name, String(value));
    else if (name !== "xmlns" && value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null));
  return node;
}

const svg = (tag, attributes, ...children) => el(tag, { xmlns: "http://www.w3.org/2000/svg", ...attributes }, ...children);

// Of records that say nothing of a value: a dash.
const number = (value, digits = 0) =>
  value === null || value === undefined
    ? "\u2013"
    : value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const percent = (value, digits = 1) => (value === null ? "\u2013" : `${number(value, digits)}%`);
const tokens = (value) => number(value, value < 1000 ? 1 : 0);

const ENDS = { natural: "ended by itself", forced: "cut at its maximum", context: "cut by the context", length: "cut at its limit" };

// What became of an answer: "undecided" where no rule could tell whether it is right.
const verdictOf = (one) => (one.right ? "right" : one.undecided ? "undecided" : "wrong");

// An accuracy, and how far answers that nobody could decide might raise it.
const accuracyOf = (one) => percent(one.accuracy) + upTo(one);
const upTo = (one) => (one.accuracy_if_undecided_right > one.accuracy ? ` (up to ${percent(one.accuracy_if_undecided_right)})` : "");
const openAnswers = (count) => (count === 1 ? "the undecided answer is right" : `the ${number(count)} undecided answers are right`);

// The selection. `from` and `to` are the settings that "wrong, then right" is about.
const better = (a, b) => runs[b].accuracy - runs[a].accuracy || runs[a].thinking_tokens - runs[b].thinking_tokens || b - a;
const places = runs.map((_, i) => i);
const best = [...places].sort(better)[0];
const shortest = [...places].sort((a, b) => runs[a].thinking_tokens - runs[b].thinking_tokens)[0];
const START = { problem: 0, setting: best, draw: 0, filter: "all", from: shortest, to: best, query: "", formulas: "drawn" };
const state = { ...START };
const views = []; // functions of the names that changed

function update(change) {
  const changed = Object.keys(change).filter((name) => state[name] !== change[name]);
  if (!changed.length) return;
  Object.assign(state, change);
  for (const view of views) view(new Set(changed));
  history.replaceState(null, "", `#${written()}`);
}

// The selection as the page's address has it: the problem by its id, all else where it is not what the page opens with.
function written() {
  const parameters = new URLSearchParams({ problem: problems[state.problem].id });
  for (const name of ["setting", "draw", "filter", "from", "to", "query", "formulas"]) {
    if (state[name] !== START[name]) parameters.set(name, state[name]);
  }
  return parameters.toString();
}

function read(hash) {
  const parameters = new URLSearchParams(hash.slice(1));
  const change = { ...START };
  const index = problems.findIndex((problem) => problem.id === parameters.get("problem"));
  if (index >= 0) change.problem = index;
  for (const name of ["setting", "draw", "from", "to"]) {
    const value = Number(parameters.get(name) ?? START[name]);
    if (Number.isInteger(value) && value >= 0 && (name === "draw" || value < runs.length)) change[name] = value;
  }
  if (Object.hasOwn(FILTERS, parameters.get("filter") ?? "")) change.filter = parameters.get("filter");
  change.query = parameters.get("query") ?? "";
  if (parameters.get("formulas") === "source") change.formulas = "source";
  return change;
}
