// The accesses as numbers: which are chosen, and what they have touched up to one of them.

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
