// The thinking of an answer, as it grows and afterwards, when it can be cut.

function thinkingView(variant, branch) {
  const text = el("div", { class: "thinking", dir: "auto", role: "group", "aria-label": "thinking" });
  const body = el("div", {}, text);
  const fold = button("Thinking", () => setFolded(!body.hidden), { class: "fold", "aria-expanded": true });
  const tall = button("", () => setTall(!text.classList.contains("tall")), { class: "link", hidden: true });
  const count = el("span", { class: "count" });
  const bar = el("span", { class: "bar", role: "img" });
  const head = el("div", { class: "head" }, fold, count, bar, tall);
  const node = el("div", { class: "thoughts", hidden: !variant.thinking }, head, body);
  const growing = growingText(text, (write) => keepingEnd(byId("chat"), () => keepingEnd(text, write)));
  let isFinished = false;

  const setFolded = (isFolded) => {
    body.hidden = isFolded;
    fold.setAttribute("aria-expanded", !isFolded);
    setTall(text.classList.contains("tall"));
  };
  const setTall = (isWhole) => {
    text.classList.toggle("tall", isWhole);
    tall.textContent = isWhole ? "show less" : "show all";
    tall.setAttribute("aria-expanded", isWhole);
    tall.hidden = body.hidden || !isFinished || !(isWhole || text.scrollHeight > text.clientHeight + 4);
  };
  const append = (piece) => {
    const isFirst = node.hidden;
    node.hidden = false;
    growing.append(isFirst ? piece.trimStart() : piece);
  };
  // From now on it can be cut.
  const finish = () => {
    growing.flush();
    isFinished = true;
    node.hidden = !variant.thinking.trim();
    if (node.hidden) return;
    const atEnd = text.scrollTop;
    body.append(makeCuttable(text, variant, branch));
    text.scrollTop = atEnd;
    setTall(false);
  };
  if (variant.thinking) drawThinking(text, variant, null);
  return { node, append, finish, count, bar, focus: () => text.focus() };
}

// Draws thinking: what was given, the string that was appended to it, and what is new. A cut has a marker, which is
// returned, and all after it is pale.
function drawThinking(text, { thinking, given, appended }, cut) {
  const lead = thinking.length - thinking.trimStart().length;
  const parts = [
    ["span", "given", lead, given - appended],
    ["mark", "appended", given - appended, given],
    ["span", "new", Math.max(given, lead), thinking.length],
  ];
  const between = (start, end) =>
    parts
      .map(([tag, name, from, to]) => [tag, name, Math.max(from, start), Math.min(to, end)])
      .filter(([, , from, to]) => from < to)
      .map(([tag, name, from, to]) => el(tag, { class: name }, thinking.slice(from, to)));
  const marker = cut === null ? null : el("span", { class: "marker" });
  const after = cut === null ? null : el("span", { class: "dropped" }, between(cut, thinking.length));
  const top = text.scrollTop;
  text.replaceChildren(...[...between(0, cut ?? thinking.length), marker, after].filter(Boolean));
  text.scrollTop = top;
  return marker;
}
