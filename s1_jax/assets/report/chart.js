// The scaling plot: the series, colours and marks of scaling.png, drawn to the width there is.

const SIZE = 5; // pixels from a mark's middle to its rim
const around = (n, radius, turn) =>
  Array.from({ length: n }, (_, i) => {
    const angle = ((i + turn) / n) * 2 * Math.PI - Math.PI / 2;
    const r = Array.isArray(radius) ? radius[i % radius.length] : radius;
    return [r * Math.cos(angle), r * Math.sin(angle)];
  });
const PLUS = [[-2, -6], [2, -6], [2, -2], [6, -2], [6, 2], [2, 2], [2, 6], [-2, 6], [-2, 2], [-6, 2], [-6, -2], [-2, -2]];
const turned = (points) => points.map(([x, y]) => [(x - y) * Math.SQRT1_2, (x + y) * Math.SQRT1_2]);
const MARKS = {
  // by matplotlib's letters
  o: around(24, SIZE, 0),
  s: around(4, SIZE * 1.25, 0.5),
  d: around(4, [SIZE * 1.4, SIZE * 0.85], 0),
  p: around(5, SIZE * 1.15, 0),
  "<": around(3, SIZE * 1.25, 0.75),
  ">": around(3, SIZE * 1.25, 0.25),
  H: around(6, SIZE * 1.1, 0.5),
  8: around(8, SIZE * 1.1, 0.5),
  D: around(4, SIZE * 1.25, 0),
  h: around(6, SIZE * 1.1, 0),
  "^": around(3, SIZE * 1.25, 0),
  v: around(3, SIZE * 1.25, 0.5),
  "*": around(10, [SIZE * 1.5, SIZE * 0.65], 0),
  P: PLUS,
  X: turned(PLUS),
};

const path = (points, x = 0, y = 0) => points.map(([a, b], i) => `${i ? "L" : "M"}${(x + a).toFixed(1)} ${(y + b).toFixed(1)}`).join("");

// Colours are told to the style sheet, which makes them lighter on a dark ground.
function coloured(node, colour) {
  node.style.setProperty("--colour", colour);
  return node;
}

function scaleOf(points, width, height) {
  const exponents = points.length ? points.map((point) => Math.log2(point.tokens)) : [4, 10];
  const left = Math.min(...exponents) - 0.35;
  const right = Math.max(...exponents) + 0.35;
  const highest = points.length ? Math.max(...points.map((point) => point.interval[1])) : 100;
  const top = Math.min(1.12 * highest, highest + 3) || 1;
  const bottom = -0.03 * highest;
  const frame = { left: 44, right: width - 12, top: 8, bottom: height - 44 };
  const across = (frame.right - frame.left) / (right - left);
  return {
    frame,
    left,
    right,
    top,
    x: (value) => frame.left + (Math.log2(value) - left) * across,
    y: (value) => frame.bottom - ((value - bottom) / (top - bottom)) * (frame.bottom - frame.top),
  };
}

function axes(scale, width) {
  const { frame, x, y } = scale;
  const parts = [];
  const step = [1, 2, 5, 10, 20, 25, 50].find((one) => scale.top / one <= 6) ?? 100;
  for (let value = 0; value <= scale.top; value += step) {
    parts.push(svg("line", { class: "grid", x1: frame.left, x2: frame.right, y1: y(value), y2: y(value) }));
    parts.push(svg("text", { class: "tick", x: frame.left - 8, y: y(value) + 4, "text-anchor": "end" }, String(value)));
  }
  const steps = scale.right - scale.left > 3 ? [1] : [1, 1.5];
  const ticks = [];
  for (let i = Math.floor(scale.left); i <= scale.right; i++) ticks.push(...steps.map((one) => one * 2 ** i));
  const shown = ticks.filter((tick) => Math.log2(tick) >= scale.left && Math.log2(tick) <= scale.right);
  const every = Math.ceil((shown.length * 46) / (frame.right - frame.left)) || 1;
  for (const tick of shown.filter((_, i) => i % every === 0)) {
    parts.push(svg("line", { class: "axis", x1: x(tick), x2: x(tick), y1: frame.bottom, y2: frame.bottom + 4 }));
    parts.push(svg("text", { class: "tick", x: x(tick), y: frame.bottom + 18, "text-anchor": "middle" }, number(tick, tick < 1 ? 2 : 0)));
  }
  parts.push(svg("path", { class: "axis", d: `M${frame.left} ${frame.top}V${frame.bottom}H${frame.right}` }));
  const name = width < 500 ? "accuracy (%) against mean thinking tokens" : "mean thinking tokens";
  parts.push(svg("text", { class: "name", x: (frame.left + frame.right) / 2, y: frame.bottom + 38, "text-anchor": "middle" }, name));
  if (width >= 500) {
    const middle = (frame.top + frame.bottom) / 2;
    parts.push(svg("text", { class: "name", transform: `translate(12 ${middle}) rotate(-90)`, "text-anchor": "middle" }, "accuracy (%)"));
  }
  return parts;
}

