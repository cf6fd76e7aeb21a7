// Functions on offer above, the drawing they make below: who calls stands above whom it calls.
const BOX = { width: 236, height: 60, across: 26, down: 56, via: 26 };

function draw({ model, root, ask, on, say }) {
  const { nodes } = model.get("state");
  const offer = element("div", { class: "abc-offer", role: "group", "aria-label": "Functions on offer" });
  const meaning = element("p", { class: "abc-meaning" });
  const board = takesKeys(element("div", { class: "abc-scroll abc-board", tabindex: 0, role: "region", "aria-label": "Your drawing" }));
  const list = element("ol", { class: "abc-edges", "aria-label": "Arrows" });
  const clear = button("Clear", () => ask("clear"));
  const code = takesKeys(element("textarea", { class: "abc-input abc-code", readonly: true, spellcheck: "false", wrap: "off" }));

  const chips = nodes.map(([node, what]) => element("button", { type: "button", class: "abc-function", "data-node": node, title: what,
    onfocus: () => explain(node, what), onpointerenter: () => explain(node, what) }, words(node)));
  const explain = (node, what) => { meaning.textContent = what ? `${node}: ${what}.` : node; };
  offer.append(...chips);
  grid(chips, () => chips.filter((chip) => chip.offsetTop === chips[0].offsetTop).length,
    { choose: (index) => ask("choose", nodes[index][0]) });
  offer.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || model.get("state").source === null) return;
    event.preventDefault();
    event.stopPropagation();
    ask("cancel");
  });

  const ends = { caller: nodes[0]?.[0], callee: nodes[1]?.[0] };
  const end = (name, label) => choice(label, nodes.map(([node]) => node), ends[name], (node) => { ends[name] = node; });
  const copy = () => copied(code) ? say("Copied. Paste it over the cell with your answer.") : say("Select the text and copy it: this page may not.");
  root.classList.add("abc-call-path");
  root.append(
    element("p", { class: "abc-how", text: "Drag from the function that calls to the one that is called. Or choose the two one after the other, by click or with arrow keys and Enter; Escape takes a choice back." }),
    offer, meaning, board,
    element("div", { class: "abc-row" }, end("caller", "From"), end("callee", "To"),
      button("Add arrow", () => ask("add", ends.caller, ends.callee)), clear),
    list,
    element("div", { class: "abc-row abc-hand-in" }, labelled("As text, for the cell that is handed in", code), button("Copy", copy)));
  dragFrom(root, (caller, callee) => ask("add", caller, callee));

  const redraw = () => {
    const { edges, rows, routes, source, code: text } = model.get("state");
    const drawnNow = new Set(edges.flat());
    chips.forEach((chip) => {
      chip.setAttribute("aria-pressed", String(chip.dataset.node === source));
      chip.classList.toggle("abc-drawn", drawnNow.has(chip.dataset.node));
    });
    board.replaceChildren(edges.length ? picture(rows, routes) : element("p", { class: "abc-empty", text: "Nothing is drawn yet." }));
    const held = [...list.querySelectorAll("button")].indexOf(document.activeElement);
    list.replaceChildren(...edges.map(([caller, callee], index) => element("li", {},
      button("Remove", () => ask("remove", index + 1), { "aria-label": `Remove arrow ${index + 1}: ${caller} calls ${callee}` }),
      element("span", { text: `${index + 1}. ${caller} → ${callee}` }))));
    clear.disabled = !edges.length;
    if (held >= 0) (list.querySelectorAll("button")[Math.min(held, edges.length - 1)] ?? chips.find((chip) => chip.tabIndex === 0)).focus();
    code.value = text;
    code.rows = Math.min(12, text.split("\n").length);
  };
  redraw();
  return redraw;
}

/** A function's file, class and name on lines of their own. */
function words(node) {
  const [file, name] = node.includes(":") ? [node.slice(0, node.lastIndexOf(":")), node.slice(node.lastIndexOf(":") + 1)] : ["", node];
  const dot = name.indexOf(".");
  return [element("span", { class: "abc-file", text: file ? `${file}:` : "" }),
    element("span", { class: "abc-name" }, ...(dot < 0 ? [name] : [name.slice(0, dot + 1), element("wbr"), name.slice(dot + 1)]))];
}

function picture(rows, routes) {
  const wide = (node) => (node.startsWith("via ") ? BOX.via : BOX.width);
  const widths = rows.map((row) => row.reduce((sum, node) => sum + wide(node), BOX.across * (row.length - 1)));
  const width = Math.max(...widths) + 8;
  const at = new Map();
  rows.forEach((row, index) => {
    let left = (width - widths[index]) / 2;
    for (const node of row) {
      at.set(node, { left, top: 4 + index * (BOX.height + BOX.down), width: wide(node) });
      left += wide(node) + BOX.across;
    }
  });
  const height = rows.length * (BOX.height + BOX.down) - BOX.down + 10;
  const boxes = [...at].filter(([node]) => !node.startsWith("via ")).map(([node, { left, top }]) =>
    element("div", { class: "abc-function abc-box", "data-node": node, style: `left:${left}px;top:${top}px;width:${BOX.width}px;height:${BOX.height}px` }, words(node)));
  const lines = drawn("svg", { width, height, class: "abc-arrows", "aria-hidden": "true" },
    routes.map((route, index) => arrow(route, index, routes, at)));
  return element("div", { class: "abc-picture", style: `width:${width}px;height:${height}px`, "aria-hidden": "true" }, lines, boxes);
}

