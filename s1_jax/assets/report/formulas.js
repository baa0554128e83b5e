// Where formulas stand in a text, and texts with their formulas drawn. Positions are those of the text as it is written.

const OPENERS = /\\\\|\\\$|\\\(|\\\[|\$\$?|\\begin\{([a-z]+\*?)\}|\\boxed\s*\{|\\fbox\s*\{|\\(textbf|textit|emph|underline)\{[^{}\\$\n]*\}/g;
const DISPLAYED = new Set(["align", "aligned", "alignat", "array", "bmatrix", "cases", "displaymath", "eqnarray", "equation", "flalign", "gather", "gathered", "math", "matrix", "multline", "pmatrix", "split", "tabular", "vmatrix"]);
const PROSE = /[A-Za-z]{2,}[,;]?\s+[A-Za-z]{3,}|[A-Za-z]{3,}[,;]?\s+[A-Za-z]{2,}/; // two words: no formula
const canDraw = "MathMLElement" in globalThis;

// The formulas of a text that can be drawn, { from, to, node, display }, in order. Dollars are a currency too: the closing one has no digit
// after it, and what stands between is not prose; where it begins or ends with a space it has a sign of mathematics.
function formulasIn(text) {
  const found = [];
  const absent = new Set(); // closing marks that do not come any more
  const until = (mark, from) => {
    if (absent.has(mark)) return -1;
    const at = text.slice(from, from + LONGEST_FORMULA + 200).indexOf(mark);
    if (at < 0 && text.indexOf(mark, from) < 0) absent.add(mark);
    return at < 0 ? -1 : from + at;
  };
  OPENERS.lastIndex = 0;
  for (let match = OPENERS.exec(text); match; match = OPENERS.exec(text)) {
    const from = match.index;
    const one = formulaAt(text, match, until);
    const node = one && formulaNode(one);
    if (node) found.push({ from, to: one.to, display: one.display, node });
    OPENERS.lastIndex = node ? one.to : from + match[0].length;
  }
  return found;
}

// The formula that begins with this opener; null where there is none.
function formulaAt(text, match, until) {
  const [mark, environment, font] = match;
  const start = match.index + mark.length;
  const between = (close, display) => {
    const end = until(close, start);
    const source = text.slice(start, end);
    return end < 0 || !source.trim() ? null : { to: end + close.length, source, display };
  };
  if (mark === "\\\\") return null;
  if (mark === "\\$") return { to: start, source: "$", display: false, literal: true };
  if (font !== undefined) return { to: start, source: mark.slice(mark.indexOf("{") + 1, -1), display: false, font };
  if (mark === "\\(") return between("\\)", false);
  if (mark === "\\[") return between("\\]", true);
  if (mark === "$$") return between("$$", true);
  if (mark === "$") return inDollars(text, start);
  if (environment !== undefined) return environmentAt(text, match.index, environment, until);
  let open = 1; // \boxed{...} by itself
  for (let at = start; at < Math.min(text.length, start + LONGEST_FORMULA); at++) {
    if (text[at] === "\\") at++;
    else if (text[at] === "{") open++;
    else if (text[at] === "}" && --open === 0) return { to: at + 1, source: text.slice(match.index, at + 1), display: false };
  }
  return null;
}

function inDollars(text, start) {
  let end = start;
  while (end < text.length && end - start < LONGEST_FORMULA && text[end] !== "$") end += text[end] === "\\" ? 2 : 1;
  const source = text.slice(start, end);
  const spaced = /^\s|\s$/.test(source);
  const closed = text[end] === "$" && (!/[0-9]/.test(text[end + 1] ?? "") || source === "\\$");
  const blank = /\n\s*\n/.test(source) || (source.startsWith("{") && text[end + 1] === "{"); // a paragraph, or code's ${a}${b}
  const signs = /[\\^_=+<>|!]/.test(source) || /^\s*[0-9]+\s*$/.test(source) || !/[a-z]{2}|^[^A-Za-z]*$/.test(source);
  if (!closed || !source || blank || (spaced && !signs) || isProse(source)) return null;
  return { to: end + 1, source, display: false };
}

const NO_PROSE = /\\(text\w*|mbox|hbox|mathrm|operatorname)\*?\s*\{[^{}]*\}|\\[a-zA-Z]+|\b[A-Z]+\b/g;
const isProse = (source) => PROSE.test(source.replace(NO_PROSE, " \\ "));

function environmentAt(text, from, name, until) {
  if (!DISPLAYED.has(name.replace("*", ""))) return null;
  const [open, close] = [`\\begin{${name}}`, `\\end{${name}}`];
  let end = from;
  for (let depth = 1, at = from + open.length; depth > 0; depth--) {
    end = until(close, at);
    if (end < 0) return null;
    depth += text.slice(at, end).split(open).length - 1;
    at = end + close.length;
  }
  return { to: end + close.length, source: text.slice(from, end + close.length), display: true };
}

// Where what is searched for stands in a text.
function matchesIn(text) {
  const sought = state.query.toLowerCase();
  const lower = text.toLowerCase();
  const found = [];
  if (!sought || lower.length !== text.length) return found; // a letter whose small form is longer
  for (let at = lower.indexOf(sought); at >= 0; at = lower.indexOf(sought, at + sought.length)) found.push([at, at + sought.length]);
  return found;
}

// What is shown of a text in place of its source: formulas, but not where the reader wants the source or a match reaches into
// one, and folded drawings.
function drawnIn(text) {
  const drawings = drawingsIn(text);
  const matches = matchesIn(text);
  let next = 0;
  const plain = ({ from, to }) => {
    while (next < matches.length && matches[next][1] <= from) next++;
    return next === matches.length || matches[next][0] >= to;
  };
  const outside = ({ from }) => !drawings.some((one) => one.from <= from && from < one.to);
  const formulas = canDraw && state.formulas === "drawn" ? formulasIn(text).filter((one) => outside(one) && plain(one)) : [];
  return [...formulas, ...drawings].sort((one, other) => one.from - other.from);
}

// A formula's element; null where it cannot be drawn.
function formulaNode({ source, display, literal, font }) {
  if (literal) return source;
  if (font) return el({ textbf: "b", underline: "u" }[font] ?? "i", {}, source);
  const math = drawn(source, display);
  if (!math) return null;
  const wide = display ? "display" : source.length > 70 ? "wide-formula" : null;
  return wide ? el("span", { class: wide }, math) : math;
}

// Text from one position to another, with those of `formulas` drawn that lie within.
function textNodes(text, from, to, formulas) {
  const nodes = [];
  let at = from;
  for (const one of formulas) {
    if (one.from < at || one.to > to) continue;
    nodes.push(text.slice(at, one.from), one.node);
    at = one.to;
    if (one.display && at < to && text[at] === "\n") at++; // its block ends the line
  }
  return [...nodes, text.slice(at, to)].filter((node) => node !== "");
}

const withFormulas = (text) => textNodes(text, 0, text.length, drawnIn(text));

// An answer, which may be a formula as a whole without a mark that says so.
function answerNodes(text) {
  const formulas = drawnIn(text);
  const marked = formulas.some(({ node }) => ["math", "span", "details"].includes(node.localName));
  const bare = canDraw && state.formulas === "drawn" && !marked && !matchesIn(text).length;
  const looks = /[\\^]|(^|[^A-Za-z])[A-Za-z0-9]_/.test(text) && !text.includes("$$") && !isProse(text);
  const node = bare && looks ? drawn(text, false) : null;
  return node ? [node] : textNodes(text, 0, text.length, formulas);
}

// Drawings that are written as code say little to a reader: they are folded.
const DRAWING = /\[asy\]|<asy>|\\begin\{(asy|tikzpicture|picture)\}|```(?:asy|asymptote|tikz|svg)\n|<svg\b/gi;
const ENDS_OF_DRAWINGS = { "[": "[/asy]", "<a": "</asy>", "<s": "</svg>", "`": "```" };

function drawingsIn(text) {
  const found = [];
  const small = text.toLowerCase();
  const lower = small.length === text.length ? small : text; // a letter whose small form is longer
  DRAWING.lastIndex = 0;
  for (let match = DRAWING.exec(lower); match; match = DRAWING.exec(lower)) {
    const end = match[1] ? `\\end{${match[1]}}` : (ENDS_OF_DRAWINGS[match[0][0]] ?? ENDS_OF_DRAWINGS[match[0].slice(0, 2)]);
    const at = lower.indexOf(end, match.index + match[0].length);
    if (at < 0) break; // a drawing without an end, or cut
    const to = at + end.length;
    found.push({ from: match.index, to, display: true, node: drawing(text.slice(match.index, to)) });
    DRAWING.lastIndex = to;
  }
  return found;
}

// A folded drawing, open where something in it is searched for.
function drawing(code) {
  const lines = code.split("\n").length;
  const name = /svg/i.test(code.slice(0, 8)) ? "SVG" : /tikz|picture/i.test(code.slice(0, 24)) ? "TikZ" : "Asymptote";
  const summary = el("summary", {}, `drawing in ${name}, ${number(lines)} line${lines > 1 ? "s" : ""} of code`);
  return el("details", { class: "drawing", open: matchesIn(code).length > 0 }, summary, el("code", {}, code));
}

// Brackets and braces as tall or wide as what they enclose, where the font has no such signs of its own.
function stretch(root) {
  const marks = [...root.querySelectorAll('mo[stretchy="true"]:not([minsize])')];
  const boxes = marks.map((mark) => [mark, mark.parentNode].map((one) => one.getBoundingClientRect()));
  marks.forEach((mark, i) => {
    const [own, around] = boxes[i];
    const along = mark.parentNode.localName !== "mrow"; // above or below something
    if (along && mark === mark.parentNode.firstElementChild) return;
    const ratio = along ? around.width / own.width : around.height / own.height;
    if (!(own.height > 0 && ratio > 1.2)) return;
    const moved = (around.top + around.bottom - own.top - own.bottom) / 2;
    mark.style.transform = along ? `scaleX(${ratio})` : `translateY(${moved}px) scaleY(${ratio})`;
  });
}