// `aside` is how far bars stand from a point at whose place another series has one too, so that they are told apart.
function line(series, { x, y }, aside) {
  const points = series.points;
  const middle = points.map((point) => [x(point.tokens), y(point.accuracy)]);
  const low = points.map((point) => [x(point.tokens), y(point.interval[0])]);
  const high = points.map((point) => [x(point.tokens), y(point.interval[1])]);
  const bars = low.map(([a, b], i) => `M${(a + aside(points[i])).toFixed(1)} ${b.toFixed(1)}V${high[i][1].toFixed(1)}`).join("");
  const drawn = [svg("path", { class: "interval", d: bars })];
  if (points.length > 1) {
    if (series.band) drawn.unshift(svg("path", { class: "band", d: `${path([...low, ...high.reverse()])}Z` }));
    drawn.push(svg("path", { class: "line", d: path(middle) }));
  }
  return coloured(svg("g", {}, drawn), series.colour);
}

function mark(series, point, { x, y }) {
  const name = `${pointName(point)}: ${percent(point.accuracy)} at ${tokens(point.tokens)} thinking tokens`;
  const choose = () => update({ setting: point.setting, draw: 0 });
  const node = svg("path", {
    class: "point",
    d: `${path(MARKS[series.marker], x(point.tokens), y(point.accuracy))}Z`,
    tabindex: 0,
    role: "button",
    "aria-label": name,
    "data-setting": point.setting,
    onclick: (event) => (event.stopPropagation(), choose()),
    onkeydown: (event) => (event.key === "Enter" || event.key === " ") && (event.preventDefault(), choose()),
  });
  return coloured(node, series.colour);
}

const pointName = (point) => {
  const label = runs[point.setting].label;
  return point.note.startsWith("k=") && point.note !== "k=1" ? `${label}, majority of ${point.note.slice(2)}` : label;
};

// Notes beside their points, each where it covers no mark and no other note; left out where there is no such place.
function notes(drawn, scale) {
  const taken = drawn.flatMap(({ points }) => points.map((p) => [scale.x(p.tokens) - 6, scale.y(p.accuracy) - 6, 12, 12]));
  const seen = new Set();
  const nodes = [];
  for (const series of [...drawn].reverse()) {
    for (const point of series.points) {
      const key = `${point.note} ${point.tokens} ${point.accuracy}`;
      if (!point.note || seen.has(key)) continue;
      seen.add(key);
      const width = 8 * point.note.length;
      const [x, y] = [scale.x(point.tokens), scale.y(point.accuracy)];
      const free = [[8, -18], [-8 - width, -18], [8, 6], [-8 - width, 6], [-width / 2, -22], [-width / 2, 8]].find(([a, b]) => {
        const inside = x + a > scale.frame.left && x + a + width < scale.frame.right + 10 && y + b > 0;
        return inside && taken.every(([l, t, w, h]) => x + a > l + w || x + a + width < l || y + b > t + h || y + b + 13 < t);
      });
      if (!free) continue;
      taken.push([x + free[0], y + free[1], width, 13]);
      nodes.push(coloured(svg("text", { class: "note", x: x + free[0], y: y + free[1] + 11 }, point.note), series.colour));
    }
  }
  return nodes;
}

