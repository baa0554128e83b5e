// How the next answer is made: the panel's controls, and the fields of requests that follow from them.

const settings = {
  thinking: true,
  minimum: 1, // thinking tokens
  maximum: null, // thinking tokens; null: no maximum
  waits: 0,
  string: "Wait",
  temperature: 1,
  seed: null, // null: another one each time
  completion: null, // tokens of thinking and answer; null: as many as fit
};
const LONGEST_THINKING = 32768; // tokens, of a server that does not tell what it can take
const MOST_WAITS = 8; // of the slider; the box takes more
const NO_MAXIMUM = -1; // on the wire
const LARGEST_SEED = 2 ** 31;
let scale = []; // numbers of tokens at the positions of the slider
const views = []; // functions that show the settings

// 1, 2, 3, 4, 6, 8, 12, ... and the limit.
function scaleTo(limit) {
  const values = [1, 2, 3];
  while (values.at(-1) < limit) values.push(values.at(-2) * 2);
  return [...values.filter((value) => value < limit), limit];
}

const positionFor = (tokens) => scale.findLastIndex((value) => value <= Math.max(tokens, 1));
const isBounded = () => typeof server.offers.max_thinking_tokens === "number"; // by the server
const longest = () => server.offers.max_thinking_tokens ?? server.length ?? LONGEST_THINKING;
const withinBounds = (tokens) => Math.min(tokens, longest());

function change(values) {
  Object.assign(settings, values);
  if (isBounded()) settings.maximum = withinBounds(settings.maximum ?? longest());
  settings.minimum = withinBounds(settings.minimum);
  if (settings.maximum !== null && settings.minimum > settings.maximum) {
    if ("maximum" in values) settings.minimum = settings.maximum;
    else settings.maximum = settings.minimum;
  }
  for (const view of views) view();
}

// A number box; an empty one stands for `empty`, and what is no number at all for the value before.
function numberBox(id, name, empty) {
  const box = byId(id);
  const read = () => {
    const value = box.step === "any" ? box.valueAsNumber : Math.round(box.valueAsNumber);
    const isEmpty = Number.isNaN(value) && !box.validity.badInput;
    const inRange = Math.max(Number(box.min), Math.min(value, Number(box.max || Infinity)));
    change(isEmpty ? { [name]: empty } : Number.isNaN(inRange) ? {} : { [name]: inRange });
  };
  box.addEventListener("change", read);
  views.push(() => (box.value = settings[name] ?? ""));
}

function slider(id, read, show) {
  const one = byId(id);
  one.addEventListener("input", () => change(read(Number(one.value))));
  views.push(() => show(one));
}

function fill(one, value) {
  one.value = value;
  one.style.setProperty("--at", `${((one.value - one.min) / (one.max - one.min)) * 100}%`);
}

function showBudget() {
  const { minimum, maximum } = settings;
  const last = Number(byId("maximum-slider").max);
  const at = [positionFor(minimum), maximum === null ? last : positionFor(maximum)];
  for (const [one, position, text] of [
    [byId("minimum-slider"), at[0], `${number(minimum)} tokens`],
    [byId("maximum-slider"), at[1], maximum === null ? "no maximum" : `${number(maximum)} tokens`],
  ]) {
    one.value = position;
    one.setAttribute("aria-valuetext", text);
  }
  byId("minimum-slider").classList.toggle("above", at[0] > last / 2); // where both meet, the one that can move
  const place = (position) => `calc(9px + (100% - 18px) * ${position / last})`;
  byId("span").style.left = place(at[0]);
  byId("span").style.right = place(last - at[1]);
  byId("sentence").textContent = sentence(settings);
  byId("controls").hidden = !settings.thinking;
  byId("thinking").checked = settings.thinking;
}

function sentence({ thinking, minimum, maximum, waits }) {
  if (!thinking) return "The answer begins at once.";
  const least = minimum > 1 ? `It thinks for at least ${some(minimum, "token")}` : "It thinks as long as it likes";
  const most = maximum === null ? "" : `${minimum > 1 ? ", and" : ", but"} is cut at ${some(maximum, "token")}`;
  const strings = [ignoreString()].flat().map((string) => `\u201c${string}\u201d`).join(" or ");
  const ends = waits === 1 ? "The first time it would stop" : `The first ${number(waits)} times it would stop`;
  return `${least}${most}.${waits ? ` ${ends}, ${strings} is put there instead.` : ""}`;
}

