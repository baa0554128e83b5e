// The conversation: what is sent, what comes, and the keys.

let first = null; // the first turn
let running = null; // { controller, variant } while an answer comes

const lastTurn = () => {
  let turn = first;
  while (turn?.shown?.next) turn = turn.shown.next;
  return turn;
};

// A new answer to a turn's question: from the start, or from thinking that is given.
function newVariant(turn, how, { mode = "ask", given = "", appended = 0, givenTokens = 0, source = null } = {}) {
  const asked = { mode, source, settings: { ...settings, thinking: settings.thinking || mode !== "ask" } };
  const system = source ? source.system : byId("system").value.trim();
  const prompt = { system, sampling: samplingFields(settings), given: given.length, appended, givenTokens };
  const told = { usage: null, thinkingEnd: null, ignores: null, finish: null, error: null };
  const times = { started: performance.now(), first: 0, last: 0, pieces: 0 };
  const budget = mode === "answer" ? "" : sentence(asked.settings);
  const place = { turn, how, budget, next: null, rest: el("div") };
  const variant = { ...place, ...asked, ...prompt, ...told, ...times, phase: "waiting", thinking: given, content: "" };
  const branch = (...choice) => branchOff(variant, ...choice);
  variant.view = variantView(variant, { branch, again: () => again(variant) });
  return variant;
}

function requestOf({ turn, mode, thinking, settings, sampling, system }) {
  const messages = [...(system ? [{ role: "system", content: system }] : []), ...messagesTo(turn)];
  const given = mode !== "ask" && { continue_final_message: true };
  if (given) messages.push({ role: "assistant", reasoning_content: thinking });
  const budget = mode === "answer" ? endNow() : budgetFields(settings);
  const stream = { stream: true, stream_options: { include_usage: true } };
  return { model: server.model, messages, ...stream, ...sampling, ...given, ...budget };
}

// Decodes an answer and shows it as it comes. What came stays, whatever happens.
async function decode(variant) {
  const { turn, view } = variant;
  const controller = new AbortController();
  turn.variants.push(variant);
  keepingEnd(byId("chat"), () => showVariant(turn, variant));
  if (variant.source) view.node.focus({ preventScroll: true }); // what had the focus is gone
  running = { controller, variant };
  showRunning();
  try {
    if (!server.model) await start();
    await complete(requestOf(variant), controller.signal, (frame) => take(variant, frame));
    variant.phase = "finished";
  } catch (error) {
    variant.phase = error.name === "AbortError" ? "stopped" : "failed";
    if (variant.phase === "failed") variant.error = error.message;
    if (error.status === 401) askForKey();
  }
  running = null;
  showRunning();
  countGiven(variant);
  view.finish();
  view.showCount();
  drawTabs(turn);
  say(outcome(variant));
}

// Counts given thinking: what the prompt has beyond that of the first variant. Without their usage it stays a guess.
function countGiven(variant) {
  const { usage, source, mode } = variant;
  learnLength(variant);
  variant.base = source ? source.base : mode === "ask" && variant.thinking ? usage?.prompt_tokens : undefined;
  if (source && usage && variant.base !== undefined) variant.givenTokens = usage.prompt_tokens - variant.base;
}

function take(variant, frame) {
  const [choice] = frame.choices ?? [];
  if (frame.usage) variant.usage = frame.usage;
  if (!choice) return;
  const { reasoning_content: thinking, content } = choice.delta ?? {};
  for (const [part, piece] of [["thinking", thinking], ["content", content]]) {
    if (!piece) continue;
    variant[part] += piece;
    variant.first ||= performance.now();
    variant.last = performance.now();
    if (part === "thinking") variant.pieces++;
    enter(variant, part === "thinking" ? "thinking" : "answering");
    variant.view.append(part, piece);
  }
  variant.finish = choice.finish_reason ?? variant.finish;
  variant.thinkingEnd = choice.thinking_end ?? variant.thinkingEnd;
  variant.ignores = choice.ignores_used ?? variant.ignores;
}

function enter(variant, phase) {
  if (variant.phase === phase) return;
  variant.phase = phase;
  say(phase === "thinking" ? "Thinking" : "Answering");
}

function outcome(variant) {
  const tokens = tokensOf(variant);
  if (variant.phase === "failed") return "The answer failed.";
  if (variant.phase === "stopped") return "Stopped. What came stays.";
  return tokens ? `Done: ${some(tokens.thinking, "thinking token")}, ${some(tokens.answer, "answer token")}.` : "Done.";
}

// Ten times a second: how long it takes, and how long the thinking is.
setInterval(() => {
  if (!running) return;
  const { variant } = running;
  byId("clock").textContent = `${number((performance.now() - variant.started) / 1000, 1)} s`;
  if (variant.phase !== "thinking" && variant.phase !== "answering") return;
  variant.view.showCount();
  drawBars(variant.turn);
}, 100);

