// The mask as a grid of queries and keys, cut into tiles, and a small map of the tiles beside it.

const MASK_MARKS = { seen: "●", future: "×", window: "×", "no query": "", "no key": "" };
const TILE_MARKS = { skipped: "–", full: "■", masked: "◪" };

/** Why one cell is as it is. */
function cellWords(state, query, key) {
  const { num_computed: computed, sliding_window: window, block_q, tile_size } = state.setting;
  const position = computed + query;
  const reason = {
    seen: key === position ? "seen: it is its own key" : "seen",
    future: `not seen: it comes ${key - position} after the query (causal)`,
    window: `not seen: ${position - key} before the query, and a window of ${window} ends ${window - 1} before it`,
    "no query": "padding: the block of queries is not full",
    "no key": "padding: the sequence has ended",
  }[state.cells[query][key]];
  const tile = state.hiding ? null : state.tiles[Math.floor(query / block_q)][Math.floor(key / tile_size)];
  const who = state.cells[query][key] === "no query" ? `Row ${query}` : `Query ${query} at position ${position}`;
  return `${who}, key at position ${key}: ${reason}.${tile ? ` Its tile is ${tile[0]}: ${tile[1]}.` : ""}`;
}

/** The setting. Made once, so that what is being typed outlives an answer from the kernel; show(state) fills in the rest. */
function maskForm(state, ask) {
  const inputs = new Map();
  const number = (label, field, least, attributes = {}) => {
    const node = line(label, "", (text) => ask("change", field, text === "" ? null : Number(text)),
      { type: "number", min: least, max: 64, ...attributes });
    inputs.set(field, node.querySelector("input"));
    return node;
  };
  const preset = choice("Begin from", [["", "a setting"], ...state.presets], "", (name) => name && ask("load", name));
  const ticks = { causal: tick("causal", true, (value) => ask("change", "causal", value)), predicts: tick("predict first", false, (value) => ask("ask_first", value)) };
  const node = element("div", { class: "abc-row" }, preset,
    number("tokens in the cache", "num_computed", 0), number("query tokens", "num_new", 1), number("BLOCK_Q", "block_q", 1),
    number("TILE_SIZE", "tile_size", 1), number("sliding window", "sliding_window", 1, { placeholder: "none" }),
    ticks.causal, ticks.predicts, button("Reset", () => ask("reset")));
  let shown = {};
  const show = (now, all = false) => {
    for (const [field, input] of inputs) {
      if (all || shown[field] !== now.setting[field]) input.value = now.setting[field] ?? "";
    }
    shown = now.setting;
    ticks.causal.querySelector("input").checked = now.setting.causal;
    ticks.predicts.querySelector("input").checked = now.predicts;
    preset.querySelector("select").value = "";
  };
  return { node, show };
}

function predictionForm(state, ask) {
  if (!state.hiding) return state.verdict ? element("p", { class: "abc-verdict", text: `Your prediction. ${state.verdict}` }) : "";
  const boxes = ["skipped", "full", "masked"].map((kind) => line(kind, "", () => {}, { type: "number", min: 0 }));
  const values = () => boxes.map((box) => box.querySelector("input").value).map((text) => (text === "" ? null : Number(text)));
  return element("div", { class: "abc-predict-tiles" },
    element("p", { text: `Predict: of these ${state.num_tiles} tiles, how many are skipped, how many computed without a mask (full), how many with one (masked)?` }),
    element("div", { class: "abc-row" }, boxes, button("Commit and show the tiles", () => ask("commit", ...values()))));
}

