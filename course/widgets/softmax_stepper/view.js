// Steps: 0 nothing seen; 2 i + 1 tile i has come in, predict; 2 i + 2 tile i is taken in. All frames are here: no round trip.

function draw({ model, root, ask, on }) {
  const form = scoresForm(model, ask);
  const at = (step) => { model.set("step", step); model.save_changes(); };
  const steps = element("div", {});
  const scores = element("div", { class: "abc-scroll abc-sm-scores", role: "img" });
  const panel = element("div", { class: "abc-sm-panel" });
  const charts = element("div", { class: "abc-row abc-sm-charts" });
  const compared = element("div", { class: "abc-scroll", tabindex: 0, role: "region", "aria-label": "With and without the maximum" });
  takesKeys(compared);
  const words = element("div", {});
  let dimension = 0;
  let control = null;
  // What is read out stands in the panel as well.
  root.parentElement.classList.add("abc-sm-view");
  root.append(form.node, steps, scores, panel, charts, compared, words);

  const rebuild = () => { // after other scores or tiles
    const { frames } = model.get("state");
    dimension = Math.min(dimension, frames[0].acc.length - 1);
    control = stepper("Step through the row", 2 * frames.length, at);
    const pick = frames[0].acc.length < 2 ? [] : [choice("Number of acc that is drawn",
      frames[0].acc.map((_, index) => [index, `acc[${index}]`]), dimension, (value) => { dimension = Number(value); redraw(false); })];
    steps.replaceChildren(element("div", { class: "abc-row" }, control.node, ...pick));
    form.show();
    redraw(false);
  };

  const redraw = (aloud = true) => {
    const state = model.get("state");
    const step = Math.min(model.get("step"), 2 * state.frames.length);
    const taken = Math.floor(step / 2); // tiles that are taken in
    const asking = step % 2 === 1;
    const frame = state.frames[asking ? taken : Math.max(taken - 1, 0)];
    const where = step === 0 ? "nothing seen yet" : asking ? `${frame.name} comes in` : `after ${frame.name}`;
    control.show(step, where);
    scoreBars(scores, state, { taken, asking, step });
    const commit = (m, factor) => {
      model.set("predictions", { ...model.get("predictions"), [frame.index]: [m, factor] });
      at(step + 1);
      steps.querySelectorAll("button")[1].focus();
    };
    const guess = model.get("predictions")[frame.index];
    panel.replaceChildren(...(step === 0
      ? [element("p", { text: `m is -inf, l is 0, acc is 0. Next lets the first ${state.unit} in.` })]
      : asking ? predictionForm(frame, guess, commit) : revealed(frame, guess)));
    charts.replaceChildren(
      rescaleBars("l, the sum of terms", step ? frame.l : null, frame, asking),
      rescaleBars(`acc[${dimension}], the sum of terms times values`, step ? frame.acc[dimension] : null, frame, asking));
    const known = asking ? state.frames[taken - 1] : step ? frame : null;
    compared.replaceChildren(...(known ? [comparison(known, dimension)] : []));
    words.replaceChildren(...(known ? [
      ...known.wrong.map((text) => element("p", { class: "abc-fault", text: `✘ ${text}` })),
      ...known.fates.map((text) => element("p", { class: "abc-sm-fate", text: `✘ ${text}` })),
      element("p", { class: "abc-sm-dense", text: known.dense.sentence })] : []));
    if (aloud) model.set("summary", step === 0 ? "Nothing is seen yet." : asking ? frame.question : frame.sentence);
  };

  on("step", () => redraw());
  rebuild();
  return rebuild;
}

/** Scores to type, and the length of tiles; nothing for a row that comes from a cache. */
function scoresForm(model, ask) {
  const state = model.get("state");
  if (!state.editable) return { node: element("div", {}), show: () => {} };
  const typed = line("Your scores (-inf: masked)", state.scores, (text) => ask("change_scores", text), { size: 44 });
  const input = typed.querySelector("input");
  const lengths = choice("Scores in a tile", [1, 2, 3, 4, 8, 16, 32, 64, 128], state.tile, (value) => ask("change_tile", Number(value)));
  const select = lengths.querySelector("select");
  const node = element("div", { class: "abc-row" }, typed, lengths, button("First scores again", () => ask("reset")));
  const show = () => {
    const { scores, tile } = model.get("state");
    input.value = scores;
    if (![...select.options].some((option) => option.value === String(tile))) select.append(element("option", { value: tile, text: tile }));
    select.value = String(tile);
  };
  return { node, show };
}

