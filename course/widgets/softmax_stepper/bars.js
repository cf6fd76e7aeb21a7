// The row of scores and the rescaling, as bars.

/** The row as bars, tile by tile, with the old and the new maximum as lines. */
function scoreBars(node, state, { taken, asking, step }) {
  const all = state.frames.flatMap((frame) => frame.scores).filter((score) => score !== null);
  const [low, high] = [Math.min(0, ...all), Math.max(0, ...all)];
  const span = high - low || 1;
  const place = (value) => 26 + 104 * (value - low) / span; // pixels above the bottom: room for a number below and above
  const width = Math.max(16, Math.min(52, 960 / state.frames.flatMap((frame) => frame.scores).length));
  const current = asking ? taken : taken - 1;
  const tiles = state.frames.map((frame, index) => {
    const seen = index < taken;
    const bars = frame.scores.map((score, i) => {
      const text = score === null ? frame.texts[i] : String(Number(score.toPrecision(3))); // in full they stand in the question
      const top = score === null ? place(0) + 8 : Math.max(place(score), place(0));
      const bar = score === null ? "abc-sm-masked" : seen ? ownerClass(index) : index === current ? "abc-sm-coming" : "abc-sm-ahead";
      const bottom = score === null ? place(0) : Math.min(place(score), place(0));
      return element("div", { class: "abc-sm-column", style: `width:${width}px` },
        element("div", { class: `abc-sm-bar ${bar}`, style: `bottom:${bottom}px;height:${Math.max(top - bottom, 2)}px` }),
        width >= 36 ? element("span", { class: "abc-sm-text", style: `bottom:${score !== null && score < 0 ? bottom - 19 : top + 1}px`, text }) : null);
    });
    const lines = index > current || step === 0 ? [] : maximumLines(state, { taken, asking, index, current, place });
    return element("div", { class: `abc-sm-tile${index === current ? " abc-sm-current" : ""}` },
      element("div", { class: "abc-sm-bars" }, bars, lines),
      element("div", { class: "abc-sm-name", text: `${index === current && step ? "▸ " : ""}${state.unit} ${index}` }));
  });
  const frame = state.frames[Math.max(current, 0)];
  const m = step === 0 ? "-inf" : asking ? frame.m_before : frame.m;
  const old = !asking && step && frame.m !== frame.m_before ? `, before it ${frame.m_before} (dashed)` : "";
  const words = `Scores of ${state.unit} 0 to ${state.frames.length - 1}; m is ${m}. ${
    state.frames.map((each) => `${each.name}: ${each.scores_text}`).join("; ")}`;
  node.replaceChildren(element("div", { class: "abc-sm-heading", text: `Scores; the line is the maximum so far, m = ${m}${old}` }),
    element("div", { class: "abc-sm-row", role: "img", "aria-label": words }, tiles));
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
