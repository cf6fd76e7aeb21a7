// A tensor as a picture: `ROWS` rows of cells at a time.
const ROWS = 12;

/** One tensor as cells, `ROWS` rows at a time, with how often each was touched so far. */
function tensorPicture(state, data, walk, index, go) {
  const tensor = state.tensors[index];
  const owners = tensor.kind === "cache" ? state.owners : {};
  const owned = Object.keys(owners).length > 0; // else nobody said who owns what
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
      const owner = owners[first + row];
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
      const owner = owners[Math.floor(at / tensor.columns)];
      const free = owned && (!owner || (at % tensor.columns) * tensor.group >= owner.held);
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
