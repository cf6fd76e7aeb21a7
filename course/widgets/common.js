// What every view shares. Each view's view.js stands below this text, in the same module, and defines
// draw(view), which fills view.root and returns a function that draws anew what has changed, or nothing.
//
// view = { model, root, ask(operation, ...arguments), on(trait, react), say(sentence) }

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children. "text" is its text, "on..." listens, true and false set and leave out. */
function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for the inside of a picture. */
function drawn(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") node.textContent = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** Marks an element that takes keys. JupyterLab takes letters for commands of its own unless the element itself says no. */
function takesKeys(node) {
  node.setAttribute("data-lm-suppress-shortcuts", "true");
  return node;
}

function button(text, press, attributes = {}) {
  return takesKeys(element("button", { type: "button", class: "abc-button", text, onclick: press, ...attributes }));
}

/** A control with its label. Beside it, not around it: a label around a select would be named after all its options. */
function labelled(text, control, name = "abc-label") {
  control.id = `abc-${Math.random().toString(36).slice(2)}`;
  const label = element("label", { for: control.id, text });
  return element("div", { class: name }, name.includes("abc-tick") ? [control, label] : [label, control]);
}

/** A choice with its label. choices: texts, or [value, text] pairs. choose(value) is called with the new value. */
function choice(label, choices, value, choose) {
  const pairs = choices.map((each) => (Array.isArray(each) ? each : [each, each]));
  const options = pairs.map(([key, text]) => element("option", { value: key, text, selected: String(key) === String(value) }));
  const select = takesKeys(element("select", { class: "abc-select", onchange: () => choose(select.value) }, options));
  return labelled(label, select);
}

/** A box to tick with its label. */
function tick(label, checked, choose) {
  const box = takesKeys(element("input", { type: "checkbox", onchange: () => choose(box.checked) }));
  box.checked = checked;
  return labelled(label, box, "abc-label abc-tick");
}

/** A line to type into with its label. Enter and leaving it call write(text). */
function line(label, value, write, attributes = {}) {
  let typed = false; // since it was last written
  const commit = () => {
    if (!typed) return;
    typed = false;
    write(input.value);
  };
  // Enter by itself: in JupyterLab 4.6 no change is told after it, for the notebook takes the key as well.
  const enter = (event) => {
    if (event.key !== "Enter") return;
    event.stopPropagation();
    commit();
  };
  const input = takesKeys(element("input", { type: "text", class: "abc-input", value, oninput: () => { typed = true; }, onchange: commit, onkeydown: enter, ...attributes }));
  return labelled(label, input);
}

/** A table: header and rows of texts; the first column names the row. mark(row, index) gives a row's class. */
function table(caption, header, rows, mark = () => "") {
  const head = element("tr", {}, header.map((text) => element("th", { scope: "col", text })));
  const body = rows.map((row, index) =>
    element("tr", { class: mark(row, index) }, row.map((text, column) =>
      column === 0 ? element("th", { scope: "row", text }) : element("td", { text }))));
  return element("table", { class: "abc-table" }, element("caption", { text: caption }),
    element("thead", {}, head), element("tbody", {}, body));
}

/**
 * One tab stop for many cells: arrows, Home, End, Page Up and Page Down move, Enter and Space choose.
 * cells: elements in order; columns: how many stand in a row, or a function that counts them where the page's width decides;
 * move(index) after each move; choose(index).
 */
function grid(cells, columns, { start = 0, move = () => {}, choose = () => {} } = {}) {
  let current = Math.max(0, Math.min(start, cells.length - 1));
  const go = (index) => {
    if (index < 0 || index >= cells.length) return;
    cells[current].tabIndex = -1;
    current = index;
    cells[current].tabIndex = 0;
    cells[current].focus();
    move(current);
  };
  const wide = () => (typeof columns === "function" ? columns() : columns);
  const keys = {
    ArrowRight: () => go(current + 1), ArrowLeft: () => go(current - 1),
    ArrowDown: () => go(current + wide()), ArrowUp: () => go(current - wide()),
    Home: () => go(0), End: () => go(cells.length - 1),
    PageDown: () => go(Math.min(current + 5 * wide(), cells.length - 1)), PageUp: () => go(Math.max(current - 5 * wide(), 0)),
    Enter: () => choose(current), " ": () => choose(current),
  };
  cells.forEach((cell, index) => {
    takesKeys(cell).tabIndex = index === current ? 0 : -1;
    cell.addEventListener("click", () => { go(index); choose(index); });
    cell.addEventListener("keydown", (event) => {
      if (!(event.key in keys) || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      event.stopPropagation();
      keys[event.key]();
    });
  });
}

/**
 * Previous, Next, Reset and a slider over steps 0 to last. Nothing plays by itself. at(step) is called with the new step.
 * Returns { node, show(step, text, last) }: last where the number of steps has changed.
 */
function stepper(label, last, at) {
  let step = 0;
  const go = (next) => { step = Math.max(0, Math.min(last, next)); at(step); };
  const slider = takesKeys(element("input", { type: "range", min: 0, max: last, value: 0, "aria-label": label,
    oninput: () => go(Number(slider.value)) }));
  const text = element("span", { class: "abc-step" });
  const [previous, next] = [button("Previous", () => go(step - 1)), button("Next", () => go(step + 1))];
  const node = element("div", { class: "abc-row" }, previous, next, button("Reset", () => go(0)), slider, text);
  const show = (now, said, end = last) => {
    step = now;
    last = end;
    slider.max = String(end);
    slider.value = String(now);
    slider.setAttribute("aria-valuetext", said);
    text.textContent = said;
    // A button that is focused and disabled takes no keys; they would reach JupyterLab.
    const stuck = document.activeElement === (now === 0 ? previous : now === last ? next : null);
    previous.disabled = now === 0;
    next.disabled = now === last;
    if (stuck) slider.focus();
  };
  return { node, show };
}

/** Hue and pattern of one owner of blocks, of six; more owners repeat them, so that the text always says who. */
function ownerClass(index) {
  return `abc-owner-${index % 6}`;
}

/**
 * anywidget shows an empty cell when a script fails. This shows the reason and leaves the fallback's words.
 * It also makes what all views have: the heading, the place that is read out, and the reason of a refusal.
 * own: the class inside of which the view's rules of style hold.
 */
function guarded(draw, own) {
  return ({ model, el }) => {
    el.classList.add(own);
    const stops = [];
    const on = (trait, react) => {
      const event = `change:${trait}`;
      const safely = () => attempt(react);
      model.on(event, safely);
      stops.push(() => model.off(event, safely));
    };
    const root = element("div", { class: "abc-body" });
    const failed = element("p", { class: "abc-fault", role: "alert" });
    const said = element("p", { class: "abc-said", role: "status", "aria-live": "polite" });
    const attempt = (action) => {
      try {
        return action();
      } catch (error) {
        failed.textContent = `This view could not be drawn: ${error}. Its contents as text: print(view).`;
        console.error(error);
      }
    };
    el.append(element("section", { class: "abc-view", "aria-label": model.get("title") },
      element("h4", { class: "abc-title", text: model.get("title") }), root, failed, said));
    const ask = (operation, ...args) => model.send({ operation, arguments: args });
    const say = (sentence) => { said.textContent = sentence; };
    on("summary", () => say(model.get("summary")));
    on("fault", () => { failed.textContent = model.get("fault"); });
    said.textContent = model.get("summary");
    const again = attempt(() => draw({ model, root, ask, on, say }));
    if (typeof again === "function") on("state", again);
    return () => stops.forEach((stop) => stop());
  };
}
