// The accesses are here as columns of numbers, sent once; stepping, filtering and counting ask the kernel for nothing.
const ALL = { program: -1, tensor: -1, line: -1, marked: false };
const ROWS = 12; // of a tensor that are drawn at a time
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
  const change = (traits) => { // each on its own would draw twice
    for (const [name, value] of Object.entries(traits)) model.set(name, value);
    model.save_changes();
  };
  const go = (position) => change({ access: position ? walk.order[position - 1] : -1 });
  const choose = (part) => {
    const chosen = { ...model.get("chosen"), ...part };
    walk.filter(chosen);
    const stays = walk.order.indexOf(model.get("access")) >= 0;
    change(stays ? { chosen } : { chosen, access: -1 });
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

  const redraw = (aloud = true) => {
    const chosen = model.get("chosen");
    walk.filter(chosen);
    walk.move(Math.max(0, walk.order.indexOf(model.get("access")) + 1));
    const access = walk.position ? walk.order[walk.position - 1] : -1;
    steps.show(walk.position, `access ${walk.position} of ${walk.order.length}${filtered(chosen) ? " chosen" : ""}`, walk.order.length);
    const said = access < 0 ? `${walk.order.length} accesses, none shown yet. Next shows the first one.` : walk.sentence(access);
    panel.replaceChildren(element("p", { class: walk.isMarked(access) ? "abc-mv-fault" : "", text: walk.isMarked(access) ? `✘ ${said}` : said }));
    filters.show(chosen);
    programs.show(walk.program(access), chosen.program);
    source.show(access, chosen.line);
    tensors.forEach((tensor) => tensor.show(access, filtered(chosen)));
    byteBars(bytes, state, walk);
    if (aloud) model.set("summary", said);
  };
  const once = () => { if (!waiting) { waiting = true; queueMicrotask(() => { waiting = false; redraw(); }); } };
  let waiting = false;
  on("access", once);
  on("chosen", once);
  redraw(false);
}

function filtered(chosen) {
  return chosen.program >= 0 || chosen.tensor >= 0 || chosen.line >= 0 || chosen.marked;
}

/** name -> Int32Array. A message's bytes may begin anywhere, so they are copied. */
function unpack(columns) {
  const data = {};
  for (const [name, view] of Object.entries(columns)) {
    data[name] = new Int32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
  }
  return { ...data, length: data.program.length };
}

