// Steps: 0 nothing seen; 2 i + 1 tile i has come in, predict; 2 i + 2 tile i is taken in. All frames are here: no round trip.

function draw({ model, root, ask, on }) {
  const form = scoresForm(model, ask);
  const at = (step) => { // what is said is saved with the step: an echo that came later would be too old
    model.set("step", step);
    const frame = model.get("state").frames[Math.floor((step - 1) / 2)];
    model.set("summary", !frame ? "Nothing is seen yet." : step % 2 ? frame.question : frame.sentence);
    model.save_changes();
  };
  const steps = element("div", {});
  const scores = takesKeys(element("div", { class: "abc-scroll abc-sm-scores", tabindex: 0, role: "region", "aria-label": "Scores" }));
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
      frames[0].acc.map((_, index) => [index, `acc[${index}]`]), dimension, (value) => { dimension = Number(value); redraw(); })];
    steps.replaceChildren(element("div", { class: "abc-row" }, control.node, ...pick));
    form.show();
    redraw();
  };

  const redraw = () => {
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
  };

  on("step", redraw);
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