// The ignore string; several, which take turns, stand with " | " between them.
const ignoreString = () => (settings.string.includes(" | ") ? settings.string.split(" | ") : settings.string);
const firstString = () => [ignoreString()].flat()[0];

function drawTicks(last) {
  const short = (tokens) => (tokens >= 4096 ? `${Math.round(tokens / 1024)}k` : number(tokens));
  const tick = (text, at) => {
    const one = el("span", {}, text);
    one.style.left = `${(at / last) * 100}%`;
    return one;
  };
  const isMarked = (tokens, at) => Math.log2(tokens) % 4 === 0 && at / last < 0.75;
  const marks = scale.flatMap((tokens, at) => (isMarked(tokens, at) ? [tick(short(tokens), at)] : []));
  byId("ticks").replaceChildren(...marks, tick(isBounded() ? short(longest()) : "no max", last));
}

// Sets the limits of the controls to the server's.
function applyOffers() {
  const { max_num_ignore: mostWaits = 64, budget = {}, sampling = {}, thinking } = server.offers;
  scale = scaleTo(longest());
  const last = scale.length - (isBounded() ? 1 : 0);
  for (const id of ["minimum-slider", "maximum-slider"]) Object.assign(byId(id), { min: 0, max: last, step: 1 });
  for (const id of ["minimum", "maximum"]) byId(id).max = longest();
  Object.assign(byId("waits-slider"), { min: 0, max: Math.min(MOST_WAITS, mostWaits), step: 1 });
  byId("waits").max = mostWaits;
  byId("maximum").placeholder = isBounded() ? number(longest()) : "no maximum";
  drawTicks(last);
  change({
    thinking: thinking !== false,
    minimum: budget.min_tokens ?? 1,
    maximum: budget.max_tokens ?? null,
    waits: budget.num_ignore ?? 0,
    string: [budget.ignore_string ?? "Wait"].flat().join(" | "),
    temperature: sampling.temperature ?? 1,
  });
}

function connectSettings() {
  const last = () => Number(byId("maximum-slider").max);
  const tokensAt = (position) => scale[Math.min(position, scale.length - 1)];
  slider("minimum-slider", (at) => ({ minimum: tokensAt(at) }), () => {});
  slider("maximum-slider", (at) => ({ maximum: at === last() && !isBounded() ? null : tokensAt(at) }), showBudget);
  slider("waits-slider", (waits) => ({ waits }), (one) => fill(one, settings.waits));
  Object.assign(byId("temperature-slider"), { min: 0, max: 2, step: 0.05 });
  slider("temperature-slider", (temperature) => ({ temperature }), (one) => fill(one, settings.temperature));
  numberBox("minimum", "minimum", 1);
  numberBox("maximum", "maximum", null);
  numberBox("waits", "waits", 0);
  numberBox("temperature", "temperature", 1);
  numberBox("seed", "seed", null);
  numberBox("completion", "completion", null);
  byId("thinking").addEventListener("change", (event) => change({ thinking: event.target.checked }));
  byId("string").addEventListener("input", (event) => change({ string: event.target.value }));
  views.push(() => byId("string").value !== settings.string && (byId("string").value = settings.string));
}

// The fields of a request that say how long to think.
function budgetFields({ thinking, minimum, maximum, waits }) {
  if (!thinking) return { enable_thinking: false };
  // a request without a maximum gets the server's own, where it has one
  const most = maximum ?? (typeof server.offers.budget?.max_tokens === "number" ? NO_MAXIMUM : null);
  const strings = { num_ignore: waits, ignore_string: ignoreString() };
  return { thinking: { ...(most !== null && { max_tokens: most }), min_tokens: minimum, ...strings } };
}

// The fields that cut given thinking at once, since it has at least one token. The server's minimum must not forbid it.
function endNow() {
  return { thinking: { max_tokens: 1, ...(server.offers.budget?.min_tokens > 1 && { min_tokens: 1 }) } };
}

// The other fields of a request. A seed is always sent, so that every answer can be had again.
function samplingFields({ temperature, seed, completion }) {
  const limit = completion !== null && { max_completion_tokens: completion };
  return { temperature, seed: seed ?? Math.floor(Math.random() * LARGEST_SEED), ...limit };
}