/** Who has touched what, up to a position among the accesses that are chosen. An access that went out of bounds comes last. */
function walker(state, data) {
  const wild = state.out_of_bounds;
  const count = data.length + (wild ? 1 : 0);
  const wildProgram = wild ? state.programs.findIndex((each) => String(each) === String([wild.launch, ...wild.program])) : -1;
  const at = (column, access, ofWild) => access < 0 ? -1 : access < data.length ? data[column][access] : ofWild;
  const walk = {
    count, order: [], position: 0, touched: [], counts: [], unowned: [], loaded: [], stored: [],
    program: (access) => at("program", access, wildProgram),
    tensor: (access) => at("tensor", access, wild?.tensor),
    line: (access) => { const stack = walk.stack(access); return stack[stack.length - 1] ?? -1; },
    stack: (access) => access < 0 ? [] : access < data.length ? state.stacks[data.stack[access]] : [wild.line],
    isMarked: (access) => access >= 0 && (access >= data.length || data.reason[access] >= 0),
  };
  walk.marked = 0;
  for (let access = 0; access < count; access++) walk.marked += walk.isMarked(access);
  const empty = () => state.tensors.map((tensor) => new Int32Array(tensor.rows * tensor.columns));
  const touch = (counts, access, by, unownedOnly = false) => {
    if (access >= data.length || data.tensor[access] < 0) return;
    const cells = counts[data.tensor[access]];
    for (let run = data.first_run[access]; run < data.first_run[access + 1]; run++) {
      if (data.run_cell[run] < 0 || (unownedOnly && !data.run_unowned[run])) continue;
      for (let cell = data.run_cell[run]; cell < data.run_cell[run] + data.run_count[run]; cell++) cells[cell] += by;
    }
  };
  const add = (access, by) => {
    touch(walk.counts, access, by);
    if (access < data.length && data.reason[access] >= 0) touch(walk.unowned, access, by, true);
    const tensor = at("tensor", access, -1);
    if (tensor < 0 || access >= data.length) return;
    const kind = state.kinds[data.kind[access]];
    if (kind !== "store") walk.loaded[tensor] += by * data.num_bytes[access];
    if (kind !== "load") walk.stored[tensor] += by * data.num_bytes[access];
  };
  let last = "";
  walk.filter = (chosen) => {
    if (last === JSON.stringify(chosen)) return;
    last = JSON.stringify(chosen);
    const lines = state.stacks.map((stack) => chosen.line < 0 || stack.includes(chosen.line));
    walk.order = [];
    for (let access = 0; access < count; access++) {
      const fits = (chosen.program < 0 || walk.program(access) === chosen.program) && (chosen.tensor < 0 || walk.tensor(access) === chosen.tensor)
        && (chosen.line < 0 || (access < data.length ? lines[data.stack[access]] : wild.line === chosen.line)) && (!chosen.marked || walk.isMarked(access));
      if (fits) walk.order.push(access);
    }
    walk.position = 0;
    walk.counts = empty();
    walk.unowned = empty();
    walk.loaded = state.tensors.map(() => 0);
    walk.stored = state.tensors.map(() => 0);
    walk.touched = empty();
    if (filtered(chosen)) walk.order.forEach((access) => touch(walk.touched, access, 1));
  };
  walk.move = (position) => {
    while (walk.position < position) add(walk.order[walk.position++], 1);
    while (walk.position > position) add(walk.order[--walk.position], -1);
  };
  /** The cells that one access touches in one tensor; -1 for storage that is not part of it. */
  walk.cells = (access, tensor) => {
    const found = new Set();
    if (access < 0 || access >= data.length || data.tensor[access] !== tensor) return found;
    for (let run = data.first_run[access]; run < data.first_run[access + 1]; run++) {
      for (let i = 0; i < data.run_count[run]; i++) found.add(data.run_cell[run] < 0 ? -1 : data.run_cell[run] + i);
    }
    return found;
  };
  /** As the model's `sentence` says it. */
  walk.sentence = (access) => {
    if (access >= data.length) return wild.sentence;
    const [launch, ...program] = state.programs[data.program[access]];
    const who = `Access ${access}: program (${program.join(", ")}) of ${state.launches[launch].kernel}`;
    const words = state.lines[walk.line(access)].words;
    if (data.tensor[access] < 0) return `${who} touches nothing, all lanes are masked. ${words}`;
    const tensor = state.tensors[data.tensor[access]];
    const [first, end] = [data.first_run[access], data.first_run[access + 1]];
    const names = [];
    for (let run = first; run < Math.min(end, first + 4); run++) names.push(data.run_cell[run] < 0 ? "outside of the tensor" : cellName(tensor, data.run_cell[run], data.run_count[run]));
    if (end - first > 4) names.push(`${end - first - 4} more`);
    const places = names.join("; ") || "nowhere";
    const reason = data.reason[access] < 0 ? "" : ` UNOWNED: ${state.reasons[data.reason[access]]}.`;
    return `${who} ${state.verbs[data.kind[access]]} ${tensor.name}${places.startsWith("[") ? "" : " "}${places}: ${
      data.lanes[access] - data.masked[access]} of ${data.lanes[access]} lanes, ${data.num_bytes[access].toLocaleString("en-US")} bytes.${reason} ${words}`;
  };
  walk.filter(ALL);
  return walk;
}

/** Neighbouring cells of one row in words, as `Layout.name` has it. */
function cellName(tensor, cell, count = 1) {
  const row = Math.floor(cell / tensor.columns);
  let first = (cell % tensor.columns) * tensor.group;
  let end = Math.min(first + count * tensor.group, tensor.length);
  if (tensor.kind === "cache") return `block ${row}, ${end - first === 1 ? `slot ${first}` : `slots ${first} to ${end - 1}`}`;
  if (tensor.kind === "flat") [first, end] = [row * tensor.length + first, row * tensor.length + end];
  return `[${[...rowIndices(tensor, row), end - first === 1 ? first : `${first}:${end}`].join(", ")}]`;
}

function rowIndices(tensor, row) {
  if (tensor.kind !== "table") return [];
  const indices = [];
  for (const size of [...tensor.lead].reverse()) { indices.unshift(row % size); row = Math.floor(row / size); }
  return indices;
}

