// A cut in finished thinking, set by a click or by keys, and what can be done there.

const SEGMENTER = globalThis.Intl?.Segmenter && new Intl.Segmenter("en", { granularity: "word" });
let beginsWithString = true; // whether thinking on begins with the ignore string

// The positions in a text at which a word or a sign ends.
function wordEnds(text) {
  if (!SEGMENTER) return [...text.matchAll(/\S+/g)].map((match) => match.index + match[0].length);
  const segments = [...SEGMENTER.segment(text)].filter(({ segment }) => segment.trim());
  return segments.map(({ segment, index }) => index + segment.length);
}

// The position in an element's text at a point of the screen; null where there is none.
function positionAt(root, x, y) {
  const caret = document.caretPositionFromPoint?.(x, y) ?? document.caretRangeFromPoint?.(x, y);
  const node = caret?.offsetNode ?? caret?.startContainer;
  if (!root.contains(node ?? null)) return null;
  const before = new Range();
  before.setStart(root, 0);
  before.setEnd(node, caret.offset ?? caret.startOffset);
  return before.toString().length;
}

// Where a key moves a cut to; undefined for any other key.
function moved(key, cut, ends, lineEnds) {
  const before = (all) => all.findLast((end) => end < cut) ?? ends[0];
  const after = (all) => all.find((end) => end > cut) ?? ends.at(-1);
  if (key === "ArrowLeft") return before(ends);
  if (key === "ArrowRight") return after(ends);
  if (key === "ArrowUp") return before(lineEnds);
  if (key === "ArrowDown") return after(lineEnds);
  return { Home: ends[0], End: ends.at(-1) }[key];
}

// What stands between thinking and an ignore string after it.
const spaceBetween = (text, string) => (/\S$/.test(text) && /^\S/.test(string) ? " " : "");

// The ignore string may be changed while thinking offers to begin with it.
const offer = () => ` begin with ${quoted(firstString())}`;
views.push(() => {
  for (const one of document.querySelectorAll(".offer")) one.textContent = offer();
});

// Lets thinking be cut. Gives the actions that belong below it.
function makeCuttable(text, variant, branch) {
  const { thinking } = variant;
  const lead = thinking.length - thinking.trimStart().length; // which is not shown
  const ends = wordEnds(thinking);
  const isLineEnd = (end, i) => thinking.slice(end, ends[i + 1]).includes("\n") || i === ends.length - 1;
  const lineEnds = ends.filter(isLineEnd);
  const actions = el("div", { class: "actions" });
  let cut = null;

  const set = (position) => {
    cut = position;
    const marker = drawThinking(text, variant, cut);
    showActions();
    if (!marker) return;
    bringIntoSight(marker, text);
    say(isWhole() ? "cut at the end of thinking" : `cut after ${quoted(lastWords(thinking.slice(0, cut)))}`);
  };
  const isWhole = () => cut === null || cut === ends.at(-1);
  const choose = (mode, begins) => branch(mode, isWhole() ? thinking : thinking.slice(0, cut), isWhole(), begins);

  const showActions = () => {
    const whether = el("input", { type: "checkbox", checked: beginsWithString });
    whether.addEventListener("change", () => (beginsWithString = whether.checked));
    const place = isWhole() ? "the end" : "here";
    const think = button(`Think on from ${place}`, () => choose("think", whether.checked));
    const begins = el("label", {}, whether, el("span", { class: "offer" }, offer()));
    if (cut === null) {
      actions.replaceChildren(el("span", { class: "hint" }, "Click a word to cut the thinking there."), think, begins);
      return;
    }
    const told = el("span", { class: "told" }, isWhole() ? "At the end:" : "From this cut:");
    const answer = button(`Answer from ${place}`, () => choose("answer", false), { class: "first" });
    const attributes = { class: "away", "aria-label": "take the cut away", title: "take the cut away (Esc)" };
    actions.replaceChildren(told, answer, think, begins, button("\u00d7", () => (set(null), text.focus()), attributes));
  };

  text.addEventListener("click", ({ clientX, clientY }) => {
    const position = getSelection().isCollapsed ? positionAt(text, clientX, clientY) : null; // else text was selected
    if (position === null) return;
    const distance = (end) => Math.abs(end - lead - position);
    set(ends.reduce((best, end) => (distance(end) < distance(best) ? end : best)));
  });
  text.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const to = moved(event.key, cut ?? ends.at(-1), ends, lineEnds);
    if (to !== undefined) set(to);
    else if (event.key === "Enter") {
      if (cut === null) set(ends.at(-1));
      actions.querySelector("button").focus();
    } else if (event.key === "Escape" && cut !== null && !running) set(null);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  text.classList.add("done");
  text.tabIndex = 0;
  text.setAttribute("aria-label", "thinking; arrow keys move a cut, Enter chooses what to do there");
  set(null);
  return actions;
}

function bringIntoSight(node, scroller) {
  const [box, frame] = [node.getBoundingClientRect(), scroller.getBoundingClientRect()];
  const isInSight = box.top >= frame.top + 8 && box.bottom <= frame.bottom - 8;
  if (!isInSight) scroller.scrollTop += box.top - (frame.top + frame.bottom) / 2;
}