function showRunning() {
  byId("send").hidden = Boolean(running);
  byId("stop").hidden = !running;
  byId("clock").textContent = "";
  if (running) say("Waiting for the first token");
}

const stop = () => running?.controller.abort();

// Whether something else can begin; one answer comes at a time.
function isFree() {
  if (running) say("An answer is on its way. Escape stops it.");
  return !running;
}

function send() {
  const text = byId("message").value;
  if (!text.trim() || !isFree()) return;
  byId("message").value = "";
  fit();
  const before = lastTurn();
  const turn = newTurn(text.trim(), before?.shown ?? null);
  if (before) before.shown.next = turn;
  else first = turn;
  (before?.shown.rest ?? byId("turns")).append(turn.node);
  byId("welcome").hidden = true;
  openSettings(false);
  byId("chat").scrollTop = byId("chat").scrollHeight;
  decode(newVariant(turn, "asked"));
}

function again(variant) {
  if (!isFree()) return;
  decode(newVariant(variant.turn, "regenerated"));
}

// A new variant from thinking that is cut, or at its end: to the answer, or further into thinking.
function branchOff(variant, mode, kept, whole, begins) {
  if (!isFree()) return;
  const { turn, thinking } = variant;
  const string = begins ? firstString() : "";
  const given = kept + spaceBetween(kept, string) + string;
  const here = whole ? "" : ` after ${quoted(lastWords(kept))}`;
  const does = mode === "answer" ? "answers" : "thinks on";
  const how = `from ${turn.variants.indexOf(variant) + 1}: ${does}${here}${begins ? `, ${quoted(string)}` : ""}`;
  const givenTokens = Math.round((thinkingTokens(variant) * given.length) / Math.max(1, thinking.length));
  decode(newVariant(turn, how, { mode, given, appended: string.length, givenTokens, source: variant }));
}

function newChat() {
  stop();
  first = null;
  byId("turns").replaceChildren();
  byId("welcome").hidden = false;
  say("");
  byId("message").focus();
}

function askForKey() {
  openSettings(true);
  byId("connection").open = true;
  byId("key").focus();
}

function openSettings(open) {
  document.body.classList.toggle("settings-open", open);
  byId("open-settings").setAttribute("aria-expanded", open);
}

// The message box is as tall as its text, up to a limit of the style.
function fit() {
  const box = byId("message");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight}px`;
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function setTheme(theme) {
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
  byId("theme").setAttribute("aria-pressed", isDark());
}

async function start() {
  await loadModel();
  byId("problem").hidden = true;
  applyOffers();
  byId("model").textContent = server.model;
  byId("model").title = server.length ? `${some(server.length, "token")} of prompt, thinking and answer` : "";
  document.title = `${server.model} \u00b7 s1_jax`;
  const { example } = server.offers;
  byId("example").hidden = !example;
  byId("example").replaceChildren(...(example ? [el("span", {}, "Try"), example] : []));
}

async function tryToStart() {
  try {
    await start();
    say("Ready");
  } catch (error) {
    byId("problem").textContent = error.message;
    byId("problem").hidden = false;
    if (error.status === 401) askForKey();
  }
}

const KEYS = {
  "/": () => byId("message").focus(),
  "?": () => byId("keys").showModal(),
  t: () => lastTurn()?.shown?.view.thinking.focus(),
};

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !byId("keys").open) {
    if (running) stop();
    else if (document.body.classList.contains("settings-open")) (openSettings(false), byId("open-settings").focus());
  }
  const typing = event.target.matches?.("input:not([type=range], [type=checkbox]), textarea");
  const isOther = event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(KEYS, event.key);
  if (typing || isOther || byId("keys").open) return;
  event.preventDefault();
  KEYS[event.key]();
});
byId("message").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
byId("message").addEventListener("input", fit);
byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
byId("stop").addEventListener("click", stop);
byId("new").addEventListener("click", newChat);
byId("open-keys").addEventListener("click", KEYS["?"]);
byId("open-settings").addEventListener("click", () => openSettings(!document.body.classList.contains("settings-open")));
byId("key").addEventListener("change", () => {
  server.key = byId("key").value;
  tryToStart();
});
byId("example").addEventListener("click", () => {
  byId("message").value = server.offers.example;
  fit();
  byId("message").focus();
});
byId("theme").addEventListener("click", () => {
  setTheme(isDark() ? "light" : "dark");
  remember("theme", document.documentElement.dataset.theme);
});

setTheme(remembered("theme"));
connectSettings();
applyOffers();
tryToStart();