function programName(state, program) {
  const [launch, ...place] = state.programs[program];
  return state.launches.length > 1 ? `${state.launches[launch].kernel} (${place.join(", ")})` : `(${place.join(", ")})`;
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

/** The source: a line that touches memory can be chosen, and the line of the access shown is marked. */
function sourceListing(state, data, walk, choose) {
  const totals = state.lines.map(() => ({ accesses: 0, bytes: 0 }));
  for (let access = 0; access < data.length; access++) {
    for (const line of new Set(walk.stack(access))) { totals[line].accesses += 1; totals[line].bytes += data.num_bytes[access]; }
  }
  const rows = new Map();
  const entry = (line, number, text) => {
    const gutter = element("span", { class: "abc-mv-number", text: number });
    const code = element("code", { text: text || " " });
    const total = (name, value) => element("span", { class: name, text: value });
    if (line < 0) return element("div", { class: "abc-mv-source-line" }, gutter, total("abc-mv-count", ""), total("abc-mv-total", ""), code);
    const { accesses, bytes } = totals[line];
    const node = element("button", { type: "button", class: "abc-mv-source-line abc-mv-touches", "aria-pressed": "false",
      "aria-label": `line ${number}: ${text.trim()}; ${accesses} accesses, ${bytes.toLocaleString("en-US")} bytes` }, gutter,
      total("abc-mv-count", accesses), total("abc-mv-total", `${bytes.toLocaleString("en-US")} B`), code);
    rows.set(line, node);
    return node;
  };
  const lineAt = (file, number) => state.lines.findIndex((line) => line.file === file && line.number === number);
  const body = state.sources.flatMap((source) => {
    const indent = Math.min(...source.lines.filter((text) => text.trim()).map((text) => text.length - text.trimStart().length));
    return source.lines.map((text, index) => entry(lineAt(source.file, source.first_line + index), source.first_line + index, text.slice(indent)));
  });
  state.lines.forEach((line, index) => { if (!rows.has(index)) body.push(entry(index, line.number, line.text || `line ${line.number} of ${line.place}`)); });
  const lines = [...rows.keys()];
  const pane = element("div", { class: "abc-mv-source", role: "group", "aria-label": "Source; choose a line to step through its accesses" },
    element("div", { class: "abc-mv-code" }, body));
  let chosen = -1;
  grid([...rows.values()], 1, { choose: (index) => choose({ line: lines[index] === chosen ? -1 : lines[index] }) });
  const show = (access, line) => {
    chosen = line;
    const stack = walk.stack(access);
    rows.forEach((node, index) => {
      node.setAttribute("aria-pressed", String(index === line));
      node.classList.toggle("abc-mv-now", index === walk.line(access));
      node.classList.toggle("abc-mv-caller", index !== walk.line(access) && stack.includes(index));
    });
    const now = rows.get(walk.line(access));
    if (now && (now.offsetTop < pane.scrollTop || now.offsetTop + now.offsetHeight > pane.scrollTop + pane.clientHeight)) {
      pane.scrollTop = now.offsetTop - pane.clientHeight / 2;
    }
  };
  return { node: element("div", {}, element("div", { class: "abc-mv-heading", text: "Source: line, accesses, bytes (▶ now; choose a line to see its accesses)" }), pane), show };
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
    grid(nodes, 8, { choose: (index) => choose({ program: first + index === chosenNow ? -1 : first + index }) });
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
    state.tensors.some((tensor) => Object.keys(tensor.owners).length) ? [key("abc-mv-free", "slot that nobody owns", ""), element("span", { class: "abc-mv-key", text: "r0: request 0's block" })] : [],
    walk.marked ? key("abc-mv-bad", "not owned, or outside", "1✘") : null);
}