/** The cells, rows of queries. Every cell takes part in one tab stop. */
function maskGrid(state, at, said) {
  const { block_q, tile_size, num_computed, num_new, seq_len } = { ...state.setting, seq_len: state.setting.num_computed + state.setting.num_new };
  const columns = state.cells[0].length;
  const cells = [];
  const rows = state.cells.map((row, query) => {
    const head = element("span", { class: "abc-axis", role: "rowheader", text: query < num_new ? num_computed + query : "" });
    const own = row.map((reason, key) => {
      const kind = state.hiding ? "hidden" : state.tiles[Math.floor(query / block_q)][Math.floor(key / tile_size)][0];
      const look = ["abc-cell", `abc-tile-${kind}`, reason === "seen" ? "abc-seen" : reason.startsWith("no ") ? "abc-pad" : "abc-unseen",
        key % tile_size === 0 ? "abc-left" : "", query % block_q === 0 ? "abc-top" : "",
        key === columns - 1 ? "abc-right-edge" : "", query === state.cells.length - 1 ? "abc-bottom" : ""].join(" ");
      const cell = element("span", { role: "gridcell", class: look, "aria-label": cellWords(state, query, key), text: kind === "skipped" && reason !== "seen" ? "·" : MASK_MARKS[reason] });
      cell.dataset.at = `${query},${key}`;
      cells.push(cell);
      return cell;
    });
    return element("div", { class: "abc-mask-row", role: "row" }, head, own);
  });
  const tell = (index) => {
    at.index = index;
    said.textContent = cells[index].getAttribute("aria-label");
  };
  const node = element("div", { class: "abc-mask", role: "grid", "aria-label": "Queries in rows, keys in columns",
    style: `grid-template-columns: 30px repeat(${columns}, 24px)` },
    element("div", { class: "abc-mask-row", role: "row" }, element("span", { class: "abc-axis", role: "columnheader", "aria-label": "query position" }),
      Array.from({ length: columns }, (_, key) => element("span", { class: "abc-axis", role: "columnheader", text: key < seq_len ? key : "" }))),
    rows);
  node.addEventListener("mouseover", (event) => { if (event.target.dataset.at) said.textContent = event.target.getAttribute("aria-label"); });
  grid(cells, columns, { start: at.index, move: tell, choose: tell });
  return { node, cells };
}

/** A cell for each tile, with its kind in a word. */
function tileMap(state) {
  const { block_q, tile_size } = state.setting;
  const head = ["queries ↓ keys →", ...state.tiles[0].map((_, index) => `${index * tile_size}–${(index + 1) * tile_size - 1}`)];
  const rows = state.tiles.map((row, index) => [`${index * block_q}–${(index + 1) * block_q - 1}`, ...row.map(([kind]) => `${TILE_MARKS[kind]} ${kind}`)]);
  const node = table("The tiles", head, rows);
  node.querySelectorAll("tbody tr").forEach((line, row) => line.querySelectorAll("td").forEach((cell, column) => {
    cell.className = `abc-tile-${state.tiles[row][column][0]}`;
    cell.title = state.tiles[row][column][1];
  }));
  return node;
}

function draw({ model, root, ask, on }) {
  const form = maskForm(model.get("state"), ask);
  const [prediction, picture, numbers] = ["abc-prediction", "abc-picture", "abc-numbers"].map((name) => element("div", { class: name }));
  const said = element("p", { class: "abc-cell-words", text: "Go over a cell with the mouse or the arrow keys: it says who sees whom, and why." });
  root.append(form.node, prediction, picture, said, numbers);
  const at = { index: 0 };
  const redraw = () => {
    const state = model.get("state");
    const active = root.contains(document.activeElement) ? document.activeElement : null;
    // Where the focused node goes away, focus stays with the cells: from the page's body, keys would reach JupyterLab.
    const cell = active && (active.dataset.at || prediction.contains(active));
    form.show(state);
    prediction.replaceChildren(predictionForm(state, ask));
    at.index = Math.min(at.index, state.cells.length * state.cells[0].length - 1);
    const mask = maskGrid(state, at, said);
    const scroll = element("div", { class: "abc-scroll" }, mask.node);
    const side = state.hiding ? "" : takesKeys(element("div", { class: "abc-scroll", tabindex: 0, role: "region", "aria-label": "The tiles" }, tileMap(state)));
    picture.replaceChildren(scroll, side);
    const { counts } = state;
    numbers.replaceChildren(state.hiding ? "" : element("p", {},
      element("strong", { text: `${counts.full + counts.masked} of ${state.num_tiles} tiles are computed` }),
      `, ${counts.full} of them without a mask. Of ${counts.computed} entries computed, ${counts.seen} are seen and ${counts.wasted} are wasted (${Math.round((100 * counts.wasted) / counts.computed)} %).`),
    element("p", { class: "abc-key", text: state.hiding ? "● seen · × not seen · empty: padding of a tile"
      : "● seen · × computed and not seen · empty: padding, computed too · solid: full tile, no mask · hatched: masked tile · dots: skipped, never loaded" }));
    if (cell) mask.cells[at.index].focus();
  };
  redraw();
  // What was refused is not in force: the form says what is.
  on("fault", () => { if (model.get("fault")) form.show(model.get("state"), true); });
  return redraw;
}
