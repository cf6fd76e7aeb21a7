// The accesses are here as columns of numbers, sent once; stepping, filtering and counting ask the kernel for nothing.
const ALL = { program: -1, tensor: -1, line: -1, marked: false };
const PROGRAMS = 48; // that are drawn at a time

function draw({ model, root, on }) {
  const state = model.get("state");
  const data = unpack(model.get("columns"));
  const walk = walker(state, data);
  root.parentElement.classList.add("abc-mv-view"); // what is read out stands in the panel as well
  if (!walk.count) {
    root.append(element("p", { text: "Nothing was recorded: no Triton kernel ran." }));
    return;
  }
  const change = (traits) => { // what is said is saved with it: an echo that came later would be too old
    for (const [name, value] of Object.entries(traits)) model.set(name, value);
    model.set("summary", said());
    model.save_changes();
  };
  const said = () => walk.position ? walk.sentence(walk.order[walk.position - 1])
    : `${walk.order.length} accesses, none shown yet. Next shows the first one.`;
  const go = (position) => change({ access: position ? walk.order[position - 1] : -1 });
  const choose = (part) => {
    const chosen = { ...model.get("chosen"), ...part };
    walk.filter(chosen);
    const stays = walk.order.indexOf(model.get("access")) >= 0;
    change(stays ? { chosen } : { access: -1, chosen });
  };
  const filters = filterRow(state, data, walk, choose, () => {
    const next = walk.order.findIndex((access, index) => index >= walk.position && walk.isMarked(access));
    const from = next >= 0 ? next : walk.order.findIndex((access) => walk.isMarked(access));
    if (from >= 0) go(from + 1);
  });
  const steps = stepper("Step through the accesses", walk.order.length, go);
  const panel = element("div", { class: "abc-mv-panel" });
  const programs = programPicture(state, data, choose);
  const source = sourceListing(state, data, walk, choose);
  const tensors = state.tensors.map((_, index) => tensorPicture(state, data, walk, index, go));
  const bytes = element("div", { class: "abc-mv-bytes", role: "group", "aria-label": "Bytes" });
  root.append(filters.node, steps.node, panel,
    element("div", { class: "abc-mv-panes" },
      element("div", { class: "abc-mv-left" }, source.node, programs.node, bytes),
      element("div", { class: "abc-mv-right" }, legend(state, walk), element("div", { class: "abc-mv-tensors" },
        [...tensors].sort((one, other) => other.height - one.height).map((tensor) => tensor.node)))));

  const redraw = () => {
    const chosen = model.get("chosen");
    walk.filter(chosen);
    walk.move(Math.max(0, walk.order.indexOf(model.get("access")) + 1));
    const access = walk.position ? walk.order[walk.position - 1] : -1;
    steps.show(walk.position, `access ${walk.position} of ${walk.order.length}${filtered(chosen) ? " chosen" : ""}`, walk.order.length);
    panel.replaceChildren(element("p", { class: walk.isMarked(access) ? "abc-mv-fault" : "", text: `${walk.isMarked(access) ? "✘ " : ""}${said()}` }));
    filters.show(chosen);
    programs.show(walk.program(access), chosen.program);
    source.show(access, chosen.line);
    tensors.forEach((tensor) => tensor.show(access, filtered(chosen)));
    byteBars(bytes, state, walk);
  };
  on("access", redraw);
  on("chosen", redraw);
  redraw();
}

function filtered(chosen) {
  return chosen.program >= 0 || chosen.tensor >= 0 || chosen.line >= 0 || chosen.marked;
}

function filterRow(state, data, walk, choose, nextMarked) {
  const program = choice("Program", [[-1, "all programs"], ...state.programs.map((_, index) => [index, programName(state, index)])], -1,
    (value) => choose({ program: Number(value) }));
  const used = new Set(data.tensor);
  const tensor = choice("Tensor", [[-1, "all tensors"], ...state.tensors.map((each, index) => [index, each.name]).filter(([index]) => used.has(index))], -1,
    (value) => choose({ tensor: Number(value) }));
  const marked = tick(`only marked accesses (${walk.marked})`, false, (value) => choose({ marked: value }));
  const line = element("span", { class: "abc-mv-line-choice" });
  const all = button("Choose all", () => choose({ ...ALL }));
  const node = element("div", { class: "abc-row" }, program, tensor, walk.marked ? [marked, button("Next marked ✘", nextMarked)] : null, all, line);
  const show = (chosen) => {
    program.querySelector("select").value = String(chosen.program);
    tensor.querySelector("select").value = String(chosen.tensor);
    marked.querySelector("input").checked = chosen.marked;
    line.textContent = chosen.line < 0 ? "" : `only ${state.lines[chosen.line].place}, line ${state.lines[chosen.line].number}`;
  };
  return { node, show };
}

