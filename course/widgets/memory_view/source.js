// The kernel's source beside the picture.

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
  return { node: element("div", {}, element("div", { class: "abc-mv-heading", text: "Source: line, accesses, bytes (▶ now)" }), pane), show };
}