/** The row as bars, tile by tile, with the old and the new maximum as lines. */
function scoreBars(node, state, { taken, asking, step }) {
  const all = state.frames.flatMap((frame) => frame.scores).filter((score) => score !== null);
  const [low, high] = [Math.min(0, ...all), Math.max(0, ...all)];
  const span = high - low || 1;
  const place = (value) => 26 + 104 * (value - low) / span; // pixels above the bottom: room for a number below and above
  const width = Math.max(16, Math.min(52, 700 / state.frames.flatMap((frame) => frame.scores).length));
  const current = asking ? taken : taken - 1;
  const tiles = state.frames.map((frame, index) => {
    const seen = index < taken;
    const bars = frame.scores.map((score, i) => {
      const text = score === null ? "-inf" : frame.texts[i];
      const top = score === null ? place(0) + 8 : Math.max(place(score), place(0));
      const bar = score === null ? "abc-sm-masked" : seen ? ownerClass(index) : index === current ? "abc-sm-coming" : "abc-sm-ahead";
      const bottom = score === null ? place(0) : Math.min(place(score), place(0));
      return element("div", { class: "abc-sm-column", style: `width:${width}px` },
        element("div", { class: `abc-sm-bar ${bar}`, style: `bottom:${bottom}px;height:${Math.max(top - bottom, 2)}px` }),
        width >= 30 ? element("span", { class: "abc-sm-text", style: `bottom:${score !== null && score < 0 ? bottom - 19 : top + 1}px`, text }) : null);
    });
    const lines = index > current || step === 0 ? [] : maximumLines(state, { taken, asking, index, current, place });
    return element("div", { class: `abc-sm-tile${index === current ? " abc-sm-current" : ""}` },
      element("div", { class: "abc-sm-bars" }, bars, lines),
      element("div", { class: "abc-sm-name", text: `${index === current && step ? "▸ " : ""}${state.unit} ${index}` }));
  });
  const frame = state.frames[Math.max(current, 0)];
  const m = step === 0 ? "-inf" : asking ? frame.m_before : frame.m;
  const old = !asking && step && frame.m !== frame.m_before ? `, before it ${frame.m_before} (dashed)` : "";
  node.setAttribute("aria-label", `Scores of ${state.unit} 0 to ${state.frames.length - 1}; m is ${m}. ` +
    state.frames.map((each) => `${each.name}: ${each.scores_text}`).join("; "));
  node.replaceChildren(element("div", { class: "abc-sm-heading", text: `Scores; the line is the maximum so far, m = ${m}${old}` }),
    element("div", { class: "abc-sm-row" }, tiles));
  const tile = node.querySelector(".abc-sm-current");
  if (tile) node.scrollLeft = Math.max(0, tile.offsetLeft + tile.offsetWidth - node.clientWidth);
}

function maximumLines(state, { taken, asking, current, place }) {
  const frame = state.frames[current];
  const rule = (value, name) => value === null ? [] : [element("div", { class: `abc-sm-max ${name}`, style: `bottom:${place(value)}px` })];
  if (asking) return rule(frame.heights.m_before, "");
  const moved = frame.heights.m_before !== frame.heights.m;
  return [...rule(frame.heights.m, ""), ...(moved ? rule(frame.heights.m_before, "abc-sm-old") : [])];
}

function predictionForm(frame, guess, commit) {
  const field = (label, value) => labelled(label, takesKeys(element("input", { type: "text", class: "abc-input", size: 12, value,
    onkeydown: (event) => { if (event.key === "Enter") { event.preventDefault(); send(); } } })));
  const m = field("The new m", guess ? guess[0] : "");
  const factor = field("The factor (0.05, or exp(2 - 5))", guess ? guess[1] : "");
  const send = () => commit(m.querySelector("input").value.trim(), factor.querySelector("input").value.trim());
  return [element("p", { class: "abc-sm-question", text: `Predict. ${frame.question}` }),
    element("div", { class: "abc-row" }, m, factor, button("Commit and reveal", send))];
}

