// LaTeX formulas as MathML, which browsers draw themselves. What is not known throws, and its reader sees the source.
// Records are hostile: text never becomes markup here, and depth and length are bounded.

const LONGEST_FORMULA = 6000; // characters
const DEEPEST = 40; // groups within groups

const mathml = (tag, attributes, ...children) => el(tag, { xmlns: "http://www.w3.org/1998/Math/MathML", ...attributes }, ...children);
const row = (nodes) => (nodes.length === 1 ? nodes[0] : mathml("mrow", {}, nodes));
const sign = (text, attributes) => mathml("mo", attributes, text);
const fence = (text, attributes) => sign(text, { stretchy: "false", ...attributes });
const gap = (width) => mathml("mspace", { width: `${width}em` });
const kept = (text) => text.replace(/\s/g, "\u00a0"); // MathML drops spaces at the ends of a text

class Formula {
  constructor(source) {
    this.source = source;
    this.at = 0;
    this.depth = 0;
    this.font = ""; // of letters, from \mathrm and its like
  }

  fail(what) {
    throw new SyntaxError(`${what} at ${this.at}`);
  }

  skip() {
    while (/\s/.test(this.source[this.at] ?? "")) this.at++;
  }

  // The command, character or "" that comes next, without taking it.
  peek() {
    this.skip();
    const code = this.source.codePointAt(this.at);
    if (code !== 92) return code === undefined ? "" : String.fromCodePoint(code);
    return /^\\(?:[a-zA-Z]+\*?|[^])/.exec(this.source.slice(this.at, this.at + 64))?.[0] ?? "\\";
  }

  take(wanted) {
    const next = this.peek();
    if (wanted !== undefined && next !== wanted) this.fail(`no ${wanted}`);
    this.at += next.length;
    return next;
  }

  // {...} as it is written, or one character or command.
  raw() {
    if (this.peek() !== "{") return this.take();
    const start = ++this.at;
    for (let open = 1; this.at < this.source.length; this.at++) {
      const one = this.source[this.at];
      if (one === "\\") this.at++;
      else if (one === "{") open++;
      else if (one === "}" && --open === 0) return this.source.slice(start, this.at++);
    }
    return this.fail("no }");
  }

  // [...] as it is written; null where there is none.
  option() {
    if (this.peek() !== "[") return null;
    const end = this.source.indexOf("]", this.at);
    if (end < 0) this.fail("no ]");
    const found = this.source.slice(this.at + 1, end);
    this.at = end + 1;
    return found;
  }

  // What a command applies to: a group, or the next sign; of a number its first digit.
  argument() {
    const next = this.peek();
    if (next === "{") return this.group();
    if (next === "" || next === "}" || next === "&" || next === "^" || next === "_") this.fail("no argument");
    if (/[0-9]/.test(next)) return mathml("mn", {}, this.take());
    return row(this.atom());
  }

  group() {
    this.take("{");
    const inside = this.source.startsWith(",}", this.at) ? (this.at++, [mathml("mtext", {}, ",")]) : this.nodes(["}"]);
    this.take("}");
    return mathml("mrow", {}, inside);
  }

  // Part of the source, by itself.
  part(source) {
    const inner = new Formula(source);
    inner.depth = this.depth + 1;
    inner.font = this.font;
    const found = inner.nodes([""]);
    if (inner.at < source.length) inner.fail("no end");
    return found;
  }

  // Everything until one of the stops, which is left standing.
  nodes(stops) {
    if (++this.depth > DEEPEST) this.fail("too deep");
    const font = this.font;
    let found = [];
    let infix = null;
    for (let next = this.peek(); !stops.includes(next); next = this.peek()) {
      if (next === "") this.fail("no end");
      if (next === "\\over" || next === "\\choose" || next === "\\atop") {
        if (infix) this.fail("two fractions");
        this.take();
        infix = [next, found];
        found = [];
      } else found.push(...this.scripted(found));
    }
    this.font = font;
    this.depth--;
    if (!infix) return found;
    const [kind, above] = infix;
    const both = mathml("mfrac", kind === "\\over" ? {} : { linethickness: "0" }, row(above), row(found));
    return [kind === "\\choose" ? this.bracketed("(", both, ")") : both];
  }