function tooltip(chart, drawn, scale) {
  const tip = el("div", { class: "tip", hidden: true });
  const all = drawn.flatMap((series) => series.points.map((point) => ({ series, point })));
  const show = ({ series, point }) => {
    const run = runs[point.setting];
    const ends = Object.entries(ENDS).filter(([end]) => run.ends[end]).map(([end, words]) => `${number(run.ends[end])} ${words}`);
    tip.replaceChildren(
      el("strong", {}, pointName(point)),
      el("span", {}, series.label),
      el("span", {}, `${percent(point.accuracy)} (${number(point.interval[0], 1)} to ${number(point.interval[1], 1)})`),
      point.note.startsWith("k=") || !run.undecided ? null : el("span", {}, `up to ${percent(run.accuracy_if_undecided_right)} if ${openAnswers(run.undecided)}`),
      el("span", {}, `${tokens(point.tokens)} thinking tokens`),
      el("span", {}, ends.join(", ")),
    );
    tip.hidden = false;
    const [x, y] = [scale.x(point.tokens), scale.y(point.accuracy)];
    tip.style.left = `${Math.max(0, x + 14 + tip.offsetWidth > chart.clientWidth ? x - 14 - tip.offsetWidth : x + 14)}px`;
    tip.style.top = `${Math.max(0, y - tip.offsetHeight / 2)}px`;
  };
  const nearest = (event) => {
    const box = chart.getBoundingClientRect();
    const distance = ({ point }) =>
      Math.hypot(scale.x(point.tokens) - (event.clientX - box.left), scale.y(point.accuracy) - (event.clientY - box.top));
    const found = all.reduce((a, b) => (distance(b) <= distance(a) ? b : a));
    return distance(found) < 40 ? found : null;
  };
  const points = [...chart.querySelectorAll(".point")];
  const focused = (event) => points.includes(event.target) && show(all[points.indexOf(event.target)]);
  return { tip, show, nearest, focused, hide: () => (tip.hidden = true) };
}

function drawChart() {
  const chart = byId("chart");
  const width = Math.max(chart.clientWidth, 280);
  const height = Math.round(Math.min(440, Math.max(280, width * 0.5)));
  const drawn = data.series
    .map((series) => ({ ...series, points: series.points.filter((point) => point.tokens > 0) }))
    .filter((series) => series.points.length);
  const scale = scaleOf(drawn.flatMap((series) => series.points), width, height);
  const seriesAt = (point) => drawn.filter(({ points }) => points.some(({ tokens }) => tokens === point.tokens)).length;
  const picture = svg(
    "svg",
    { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "accuracy against thinking tokens" },
    axes(scale, width),
    drawn.map((series, i) => line(series, scale, (point) => (seriesAt(point) > 1 ? 2 * (i - (drawn.length - 1) / 2) : 0))),
    drawn.map((series) => series.points.map((point) => mark(series, point, scale))),
    notes(drawn, scale),
  );
  chart.replaceChildren(picture);
  if (!drawn.length) return;
  const { tip, show, nearest, focused, hide } = tooltip(chart, drawn, scale);
  chart.append(tip);
  picture.addEventListener("pointermove", (event) => (nearest(event) ? show(nearest(event)) : hide()));
  picture.addEventListener("pointerleave", hide);
  picture.addEventListener("focusin", focused);
  picture.addEventListener("focusout", hide);
  picture.addEventListener("click", (event) => nearest(event) && update({ setting: nearest(event).point.setting, draw: 0 }));
  byId("legend").replaceChildren(
    ...drawn.map((series) => {
      const sign = svg("svg", { width: 26, height: 14, viewBox: "-13 -7 26 14", "aria-hidden": "true" });
      sign.append(svg("path", { class: "line", d: "M-13 0H13" }), svg("path", { class: "point", d: `${path(MARKS[series.marker])}Z` }));
      return coloured(el("span", {}, sign, series.label), series.colour);
    }),
  );
  markChart();
}

function markChart() {
  for (const point of byId("chart").querySelectorAll(".point")) {
    point.classList.toggle("chosen", Number(point.dataset.setting) === state.setting);
  }
}

views.push((changed) => changed.has("setting") && markChart());
