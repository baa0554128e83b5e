// A conversation is a tree: a turn is a question with the variants of its answer, each of which may have a next turn.

function newTurn(question, parent) {
  const asked = el("p", { class: "question", dir: "auto" }, el("span", { class: "unseen" }, "You: "), question);
  const tabs = el("div", { class: "tabs", role: "group", "aria-label": "variants of this answer", hidden: true });
  const place = el("div");
  return { question, parent, variants: [], shown: null, tabs, place, node: el("article", {}, asked, tabs, place) };
}

// Shows one variant of a turn, with the turns that follow it.
function showVariant(turn, variant) {
  turn.shown = variant;
  turn.place.replaceChildren(variant.view.node, variant.rest);
  drawTabs(turn);
}

// A bar of thinking tokens up to a maximum, with what was given by another variant in a shade of its own.
function drawBar(node, variant, most) {
  const tokens = thinkingTokens(variant);
  const { minimum, maximum } = variant.settings;
  const percent = (value) => Math.min(1, value / most) * 100;
  const part = (name, from, to) => {
    const one = el("i", { class: name });
    one.style.left = `${percent(from)}%`;
    one.style.width = `${percent(to) - percent(from)}%`;
    return one;
  };
  const given = Math.min(variant.givenTokens, tokens);
  const isBound = variant.mode !== "answer";
  const least = isBound && minimum > 1 && minimum <= most ? [part("least", minimum, minimum)] : [];
  node.replaceChildren(part("given", 0, given), part("new", given, tokens), ...least);
  const bound = isBound && maximum !== null ? ` of at most ${number(maximum)}` : "";
  node.title = `${some(tokens, "thinking token")}${bound}`;
  node.setAttribute("aria-label", node.title);
}

const boundsOf = (variants) => variants.map(({ mode, settings }) => (mode === "answer" ? 0 : (settings.maximum ?? 0)));

// Draws the bars of a turn, all with the same right end: the largest maximum, or else the most tokens.
function drawBars({ variants, tabs }) {
  const bounds = boundsOf(variants);
  const most = Math.max(1, ...bounds, ...variants.map(thinkingTokens));
  variants.forEach((variant, i) => {
    drawBar(variant.view.thinking.bar, variant, most);
    variant.view.thinking.bar.hidden = variants.length < 2 && bounds[i] === 0; // it would always be full
    const tab = tabs.children[i];
    if (!tab) return;
    drawBar(tab.querySelector(".bar"), variant, most);
    tab.querySelector(".count").textContent = number(thinkingTokens(variant));
    tab.querySelector(".end").textContent = lastLine(variant);
  });
}

// The last line of an answer, which often has the result.
function lastLine({ view, content, phase }) {
  if (!content) return phase === "stopped" || phase === "failed" ? phase : "";
  return lastWords(view.text.textContent.trimEnd().split("\n").at(-1));
}

// One tab for each variant, once there are several.
function drawTabs(turn) {
  const { variants, tabs, shown } = turn;
  const choose = (variant, i) => {
    showVariant(turn, variant);
    tabs.children[i].focus();
  };
  const tab = (variant, i) => {
    const title = el("span", { class: "how" }, el("b", {}, String(i + 1)), ` ${variant.how}`);
    const bar = el("span", { class: "bar", role: "img" });
    const length = el("span", { class: "length" }, bar, el("span", { class: "count" }));
    const attributes = { "aria-pressed": variant === shown, title: `${variant.how}. ${variant.budget}` };
    return button([title, length, el("span", { class: "end" })], () => choose(variant, i), attributes);
  };
  tabs.hidden = variants.length < 2;
  tabs.replaceChildren(...(tabs.hidden ? [] : variants.map(tab)));
  drawBars(turn);
}

// The messages up to a turn's question, without any thinking. A question without an answer is joined to the next one:
// many chat templates want questions and answers to take turns.
function messagesTo({ question, parent }) {
  const messages = parent ? messagesTo(parent.turn) : [];
  if (parent?.content) messages.push({ role: "assistant", content: parent.content });
  const last = messages.at(-1);
  if (last?.role !== "user") return [...messages, { role: "user", content: question }];
  return [...messages.slice(0, -1), { role: "user", content: `${last.content}\n\n${question}` }];
}
