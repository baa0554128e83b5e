// One variant of an answer: its thinking, its text, and the numbers of how it came about.

const ENDS = {
  natural: "ended by itself",
  forced: "cut at the maximum",
  context: "cut by the context",
  length: "cut at the limit",
  repetition: "cut in a repetition",
};

// Numbers of tokens of a variant, which come with the end of its stream. Given thinking is part of its prompt.
function tokensOf({ usage, givenTokens }) {
  if (!usage) return null;
  const made = usage.completion_tokens;
  const thinking = usage.completion_tokens_details?.reasoning_tokens ?? 0;
  const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
  return { made, thinking: givenTokens + thinking, answer: made - thinking, cached };
}

// The number of thinking tokens: as the server tells it at the end, until then from the length of the text. Before an
// answer has ended there is only the number of pieces that came, each of one token or more.
let charactersPerToken = null;

function thinkingTokens(variant) {
  const { givenTokens, given, thinking, pieces } = variant;
  const guess = charactersPerToken ? Math.round((thinking.length - given) / charactersPerToken) : pieces;
  return tokensOf(variant)?.thinking ?? givenTokens + guess;
}

function learnLength({ usage, thinking, given }) {
  const tokens = usage?.completion_tokens_details?.reasoning_tokens;
  if (tokens && thinking.length > given) charactersPerToken = (thinking.length - given) / tokens;
}

// How the thinking ended, as far as that was told.
function endOf({ thinkingEnd, mode, usage, thinking }) {
  if (!thinkingEnd) return usage && !thinking ? "no thinking" : null;
  return mode === "answer" && thinkingEnd === "forced" ? "cut where you chose" : (ENDS[thinkingEnd] ?? thinkingEnd);
}

const counted = (count, one, many, title = null) => [number(count), count === 1 ? one : many, title];

// The numbers below an answer: a value, what it counts, and more about it.
function numbersOf(variant) {
  const tokens = tokensOf(variant);
  const { first, last, started, ignores, finish, settings, thinking, phase, mode } = variant;
  const speed = tokens && tokens.made > 1 && last > first && ((tokens.made - 1) / (last - first)) * 1000;
  const end = endOf(variant);
  const showsWaits = ignores !== null && thinking && settings.waits > 0 && mode !== "answer";
  return [
    phase === "stopped" && ["", "stopped"],
    tokens && thinking && counted(tokens.thinking, "thinking token", "thinking tokens"),
    tokens && counted(tokens.answer, "answer token", "answer tokens", "all tokens after the thinking, with markers"),
    speed && [number(speed, speed < 9.95 ? 1 : 0), "tokens/s", "after the first token"],
    end && ["", end, "how the thinking ended"],
    (ignores || showsWaits) && counted(ignores, "Wait", "Waits", "suppressed ends of thinking"),
    tokens && [number(tokens.cached), "cached", "tokens of the prompt that were read from the prefix cache"],
    first && [`${seconds(first - started)} s`, "to first token"],
    finish === "length" && ["", "answer cut at the limit"],
    tokens && ["", `seed ${variant.sampling.seed}`, "the same seed and settings give the same answer"],
  ].filter(Boolean);
}

function variantView(variant, { branch, again }) {
  const thinking = thinkingView(variant, branch);
  const text = el("div", { class: "answer", dir: "auto" });
  const numbers = el("ul", { class: "numbers" });
  const copied = button("Copy", () => copy(variant.content, copied), { class: "link" });
  const retry = button("Regenerate", again, { class: "link" });
  const tools = el("div", { class: "below", hidden: true }, retry, copied);
  const wait = el("p", { class: "waiting" }, el("span"), el("span"), el("span"));
  const node = el("div", { class: "variant", tabindex: -1 }, wait, thinking.node, text, numbers, tools);
  const growing = growingText(text, (write) => keepingEnd(byId("chat"), write));

  const append = (part, piece) => {
    wait.remove();
    if (part === "thinking") thinking.append(piece);
    else growing.append(variant.content.trim() === piece.trim() ? piece.trimStart() : piece);
  };
  const showCount = () => {
    thinking.count.textContent = `${variant.usage ? "" : "about "}${some(thinkingTokens(variant), "token")}`;
  };
  const item = ([value, what, title = null]) => el("li", { title }, value ? [el("b", {}, value), " "] : [], what);
  const finish = () => {
    wait.remove();
    growing.flush();
    keepingEnd(byId("chat"), () => {
      thinking.finish();
      text.replaceChildren(...withMarkup(variant.content.trim()));
      stretch(text);
      numbers.replaceChildren(...numbersOf(variant).map(item));
      tools.hidden = false;
      copied.hidden = !variant.content;
      if (!variant.error) return;
      retry.textContent = "Try again";
      numbers.before(el("p", { class: "error", role: "alert" }, variant.error));
    });
  };
  return { node, append, finish, showCount, text, thinking };
}

async function copy(text, from) {
  try {
    await navigator.clipboard.writeText(text);
    from.textContent = "Copied";
  } catch {
    from.textContent = "The browser does not allow it";
  }
  setTimeout(() => (from.textContent = "Copy"), 1500);
}

// An answer with its formulas, code, headings and bold words drawn; all else as it is written.
const CODE = /```[^\n`]*\n([^]*?)\n?```\n?|`([^`\n]+)`/g;
const MARKS = /\*\*([^*\n]+)\*\*|^#{1,5} +(.+)$/gm;

const withMarkup = (text) => closedUp(replaced(text, CODE, codeNode, prose));
const plain = (text) => (text ? [text] : []);
const codeNode = (match) => (match[1] === undefined ? el("code", {}, match[2]) : el("pre", {}, match[1]));
const prose = (text) => withFormulas(text).flatMap((node) => (typeof node === "string" ? withBold(node) : [node]));
const withBold = (text) => replaced(text, MARKS, (match) => el("b", {}, match[1] ?? match[2]), plain);

// Blocks begin and end a line by themselves.
const isBlock = (node) => node?.localName === "pre" || node?.className === "display";

function closedUp(nodes) {
  return nodes.map((node, i) => {
    if (typeof node !== "string") return node;
    const text = isBlock(nodes[i - 1]) ? node.replace(/^\n+/, "") : node;
    return isBlock(nodes[i + 1]) ? text.replace(/\n+$/, "") : text;
  });
}

// The nodes of a text: those of its matches, and those of what stands between.
function replaced(text, pattern, nodeOf, nodesBetween) {
  const nodes = [];
  let at = 0;
  for (const match of text.matchAll(pattern)) {
    nodes.push(...nodesBetween(text.slice(at, match.index)), nodeOf(match));
    at = match.index + match[0].length;
  }
  return [...nodes, ...nodesBetween(text.slice(at))];
}