  // The next sign with what stands above and below it.
  scripted(before) {
    const next = this.peek();
    const base = next === "^" || next === "_" || next === "'" ? [mathml("mrow", {})] : this.atom(before);
    let [below, above] = [null, null];
    let primes = "";
    let limits = null;
    for (let mark = this.peek(); ; mark = this.peek()) {
      if (mark === "'") primes += this.take() && "′";
      else if (mark === "\\limits" || mark === "\\nolimits") limits = this.take();
      else if (mark === "_" && !below) below = (this.take(), this.argument());
      else if (mark === "^" && !above) above = (this.take(), this.argument());
      else break;
    }
    if (primes) above = mathml("mrow", {}, sign(primes, { lspace: "0", rspace: "0" }), above ?? "");
    const last = base.pop();
    if (last === undefined) {
      if (below || above) this.fail("nothing to put a script at");
      return [];
    }
    const kind = last.getAttribute("data-scripts");
    const over = limits === "\\limits" || (kind === "limits" && limits === null);
    const names = over ? ["munder", "mover", "munderover"] : ["msub", "msup", "msubsup"];
    if (below && above) base.push(mathml(names[2], {}, last, below, above));
    else if (below) base.push(mathml(names[0], {}, last, below));
    else base.push(above ? mathml(names[1], {}, last, above) : last);
    const named = kind !== null && last.textContent.length > 1 && !last.localName.startsWith("mu");
    if (named && /^([a-zA-Z0-9]|\\[a-zA-Z])/.test(this.peek()) && !/^\\(left|right|end|cr|middle)/.test(this.peek())) base.push(gap(0.17));
    return base;
  }

  // The next sign without scripts, as nodes; `before` are those it follows.
  atom(before = []) {
    const next = this.peek();
    if (next === "{") return [this.group()];
    if (next === "}" || next === "&" || next === "") this.fail(`a stray ${next}`);
    if (next.startsWith("\\")) return this.command(before);
    if (/[0-9]/.test(next)) {
      const digits = /^[0-9]+(?:\.[0-9]+)?/.exec(this.source.slice(this.at))[0];
      this.at += digits.length;
      return [this.styled("mn", digits)];
    }
    this.take();
    if (/\p{L}/u.test(next)) return [this.styled("mi", next)];
    if (next === "~") return [gap(0.25)];
    if (next === "%" || next === "$" || next === "#" || next === '"') return [mathml("mtext", {}, next)];
    if (/[()[\]|/]/.test(next)) return [fence(next, next === "|" ? { lspace: "0", rspace: "0" } : {})];
    if (next === "!") return [sign("!", { form: "postfix", lspace: "0", rspace: "0" })];
    if (next === "-" || next === "+" || next === "\u2212") return [this.plus(next === "-" ? "\u2212" : next, before)];
    if (/[\p{S}\p{P}]/u.test(next)) return [sign(next === "*" ? "∗" : next)];
    return [mathml("mtext", {}, next)];
  }

  styled(tag, text) {
    return mathml(tag, { class: this.font || null }, text);
  }