/** One arrow over the places of its route, with its number and a head at the callee. */
function arrow(route, index, routes, at) {
  const points = [];
  const middle = (node) => at.get(node).left + at.get(node).width / 2;
  // Arrows that leave a box, or reach it, at the same side stand apart there, in the order of where they come from.
  const port = (node, next, below) => {
    const others = routes.flatMap((each) => each.flatMap((one, place) => (one !== node ? [] : [each[place - 1], each[place + 1]])))
      .filter((one) => one !== undefined && (at.get(one).top > at.get(node).top) === below)
      .sort((one, other) => middle(one) - middle(other));
    return middle(node) + (others.indexOf(next) - (others.length - 1) / 2) * Math.min(44, (at.get(node).width - 24) / others.length);
  };
  route.forEach((node, place) => {
    const { top } = at.get(node);
    const [before, after] = [route[place - 1], route[place + 1]];
    const side = (next) => at.get(next).top > top;
    if (before !== undefined) points.push([port(node, before, side(before)), side(before) ? top + BOX.height : top]);
    if (after !== undefined) points.push([port(node, after, side(after)), side(after) ? top + BOX.height : top]);
  });
  let path = `M${points[0]}`;
  for (let i = 1; i < points.length; i += 1) {
    const [[x0, y0], [x1, y1]] = [points[i - 1], points[i]];
    const bend = (y1 - y0) / 2;
    path += `C${x0},${y0 + bend} ${x1},${y1 - bend} ${x1},${y1}`;
  }
  const [x, y] = points.at(-1);
  const back = y > points.at(-2)[1] ? -9 : 9;
  // The number stands near the caller, where arrows that cross later are still apart: at 0.3 of the first curve.
  const [[fromX, fromY], [toX, toY]] = points;
  const [labelX, labelY] = [fromX + (toX - fromX) * 0.216, fromY + (toY - fromY) * 0.3];
  return drawn("g", { class: "abc-arrow" }, drawn("path", { d: path, fill: "none" }),
    drawn("path", { class: "abc-head", d: `M${x},${y}l-5,${back}h10z` }),
    drawn("circle", { cx: labelX, cy: labelY, r: 9 }), drawn("text", { x: labelX, y: labelY + 4, "text-anchor": "middle" }, String(index + 1)));
}

/** Draws a line with the mouse from one function to another, wherever the two are; add(caller, callee) at its end. */
function dragFrom(root, add) {
  root.addEventListener("pointerdown", (down) => {
    const from = down.target.closest?.("[data-node]");
    // A finger scrolls the page; it chooses the two by taps.
    if (!from || down.button !== 0 || down.pointerType === "touch") return;
    const bounds = root.getBoundingClientRect();
    const place = (event) => [event.clientX - bounds.left, event.clientY - bounds.top];
    const start = place(down);
    let rope = null;
    const over = (event) => document.elementFromPoint(event.clientX, event.clientY)?.closest("[data-node]");
    const light = (node) => root.querySelectorAll("[data-node]").forEach((each) => each.classList.toggle("abc-target", each === node && node !== from));
    const move = (event) => {
      const now = place(event);
      if (!rope && Math.hypot(now[0] - start[0], now[1] - start[1]) < 6) return;
      if (!rope) root.append(rope = drawn("svg", { class: "abc-rope", "aria-hidden": "true" }, drawn("line", { x1: start[0], y1: start[1] })));
      rope.firstChild.setAttribute("x2", now[0]);
      rope.firstChild.setAttribute("y2", now[1]);
      light(over(event));
    };
    const stop = (event) => {
      document.removeEventListener("pointermove", move);
      document.removeEventListener("pointerup", stop);
      document.removeEventListener("pointercancel", stop);
      light(null);
      if (!rope) return;
      rope.remove();
      // What a drag ends on is not clicked as well.
      const swallow = (click) => { click.stopPropagation(); click.preventDefault(); };
      root.addEventListener("click", swallow, { capture: true, once: true });
      setTimeout(() => root.removeEventListener("click", swallow, { capture: true }), 0);
      const to = event.type === "pointerup" ? over(event) : null;
      if (to && root.contains(to) && to.dataset.node !== from.dataset.node) add(from.dataset.node, to.dataset.node);
    };
    document.addEventListener("pointermove", move);
    document.addEventListener("pointerup", stop);
    document.addEventListener("pointercancel", stop);
  });
}

/** Puts a text field's text on the clipboard; false where the page may not. The old way works without https as well. */
function copied(field) {
  const before = document.activeElement;
  field.select();
  const done = document.execCommand("copy");
  before?.focus();
  return done;
}