/** One tensor as cells, `ROWS` rows at a time, with how often each was touched so far. */
function tensorPicture(state, data, walk, index, go) {
  const tensor = state.tensors[index];
  const unit = tensor.kind === "cache" ? "block" : "row";
  const box = element("div", { class: "abc-mv-cells", role: "grid", "aria-label": `${tensor.name}, cells` });
  const rowsShown = element("span", {});
  const pages = element("div", { class: "abc-row abc-mv-pages" }, button("▲", () => scroll(-ROWS), { "aria-label": `earlier rows of ${tensor.name}` }),
    button("▼", () => scroll(ROWS), { "aria-label": `later rows of ${tensor.name}` }), rowsShown);
  const wild = element("div", { class: "abc-mv-wild" });
  const node = element("div", { class: "abc-mv-tensor" },
    element("div", { class: "abc-mv-heading", text: `${tensor.name} ` }, element("span", { class: "abc-mv-shape",
      text: `${tensor.dtype} [${tensor.shape.join(", ")}]${tensor.kind === "cache" ? ", rows are blocks" : ""}${tensor.group > 1 ? `, ${tensor.group} ${tensor.kind === "cache" ? "slots" : "elements"} a cell` : ""}` })),
    tensor.rows > ROWS ? pages : null, element("div", { class: "abc-scroll" }, box), wild);
  let first = -1;
  let nodes = [];
  let shown = [];
  let state_ = { access: -1, marks: false };
  const scroll = (by) => { build(Math.max(0, Math.min(first + by, tensor.rows - ROWS))); paint(); };
  const build = (from) => {
    first = from;
    const rows = Math.min(ROWS, tensor.rows - first);
    nodes = [];
    shown = [];
    box.replaceChildren(...Array.from({ length: rows }, (_, row) => {
      const cells = Array.from({ length: tensor.columns }, () => element("div", { role: "gridcell" }));
      nodes.push(...cells);
      const owner = tensor.owners[first + row];
      const label = tensor.kind === "cache" ? `${first + row}` : tensor.kind === "flat" ? `${(first + row) * tensor.length}` : rowIndices(tensor, first + row).join(", ");
      return element("div", { class: "abc-mv-row", role: "row" }, element("span", { role: "rowheader", class: `abc-mv-row-name ${owner ? ownerClass(owner.requests[0]) : ""}`,
        text: owner ? `${label} r${owner.requests.join(",")}` : label }), cells);
    }));
    rowsShown.textContent = `${unit}s ${first} to ${first + rows - 1} of ${tensor.rows}`;
    grid(nodes, tensor.columns, { choose: (at) => nextAt(first * tensor.columns + at) });
  };
  const nextAt = (cell) => { // the next access to this cell, from the current one on and round
    for (let i = 0; i < walk.order.length; i++) {
      const at = (walk.position + i) % walk.order.length;
      if (walk.cells(walk.order[at], index).has(cell)) return go(at + 1);
    }
  };
  const paint = () => {
    const { access, marks } = state_;
    const now = walk.cells(access, index);
    nodes.forEach((cell, i) => {
      const at = first * tensor.columns + i;
      const count = walk.counts[index][at];
      const owner = tensor.owners[Math.floor(at / tensor.columns)];
      const free = tensor.kind === "cache" && Object.keys(tensor.owners).length > 0 && (!owner || (at % tensor.columns) * tensor.group >= owner.held);
      const bad = walk.unowned[index][at] > 0;
      const name = `abc-mv-cell${free ? " abc-mv-free" : ""}${count ? " abc-mv-before" : ""}${marks && walk.touched[index][at] ? " abc-mv-line" : ""}${
        now.has(at) ? " abc-mv-now" : ""}${bad ? " abc-mv-bad" : ""}`;
      const text = `${count || ""}${bad ? "✘" : ""}`;
      if (shown[i] === name + text) return;
      shown[i] = name + text;
      cell.className = name;
      cell.textContent = text;
      cell.setAttribute("aria-label", `${cellName(tensor, at)}: ${count} times${now.has(at) ? ", now" : ""}${bad ? ", unowned" : ""}${free ? ", nobody owns it" : ""}`);
    });
    const outside = access === data.length && state.out_of_bounds.tensor === index;
    const words = outside ? `✘ offset ${state.out_of_bounds.offset}: outside, ${state.out_of_bounds.lanes} lanes` : now.has(-1) ? "✘ in its storage, not in the tensor" : "";
    wild.replaceChildren(...(words ? [element("span", { class: "abc-mv-cell abc-mv-bad abc-mv-now", text: "✘", "aria-hidden": "true" }), words.slice(1)] : []));
    node.classList.toggle("abc-mv-tensor-now", now.size > 0 || outside);
  };
  const show = (access, marks) => {
    state_ = { access, marks };
    const cells = walk.cells(access, index);
    const row = Math.max(0, Math.floor((cells.values().next().value ?? 0) / tensor.columns));
    if (first < 0 || (cells.size && (row < first || row >= first + ROWS))) build(Math.max(0, Math.min(row - 2, tensor.rows - ROWS)));
    paint();
  };
  return { node, show, height: Math.min(tensor.rows, ROWS) };
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
      element("span", { text: `${comma(now)} of ${comma(all)}${least ? `; least ${comma(least)}: ${(all / least).toFixed(2)} times` : ""}` }));
    return [row.loaded ? bar(row.tensor, row.loaded, walk.loaded[index], row.least) : null, row.stored ? bar(`${row.tensor} (stored)`, row.stored, walk.stored[index], null) : null];
  }).filter(Boolean);
  node.replaceChildren(element("div", { class: "abc-mv-heading", text: "Bytes so far, of all; the mark is the least possible" }), ...rows);
}