function revealed(frame, guess) {
  const sentence = element("p", {}, element("strong", { text: frame.sentence }));
  if (!guess || (guess[0] === "" && guess[1] === "")) return [sentence];
  const judge = (text, name, value, shown) => text === "" ? `no ${name}` :
    near(readNumber(text), value) ? `${name} ${text} ✔ right` : `${name} ${text} ✘ it is ${shown}`;
  const real = frame.heights.m === null ? -Infinity : frame.heights.m;
  return [sentence, element("p", { class: "abc-sm-verdict", text: `You predicted: ${judge(guess[0], "m", real, frame.m)}; ${
    judge(guess[1], "factor", frame.factor_value, frame.factor)}.` })];
}

/** "0.05", "-inf", "exp(2 - 5)", "e^-3", "2 - 5" as a number; NaN for what is none. */
function readNumber(text) {
  const plain = text.toLowerCase().replace(/−/g, "-").replace(/∞/g, "inf").replace(/\s+/g, "");
  const power = plain.match(/^(?:exp|e\^|e\*\*)\(?(.+?)\)?$/);
  if (power) return Math.exp(readNumber(power[1]));
  const terms = plain.replace(/[()]/g, "").replace(/--/g, "+").match(/[+-]?(?:inf|\d*\.?\d+(?:e[+-]?\d+)?)/g);
  if (!terms || terms.join("") !== plain.replace(/[()]/g, "").replace(/--/g, "+")) return NaN;
  return terms.reduce((sum, term) => sum + Number(term.replace("inf", "Infinity")), 0);
}

/** As near as somebody gets who computes in their head: two percent. */
function near(guess, value) {
  return guess === value || (Math.abs(value) < Infinity && Math.abs(guess - value) <= 0.02 * Math.abs(value));
}

/** before, times the factor, what the tile brings, after: one bar each, on one scale. */
function rescaleBars(title, entry, frame, asking) {
  const box = element("div", { class: "abc-sm-chart", role: "group", "aria-label": title }, element("div", { class: "abc-sm-heading", text: title }));
  if (!entry) return box;
  const { numbers, texts } = entry;
  const shown = asking ? [numbers.before] : Object.values(numbers);
  const finite = shown.filter((value) => value !== null);
  const [low, high] = [Math.min(0, ...finite), Math.max(0, ...finite)];
  const span = high - low || 1;
  const segment = (from, to, name) => element("div", { class: `abc-sm-segment ${name}`,
    style: `left:${100 * (Math.min(from, to) - low) / span}%;width:${100 * Math.abs(to - from) / span}%` });
  const row = (label, text, ...segments) => element("div", { class: "abc-sm-line" }, element("span", { class: "abc-sm-label", text: label }),
    element("div", { class: "abc-sm-track", "aria-hidden": "true" }, segments.flat()), element("span", { class: "abc-sm-value", text }));
  const bar = (value, name) => value === null ? [] : [segment(0, value, name)];
  const { before, rescaled, brought, after } = numbers;
  box.append(row("before", texts.before, bar(before, "abc-owner-1")));
  if (asking) {
    box.append(row("× factor", "?"), row("+ this tile", "?"), row("after", "?"));
    return box;
  }
  // Where the parts make up the whole, the whole is drawn in two parts.
  const whole = rescaled !== null && brought !== null && after !== null && rescaled * brought >= 0 &&
    Math.abs(rescaled + brought - after) <= 1e-3 * Math.max(1, Math.abs(after));
  box.append(row(`× ${frame.factor}`, texts.rescaled, bar(rescaled, "abc-owner-0")),
    row("+ this tile", texts.brought, bar(brought, "abc-owner-2")),
    row("after", texts.after, whole ? [segment(0, rescaled, "abc-owner-0"), segment(rescaled, after, "abc-owner-2")] : bar(after, "abc-owner-3")));
  return box;
}

function comparison(frame, dimension) {
  const mark = (text) => /inf|nan/.test(text) ? `${text} ✘` : text;
  const row = (name, read) => [name, ...frame.sides.map(read)];
  const node = table(`After ${frame.name}, with and without subtracting the maximum`, ["", ...frame.sides.map((side) => `${side.name}, ${side.dtype}`)], [
    row("largest term", (side) => mark(side.term)), row("l", (side) => mark(side.l)),
    row(`acc[${dimension}]`, (side) => mark(side.acc[dimension])), row(`acc[${dimension}] / l`, (side) => mark(side.output[dimension])),
    row("dense softmax", () => frame.dense.values[dimension])]);
  node.querySelectorAll("td").forEach((cell) => cell.textContent.endsWith("✘") && cell.classList.add("abc-sm-broken"));
  return node;
}