/** The grid of the launches, one button a program; around the current one where there are many. */
function programPicture(state, data, choose) {
  const heading = element("div", { class: "abc-mv-heading" });
  const chips = element("div", { class: "abc-mv-programs", role: "group", "aria-label": "Programs; choose one to see only its accesses" });
  let first = -1;
  let nodes = [];
  let chosenNow = -1;
  const build = (from) => {
    first = from;
    const shown = state.programs.slice(first, first + PROGRAMS);
    nodes = shown.map((_, index) => element("button", { type: "button", class: "abc-mv-program", text: programName(state, first + index), "aria-pressed": "false" }));
    chips.replaceChildren(...nodes);
    const many = state.programs.length > PROGRAMS ? `, ${first} to ${first + shown.length - 1} shown` : "";
    heading.textContent = `Programs: ${state.launches.map((launch) => `${launch.kernel}[${(launch.grid || []).join(", ")}]`).join(", ")}${many}`;
    const across = () => nodes.filter((node) => node.offsetTop === nodes[0].offsetTop).length; // as they are wrapped
    grid(nodes, across, { choose: (index) => choose({ program: first + index === chosenNow ? -1 : first + index }) });
  };
  const show = (current, chosen) => {
    chosenNow = chosen;
    const center = Math.max(current, chosen, 0);
    if (first < 0 || center < first || center >= first + PROGRAMS) {
      build(Math.max(0, Math.min(center - PROGRAMS / 2, state.programs.length - PROGRAMS)));
    }
    nodes.forEach((node, index) => {
      node.setAttribute("aria-pressed", String(first + index === chosen));
      node.classList.toggle("abc-mv-now", first + index === current);
    });
  };
  return { node: element("div", {}, heading, chips), show };
}

function legend(state, walk) {
  const key = (name, text, sample) => element("span", { class: "abc-mv-key" }, element("span", { class: `abc-mv-cell ${name}`, text: sample, "aria-hidden": "true" }), text);
  return element("div", { class: "abc-mv-legend" }, key("abc-mv-now", "touched now", "2"), key("abc-mv-before", "before, how often", "1"),
    key("abc-mv-line", "part of what is chosen", ""),
    Object.keys(state.owners).length ? [key("abc-mv-free", "slot that nobody owns", ""), element("span", { class: "abc-mv-key", text: "r0: request 0's block" })] : [],
    walk.marked ? key("abc-mv-bad", "not owned, or outside", "1✘") : null);
}

/** Bytes loaded so far and in all, against the least possible. */
function byteBars(node, state, walk) {
  const most = Math.max(1, ...state.bytes.map((row) => Math.max(row.loaded, row.stored, row.least || 0)));
  const percent = (bytes) => `${100 * bytes / most}%`;
  const comma = (bytes) => bytes.toLocaleString("en-US");
  const rows = state.bytes.flatMap((row) => {
    const index = state.tensors.findIndex((tensor) => tensor.name === row.tensor);
    const bar = (label, all, now, least) => element("div", { class: "abc-mv-bar" }, element("span", { text: label }),
      element("div", { class: "abc-mv-track", "aria-hidden": "true" }, element("div", { class: "abc-mv-all", style: `width:${percent(all)}` }),
        element("div", { class: "abc-mv-sofar abc-owner-1", style: `width:${percent(now)}` }), least ? element("div", { class: "abc-mv-least", style: `left:${percent(least)}` }) : null),
      element("span", { text: `${comma(now)} of ${comma(all)}${least ? `; least ${comma(least)}, ${(all / least).toFixed(2)} times` : ""}` }));
    return [row.loaded ? bar(row.tensor, row.loaded, walk.loaded[index], row.least) : null, row.stored ? bar(`${row.tensor} (stored)`, row.stored, walk.stored[index], null) : null];
  }).filter(Boolean);
  node.replaceChildren(element("div", { class: "abc-mv-heading", text: "Bytes so far, of all; the mark is the least possible" }), ...rows);
}