  // A sign of addition stands close to what follows it where there is nothing to add to.
  plus(text, before) {
    const last = before.at(-1);
    const alone = !last || (last.localName === "mo" && !/^[)\]}|!′⟩⌋⌉…⋯]$/.test(last.textContent)) || (last.localName === "mspace" && before.length < 2);
    return sign(text, { form: alone ? "prefix" : "infix" });
  }

  command(before) {
    const name = this.take().slice(1);
    const plain = name.replace(/\*$/, "");
    if (name !== plain && !["operatorname*", "hspace*", "vspace*", "tag*"].includes(name)) {
      this.at--; // "\cdot*" is a product of two signs
    }
    if (IDENTIFIERS.has(plain)) return [this.styled("mi", IDENTIFIERS.get(plain))];
    if (UPRIGHT.has(plain)) return [mathml("mi", { mathvariant: "normal" }, UPRIGHT.get(plain))];
    if (SPACES.has(plain)) return [gap(SPACES.get(plain))];
    if (FENCES.has(plain) && !RELATIONS.has(plain)) return [fence(FENCES.get(plain))];
    if (RELATIONS.has(plain)) return [sign(RELATIONS.get(plain), { stretchy: "false" })];
    if (plain === "pm" || plain === "mp" || plain === "plus" || plain === "minus") return [this.plus(OPERATORS.get(plain), before)];
    if (OPERATORS.has(plain)) return [sign(OPERATORS.get(plain))];
    if (OTHER_SIGNS.has(plain)) return [sign(OTHER_SIGNS.get(plain), { stretchy: "false" })];
    if (BIG.has(plain)) return [this.big(BIG.get(plain), !plain.includes("int"))];
    if (FUNCTIONS.has(plain)) return this.named(plain, LIMITED.has(plain), before);
    if (FRACTIONS.has(plain)) return [this.styledAs(FRACTIONS.get(plain), mathml("mfrac", {}, this.argument(), this.argument()))];
    if (BINOMIALS.has(plain)) {
      const pair = mathml("mfrac", { linethickness: "0" }, this.argument(), this.argument());
      return [this.styledAs(BINOMIALS.get(plain), this.bracketed("(", pair, ")"))];
    }
    if (ABOVE.has(plain) || BELOW.has(plain)) return [this.accent(plain)];
    if (ARROWS.has(plain)) return [this.arrow(ARROWS.get(plain))];
    if (ALPHABETS.has(plain)) return [mathml("mi", { mathvariant: "normal" }, [...this.letters()].map((one) => letter(plain, one)).join(""))];
    if (FONTS.has(plain)) return this.inFont(plain);
    if (TEXTS.has(plain)) return [this.text(plain)];
    const size = /^(big|Big|bigg|Bigg)[lrm]?$/.exec(plain);
    if (size) {
      const height = `${SIZES.get(size[1])}em`;
      return [sign(this.fenceSign(), { stretchy: "true", symmetric: "true", minsize: height, maxsize: height })];
    }
    if (IGNORED.has(plain)) return [];
    if (IGNORED_WITH_ARGUMENT.has(plain)) return this.raw(), [];
    if (Object.hasOwn(COMMANDS, plain)) return COMMANDS[plain](this, before);
    return this.fail(`\\${name} is not known`);
  }

  letters() {
    const found = this.raw().trim();
    return /^[A-Za-z0-9 ]+$/.test(found) ? found : this.fail("no letters");
  }

  // In a font, a group; after the old \rm and \bf, the rest of theirs.
  inFont(name) {
    const before = this.font;
    this.font = FONTS.get(name);
    if (["rm", "bf", "it"].includes(name)) return [];
    const word = this.font !== "" && /^\s*\{([A-Za-z]{2,})\}/.exec(this.source.slice(this.at, this.at + 40));
    const found = word ? [this.styled("mi", (this.at += word[0].length) && word[1])] : [this.argument()];
    this.font = before;
    return found;
  }

  styledAs(display, node) {
    return display === null ? node : mathml("mstyle", { displaystyle: display, scriptlevel: "0" }, node);
  }

  big(text, limits) {
    return sign(text, { "data-scripts": limits ? "limits" : "side", movablelimits: limits ? "true" : null });
  }

  named(text, limits, before) {
    const last = before.at(-1);
    const space = last && ["mi", "mn", "msup", "msub", "msubsup", "mfrac", "msqrt", "mrow"].includes(last.localName) ? [gap(0.17)] : [];
    if (!limits) return [...space, mathml("mi", { "data-scripts": "side" }, text)];
    const spaced = { limsup: "lim\u2009sup", liminf: "lim\u2009inf" }[text] ?? text;
    return [...space, sign(spaced, { "data-scripts": "limits", movablelimits: "true", lspace: "0", rspace: "0", form: "prefix" })];
  }

  accent(name) {
    const stretchy = STRETCHED.has(name) ? "true" : "false";
    if (name === "overline" || name === "underline") return mathml("mrow", { class: name }, this.argument());
    const over = ABOVE.has(name);
    const mark = sign(over ? ABOVE.get(name) : BELOW.get(name), { stretchy, lspace: "0", rspace: "0" });
    const node = mathml(over ? "mover" : "munder", over ? { accent: "true" } : { accentunder: "true" }, this.argument(), mark);
    if (name.endsWith("brace")) node.setAttribute("data-scripts", "limits");
    return node;
  }

  arrow(text) {
    const under = this.option();
    const below = under === null ? null : mathml("mrow", {}, this.part(under));
    const above = this.argument();
    const long = sign(text, { stretchy: "true" });
    return below ? mathml("munderover", {}, long, below, above) : mathml("mover", {}, long, above);
  }

  // What stands for \text{...} and its like.
  text(name) {
    const nodes = this.said(this.raw(), TEXTS.get(name));
    return name === "tag" ? mathml("mrow", {}, gap(2), mathml("mtext", {}, "("), nodes, mathml("mtext", {}, ")")) : row(nodes);
  }

  // Text in a formula, and formulas in that, as nodes.
  said(text, font) {
    const parts = text.split(/(?<!\\)\$|\\\(|\\\)/);
    if (parts.length % 2 === 0) this.fail("half a formula in a text");
    return parts.flatMap((part, i) => {
      if (i % 2) return mathml("mrow", {}, this.part(part));
      return part || i === 0 ? mathml("mtext", { class: font || null }, this.plainText(part)) : [];
    });
  }

  plainText(text) {
    const known = { " ": " ", ",": " ", ";": " ", quad: "\u2003", qquad: "\u2003\u2003", "!": "", ldots: "…", dots: "…", textbackslash: "\\" };
    const bare = text.replace(/\\(?:textbf|textit|emph|text|textrm|underline|bf|it|rm)\s*\{([^{}]*)\}/g, "$1");
    const told = bare.replace(/\\([a-zA-Z]+|[^])|[{}~]/g, (found, name) => {
      if (name === undefined) return found === "~" ? " " : "";
      if ("%$#&_{}".includes(name)) return name;
      return Object.hasOwn(known, name) ? known[name] : this.fail(`${found} in a text`);
    });
    return kept(told.replace(/\s+/g, " "));
  }

  fenceSign() {
    const name = this.take();
    const key = name.startsWith("\\") ? name.slice(1) : name;
    return (key === name ? BRACKETS : FENCES).get(key) ?? this.fail(`${name} is no bracket`);
  }

  // \begin{...} has been taken.
  table() {
    const name = this.raw().trim().replace(/\*$/, "");
    if (!TABLES.has(name)) this.fail(`no environment ${name}`);
    let sides = "";
    if (name === "array" || name === "subarray") {
      this.option();
      sides = this.raw();
    } else if (name === "alignat" || name === "alignedat") this.raw();
    else if (["aligned", "gathered"].includes(name)) this.option();
    if (name === "tabular") return this.tabular();
    const rows = this.rows("\\end");
    this.take("\\end");
    if (this.raw().trim().replace(/\*$/, "") !== name) this.fail("another \\end");
    const [open, close] = TABLES.get(name);
    const small = name === "smallmatrix" || name === "subarray";
    const grid = this.grid(rows, ALIGNED.has(name) ? "aligned" : name.endsWith("cases") ? "cases" : small ? "small" : name, sides);
    return open || close ? this.bracketed(open, grid, close) : grid;
  }

  // A table of texts, \begin{tabular} has been taken.
  tabular() {
    const columns = (this.option(), this.raw());
    const end = this.source.indexOf("\\end{tabular}", this.at);
    if (end < 0) this.fail("no \\end");
    const lines = this.source.slice(this.at, end).split(/\\\\(?:\[[^\]]*\])?/);
    const rows = lines.map((line) => ({
      rule: line.includes("\\hline"),
      cells: line.replace(/\\hline|\\cline\{[^}]*\}/g, "").split(/(?<!\\)&/).map((cell) => [this.said(cell.trim())].flat()),
    }));
    if (!lines.at(-1).replace("\\hline", "").trim()) rows.pop();
    this.at = end + "\\end{tabular}".length;
    return this.grid(rows, "tabular", columns);
  }

  bracketed(open, inside, close) {
    const bracket = (text, form) => (text ? [sign(text, { form, stretchy: "true", fence: "true" })] : []);
    return mathml("mrow", {}, bracket(open, "prefix"), inside, bracket(close, "postfix"));
  }

  // Rows of cells until a stop, which is left standing.
  rows(stop) {
    const rows = [{ cells: [[]], rule: false }];
    for (;;) {
      for (let next = this.peek(); next === "\\hline" || next === "\\cline"; next = this.peek()) {
        rows.at(-1).rule = this.take() !== "";
        if (next === "\\cline") this.raw();
      }
      rows.at(-1).cells.push(this.nodes([stop, "&", "\\\\", "\\cr", "\\newline", "\\hline"]));
      const next = this.peek();
      if (next === stop) break;
      if (next === "\\hline") this.fail("a rule inside a row");
      this.take();
      if (next === "&") continue;
      if (/^\s*\[\s*-?[0-9.]+\s*(pt|em|ex|cm|mm|in)\s*\]/.test(this.source.slice(this.at, this.at + 24))) this.option();
      rows.push({ cells: [[]], rule: false });
    }
    for (const one of rows) one.cells.shift();
    if (rows.length > 1 && rows.at(-1).cells.every((cell) => !cell.length)) rows.pop(); // after a last "\\"
    return rows;
  }

  // `columns` is what \\begin{array} says of them: their sides, and bars between.
  grid(rows, kind, columns) {
    const told = columns.replace(/[@!>]\{[^}]*\}/g, "").match(/\|*[lcr]\|*/g) ?? [];
    const usual = (i) => (kind === "aligned" ? (i % 2 ? "left" : "right") : kind === "cases" ? "left" : "center");
    const side = (i) => {
      const name = { l: "left", c: "center", r: "right" }[told[i]?.replace(/\|/g, "")] ?? usual(i);
      return name + (told[i]?.startsWith("|") ? " line-before" : "") + (told[i]?.endsWith("|") ? " line-after" : "");
    };
    const made = rows.map(({ cells, rule }) =>
      mathml("mtr", { class: rule ? "rule" : null }, cells.map((cell, i) => mathml("mtd", { class: side(i) }, cell))),
    );
    const display = ["aligned", "gather", "gathered", "equation", "multline", "displaymath"].includes(kind) ? "true" : null;
    return mathml("mtable", { class: kind, displaystyle: display }, made);
  }
}

const COMMANDS = {
  sqrt(formula) {
    const root = formula.option();
    const inside = formula.argument();
    return [root === null ? mathml("msqrt", {}, inside) : mathml("mroot", {}, inside, mathml("mrow", {}, formula.part(root)))];
  },
  left(formula) {
    const open = formula.fenceSign();
    const parts = [[...formula.nodes(["\\right", "\\middle"])]];
    while (formula.peek() === "\\middle") {
      formula.take();
      parts.push([sign(formula.fenceSign(), { stretchy: "true", form: "infix" }), ...formula.nodes(["\\right", "\\middle"])]);
    }
    formula.take("\\right");
    return [formula.bracketed(open, parts.flat(), formula.fenceSign())];
  },
  begin: (formula) => [formula.table()],
  boxed: (formula) => [mathml("mrow", { class: "boxed" }, formula.argument())],
  framebox: (formula) => [mathml("mrow", { class: "boxed" }, formula.text("text"))],
  fbox: (formula) => [mathml("mrow", { class: "boxed" }, formula.text("text"))],
  operatorname: (formula, before) => formula.named(formula.plainText(formula.raw()), false, before),
  mathop: (formula) => [mathml("mrow", { "data-scripts": "limits" }, formula.argument())],
  bmod: () => [gap(0.25), mathml("mi", {}, "mod"), gap(0.25)],
  pmod: (formula) => [gap(0.5), fence("("), mathml("mi", {}, "mod"), gap(0.3), formula.argument(), fence(")")],
  pod: (formula) => [gap(0.5), fence("("), formula.argument(), fence(")")],
  overset: (formula) => stacked(formula, "mover"),
  stackrel: (formula) => stacked(formula, "mover"),
  underset: (formula) => stacked(formula, "munder"),
  substack: (formula) => {
    const inner = new Formula(`${formula.raw()}\\end`);
    inner.depth = formula.depth + 1;
    return [inner.grid(inner.rows("\\end"), "small", "")];
  },
  not(formula) {
    const [next] = formula.atom();
    const known = { "=": "≠", "∈": "∉", "≡": "≢", "∣": "∤", "⊂": "⊄", "⊆": "⊈", "∥": "∦", "<": "≮", ">": "≯", "≤": "≰", "≥": "≱", "∼": "≁", "≅": "≇", "⇒": "⇏", "→": "↛" };
    return [sign(known[next?.textContent] ?? formula.fail("no sign to negate"))];
  },
  phantom: (formula) => [mathml("mphantom", {}, formula.argument())],
  hphantom: (formula) => [mathml("mphantom", {}, formula.argument())],
  vphantom: (formula) => (formula.argument(), []),
  cancel: (formula) => [mathml("mrow", { class: "cancel" }, formula.argument())],
  textcolor: (formula) => (formula.raw(), [formula.argument()]),
  cancelto(formula) {
    const to = formula.argument();
    return [mathml("msup", {}, mathml("mrow", { class: "cancel" }, formula.argument()), to)];
  },
  ensuremath: (formula) => [formula.argument()],
  mathopen: (formula) => [formula.argument()],
  mathclose: (formula) => [formula.argument()],
};

function stacked(formula, tag) {
  const other = formula.argument();
  return [mathml(tag, {}, formula.argument(), other)];
}

// A formula as an element, null where it holds what is not known.
function drawn(source, display) {
  if (source.length > LONGEST_FORMULA) return null;
  try {
    const formula = new Formula(`${source}\\end`);
    const rows = formula.rows("\\end");
    if (formula.at + 4 !== formula.source.length) return null; // an \end of the source's own
    const one = rows.length === 1 && rows[0].cells.length === 1;
    const inside = one ? rows[0].cells[0] : formula.grid(rows, "aligned", "");
    return mathml("math", { display: display ? "block" : null, title: source }, inside);
  } catch {
    return null;
  }
}
