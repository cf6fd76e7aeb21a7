// A block table from both sides: requests with their logical blocks, and the physical blocks of the cache. Nodes are kept,
// and only those are touched whose words or looks have changed: a pool may have a thousand blocks.

/** For each physical block its owners, as [index of the request, logical block]. */
function ownersOf(state) {
  const owners = Array.from({ length: state.num_blocks }, () => []);
  state.requests.forEach((request, index) => request.blocks.forEach((block, logical) => owners[block]?.push([index, logical])));
  return owners;
}

/** "A8", and "r1·8" where the two would run together. */
function numbered(label, number) {
  return /\d$/.test(label) ? `${label}·${number}` : `${label}${number}`;
}

/** Tokens of a request in one of its logical blocks, and how many of them this step writes. */
function filled(request, logical, size) {
  const first = logical * size;
  const end = Math.max(first, Math.min(first + size, request.num_tokens));
  const fresh = Math.max(first, request.num_tokens - request.num_new);
  return { count: end - first, written: Math.max(0, end - fresh) };
}

/** What a physical block's cell says and looks like. */
function blockFace(block, owners, state, marks) {
  const held = owners[block];
  const words = [], notes = [];
  let look = "abc-block", main = "";
  if (held.length) {
    const [index, logical] = held[0];
    const request = state.requests[index];
    main = numbered(request.label, logical);
    look += ` ${ownerClass(request.hue)}`;
    for (const [each, at] of held.slice(0, 4)) {
      const { count } = filled(state.requests[each], at, state.block_size);
      words.push(`${state.requests[each].name}'s logical block ${at}, ${count} of ${state.block_size} slots filled`);
    }
    if (held.length > 4) words.push(`and ${held.length - 4} more owners`);
    if (held.length > 1) { notes.push(`×${held.length}`); words.push(`reference count ${held.length}`); }
    if (held.some(([each, at]) => filled(state.requests[each], at, state.block_size).written)) {
      look += " abc-fresh";
      words.push("written in this step");
    }
  } else {
    look += " abc-free";
    words.push("free");
    if (block in state.cached) { look += " abc-kept"; notes.push("cached"); words.push(`still holds ${state.cached[block]}`); }
    if (marks.next === block) { notes.push("next"); words.push("handed out next"); }
  }
  for (const [from, to] of state.copies) {
    if (to === block) { notes.push(`${from}⇒${to}`); words.push(`copied from block ${from} in this step`); }
    if (from === block) { notes.push(`⇒${to}`); words.push(`copied to block ${to} in this step`); }
  }
  if (marks.breaches.has(block)) { look += " abc-breach"; notes.push("✗"); words.push(`breach: ${marks.breaches.get(block)}`); }
  return { look, main, note: notes.join(" "), words: `Block ${block}: ${words.join("; ")}` };
}

/** The physical blocks as a grid of cells. show(state, owners) touches what changed. */
function blockGrid(numBlocks, select) {
  const cells = Array.from({ length: numBlocks }, (_, block) => {
    const [number, main, note] = ["abc-number", "abc-main", "abc-note"].map((name) => element("span", { class: name }));
    number.textContent = block;
    return element("div", { role: "option", "aria-selected": "false", "data-block": block }, number, main, note);
  });
  const node = element("div", { class: "abc-blocks", role: "listbox", "aria-label": "Physical blocks" }, cells);
  const across = () => Math.max(1, cells.findIndex((cell) => cell.offsetTop !== cells[0].offsetTop));
  grid(cells, across, { move: select, choose: select });
  const before = [];
  const show = (state, owners) => {
    const marks = { next: state.free[0], breaches: new Map() };
    state.breaches.forEach((breach) => breach.blocks.forEach((block) => marks.breaches.set(block, breach.name)));
    for (let block = 0; block < numBlocks; block++) {
      const face = blockFace(block, owners, state, marks);
      const key = `${face.look}|${face.note}|${face.words}`;
      if (before[block] === key) continue;
      before[block] = key;
      const cell = cells[block];
      cell.className = face.look + (cell.getAttribute("aria-selected") === "true" ? " abc-selected" : "");
      cell.setAttribute("aria-label", face.words);
      cell.children[1].textContent = face.main;
      cell.children[2].textContent = face.note;
    }
  };
  return { node, show };
}

/** The requests, a row each, with a chip for each logical block. Keys as in a grid whose rows differ in length. */
function requestRows(select) {
  const node = element("div", { class: "abc-requests", role: "listbox", "aria-label": "Requests, their logical blocks in order" });
  const rows = new Map();
  const chips = () => [...node.querySelectorAll("[role=option]")];
  const stop = (chip) => {
    node.querySelectorAll("[role=option][tabindex='0']").forEach((each) => { each.tabIndex = -1; });
    chip.tabIndex = 0;
  };
  const go = (chip) => {
    if (!chip) return;
    stop(chip);
    chip.focus();
    select(Number(chip.dataset.block));
  };
  node.addEventListener("click", (event) => go(event.target.closest("[role=option]")));
  node.addEventListener("keydown", (event) => {
    const chip = event.target.closest("[role=option]");
    if (!chip || event.ctrlKey || event.metaKey || event.altKey) return;
    const all = chips(), at = all.indexOf(chip);
    const column = [...chip.parentNode.children].indexOf(chip);
    const beside = (step) => {
      const lines = [...node.children], line = lines[lines.indexOf(chip.closest(".abc-request")) + step];
      const there = line ? [...line.querySelectorAll("[role=option]")] : [];
      return there[Math.min(column, there.length - 1)];
    };
    const moves = {
      ArrowRight: () => all[at + 1], ArrowLeft: () => all[at - 1], ArrowDown: () => beside(1), ArrowUp: () => beside(-1),
      Home: () => all[0], End: () => all[all.length - 1], Enter: () => chip, " ": () => chip,
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    event.stopPropagation();
    go(moves[event.key]());
  });
  const make = () => {
    const parts = { name: element("span", { class: "abc-name" }), facts: element("span", { class: "abc-facts" }),
      chips: element("span", { class: "abc-chips" }), past: element("span", { class: "abc-past" }) };
    const row = element("div", { class: "abc-request", role: "group" }, parts.name, parts.facts, parts.chips, parts.past);
    return { row, parts, key: "" };
  };
  const fillRow = (held, request, size) => {
    const key = JSON.stringify(request);
    if (held.key === key) return;
    held.key = key;
    const { name, facts, chips: list, past } = held.parts;
    const label = request.label === request.name ? request.name : `${request.label} (${request.name})`;
    const fresh = request.num_new ? `, ${request.num_new} new` : "";
    const tokens = `${request.num_tokens} ${request.num_tokens === 1 ? "token" : "tokens"}${fresh}`;
    held.row.setAttribute("aria-label", `Request ${label}: ${tokens}`);
    name.textContent = label;
    name.className = `abc-name ${ownerClass(request.hue)}`;
    facts.textContent = tokens;
    while (list.children.length > request.blocks.length) list.lastChild.remove();
    while (list.children.length < request.blocks.length) {
      list.append(takesKeys(element("span", { role: "option", "aria-selected": "false", tabindex: -1 })));
    }
    request.blocks.forEach((block, logical) => {
      const chip = list.children[logical];
      const { count, written } = filled(request, logical, size);
      const words = `${request.name}'s logical block ${logical} lies in physical block ${block}, ${count} of ${size} slots filled`;
      chip.className = `abc-chip ${ownerClass(request.hue)}${written ? " abc-fresh" : ""}`;
      chip.dataset.block = block;
      chip.textContent = `${logical}→${block}`;
      chip.setAttribute("aria-label", written ? `${words}, ${written} written in this step` : words);
    });
    past.textContent = request.past.length ? `past its end, never read: ${request.past.join(", ")}` : "";
  };
  const show = (state) => {
    const names = new Set(state.requests.map((request) => request.name));
    for (const [name, held] of rows) if (!names.has(name)) { held.row.remove(); rows.delete(name); }
    state.requests.forEach((request, index) => {
      if (!rows.has(request.name)) rows.set(request.name, make());
      const held = rows.get(request.name);
      fillRow(held, request, state.block_size);
      if (node.children[index] !== held.row) node.insertBefore(held.row, node.children[index] ?? null);
    });
    const all = chips();
    if (all.length && !all.some((chip) => chip.tabIndex === 0)) all[0].tabIndex = 0;
  };
  return { node, show };
}

/** The slots of the selected block: each place's number, whose token lies there, and what this step writes. */
function slotStrip(state, owners, block) {
  if (block < 0 || block >= state.num_blocks) return [element("p", { text: "Choose a block, on either side, to see its slots." })];
  const size = state.block_size;
  const held = owners[block];
  const written = new Map(), wrong = new Set();
  state.writes.forEach(([slot, request, token]) => { if (Math.floor(slot / size) === block) written.set(slot, [request, token]); });
  state.breaches.forEach((breach) => breach.slots.forEach((slot) => wrong.add(slot)));
  const [, whose, from] = (held.length ? null : state.cached[block]?.match(/^(.+)'s tokens (\d+)/)) ?? [];
  const left = (offset) => (whose === undefined ? "–" : `(${whose.length > 2 ? "" : whose}${Number(from) + offset})`);
  const boxes = Array.from({ length: size }, (_, offset) => {
    const slot = block * size + offset;
    const here = held.filter(([index, logical]) => logical * size + offset < state.requests[index].num_tokens)
      .map(([index, logical]) => ({ request: state.requests[index], position: logical * size + offset }));
    const fresh = here.some(({ request, position }) => position >= request.num_tokens - request.num_new);
    const said = written.has(slot) ? `← token ${written.get(slot)[1]}` : fresh && !state.live ? "nobody writes" : "";
    const look = here.length ? ownerClass(here[0].request.hue) : "abc-empty";
    return element("li", { class: `abc-slot ${look}${fresh ? " abc-fresh" : ""}${wrong.has(slot) ? " abc-breach" : ""}` },
      element("span", { class: "abc-number", text: `slot ${slot}` }),
      element("span", { class: "abc-main", text: here.map(({ request, position }) => numbered(request.label, position)).join(" ") || left(offset) }),
      element("span", { class: "abc-note", text: said + (wrong.has(slot) ? " ✗" : "") || (fresh ? "new" : `offset ${offset}`) }));
  });
  const users = held.map(([index, logical]) => `${state.requests[index].name}'s logical block ${logical}`);
  const kept = state.cached[block] ? (users.length ? ` Cached: ${state.cached[block]}.` : ` It still holds ${state.cached[block]}.`) : "";
  const words = users.length ? `${users.join(", ")}; reference count ${users.length}.` : "Free.";
  return [
    element("p", { class: "abc-about" }, element("strong", { text: `Block ${block}. ` }),
      `${words}${kept} Its slots are ${block} × ${size} + offset, from ${block * size} to ${block * size + size - 1}; A8 is the token at A's position 8.`),
    element("ol", { class: "abc-slots", "aria-label": `Slots of block ${block}` }, boxes)];
}

/** What was said against what came: a row for each new token. */
function revealTable({ request, rows, verdict }) {
  const why = (row, index) => (!row.reason ? "✔" : row.reason === rows[index - 1]?.reason ? "✘ the same"
    : `✘ ${row.reason[0].toUpperCase()}${row.reason.slice(1)}`);
  const texts = rows.map((row, index) => [String(row.position), `${row.logical}→${row.physical}`, String(row.offset), String(row.slot),
    row.guess === null ? "–" : String(row.guess), why(row, index)]);
  return table(`${request}'s new slots: ${verdict}`, ["position", "block", "offset", "slot", "you said", "so"], texts,
    (_, index) => (rows[index].reason ? "abc-wrong" : "abc-right"));
}

/** Everything that changes the pool. show(state) brings its choices up to date and leaves what was typed. */
function controls(model, ask) {
  const number = (label, value, attributes = {}) => {
    const node = line(label, value, () => {}, { type: "number", min: 1, size: 4, ...attributes });
    return { node, input: node.querySelector("input") };
  };
  const who = choice("Request", [], "", () => update());
  const like = choice("begins like", [], "", () => {});
  const [chosen, likeSelect] = [who, like].map((node) => node.querySelector("select"));
  const [count, length, common] = [number("new tokens", 1), number("prompt tokens", 6), number("for the first", "", { placeholder: "all" })];
  const guess = line("Which slots will they be written to? Such as 20, 21", "", () => {});
  const guessed = guess.querySelector("input");
  const whole = (input) => Number(input.value);
  const run = (operation, ...args) => () => ask(operation, chosen.value, ...args.map((input) => whole(input)));
  const commit = () => { ask("predict", chosen.value, whole(count.input), guessed.value); guessed.value = ""; };
  guessed.addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); commit(); } });
  count.input.addEventListener("input", () => update());
  const buttons = {
    append: button("Append", () => run("append", count.input)()), fork: button("Fork", () => run("fork")()),
    preempt: button("Preempt", () => run("preempt")()), resume: button("Resume", () => run("resume")()), free: button("Free", () => run("free")()),
  };
  const evict = button("Evict next", () => ask("evict"));
  const evictThis = button("Evict selected", () => ask("evict", model.get("selected")));
  const question = element("p", { class: "abc-question" });
  const commitButton = button("Commit and take the step", commit);
  const reveal = element("div", { class: "abc-scroll" });
  const steps = stepper("Step", 0, (step) => ask("go", step));
  const admit = () => ask("allocate", whole(length.input), likeSelect.value, common.input.value === "" ? null : whole(common.input));
  const top = element("div", {},
    element("div", { class: "abc-row", role: "group", "aria-label": "Change a request" }, who, count.node, Object.values(buttons)),
    element("div", { class: "abc-row", role: "group", "aria-label": "Admit a request" }, length.node, like, common.node,
      button("Admit", admit), evict, evictThis),
    steps.node);
  const bottom = element("section", { class: "abc-predict", "aria-label": "Predict the next step" },
    element("h5", { text: "Predict the next step" }), question, element("div", { class: "abc-row" }, guess, commitButton), reveal);

  const offer = (select, pairs) => {
    const key = JSON.stringify(pairs), value = select.value;
    if (select.dataset.key === key) return;
    select.dataset.key = key;
    select.replaceChildren(...pairs.map(([name, text]) => element("option", { value: name, text })));
    if (pairs.some(([name]) => name === value)) select.value = value;
  };
  let state = model.get("state");
  const update = () => {
    const waits = chosen.value in state.waiting;
    const request = state.requests.find((each) => each.name === chosen.value);
    const active = document.activeElement;
    for (const [name, node] of Object.entries(buttons)) node.disabled = name === "resume" ? !waits : name === "free" ? !(waits || request) : !request;
    commitButton.disabled = guessed.disabled = !request;
    evict.disabled = !state.free.some((block) => block in state.cached);
    evictThis.disabled = !(state.free.includes(model.get("selected")) && model.get("selected") in state.cached);
    // A button that is focused and disabled takes no keys; they would reach JupyterLab.
    if (active?.disabled && (top.contains(active) || bottom.contains(active))) chosen.focus();
    const many = Math.max(1, whole(count.input));
    question.textContent = !request ? "Choose a request that runs." :
      `${request.name} has ${request.num_tokens} tokens and gets ${many} more, at ${many === 1 ? `position ${request.num_tokens}` :
        `positions ${request.num_tokens} to ${request.num_tokens + many - 1}`}. Blocks are handed out in this order: ${state.free.slice(0, 5).join(", ") || "none is free"}${state.free.length > 5 ? ", …" : "."}`;
  };
  const show = (now) => {
    state = now;
    const running = now.requests.map((request) => [request.name, request.name]);
    const waiting = Object.entries(now.waiting).map(([name, tokens]) => [name, `${name} (waits, ${tokens} tokens)`]);
    offer(chosen, [...running, ...waiting]);
    offer(likeSelect, [["", "nobody"], ...now.texts.map((name) => [name, name])]);
    steps.show(now.step, `step ${now.step} of ${now.last}: ${now.sentences[now.sentences.length - 1]}`, now.last);
    reveal.replaceChildren(...(now.reveal ? [revealTable(now.reveal)] : []));
    update();
  };
  return { top, bottom, show, update };
}

/** What breaks the contract, with a way to the block. */
function breachList(state, select) {
  const items = state.breaches.map((breach) => element("li", {},
    element("code", { text: breach.where }), ": ", element("strong", { text: `${breach.name}. ` }), `${breach.text[0].toUpperCase()}${breach.text.slice(1)} `,
    breach.blocks.filter((block) => block >= 0 && block < state.num_blocks).slice(0, 3).map((block) => button(`Show block ${block}`, () => select(block)))));
  return element("div", { class: items.length ? "abc-breaches" : "abc-breaches abc-fine" },
    element("p", {}, element("strong", { text: `${items.length ? "✘" : "✔"} ${state.verdict}` })), element("ul", {}, items));
}

function draw({ model, root, ask, on }) {
  let state = model.get("state"), owners = ownersOf(state);
  const select = (block) => {
    model.set("selected", block);
    model.save_changes();
  };
  const blocks = blockGrid(state.num_blocks, select);
  const requests = requestRows(select);
  const details = element("section", { class: "abc-details", "aria-label": "The selected block" });
  const panel = state.live ? controls(model, ask) : null;
  const key = state.live
    ? "A0 is A's logical block 0 · ×2: two requests share the block · thick edge: written in this step · 5⇒7: block 5 was copied to 7 · cached: free, and still of use"
    : "A0 is A's logical block 0 · thick edge: written in this step · ✗ breaks the contract";
  root.append(
    panel ? panel.top : breachList(state, select),
    element("div", { class: "abc-sides" },
      element("section", { class: "abc-side abc-logical", "aria-label": "Requests" }, element("h5", { text: "Requests: logical → physical block" }), requests.node),
      element("section", { class: "abc-side abc-physical", "aria-label": "Cache" },
        element("h5", { text: `Cache: ${state.num_blocks} physical blocks of ${state.block_size} tokens` }), blocks.node)),
    element("p", { class: "abc-key", text: key }), details, panel ? panel.bottom : "");

  const showSelected = () => {
    const block = model.get("selected");
    root.querySelectorAll(".abc-selected").forEach((node) => { node.classList.remove("abc-selected"); node.setAttribute("aria-selected", "false"); });
    root.querySelectorAll(`[role=option][data-block="${block}"]`).forEach((node) => { node.classList.add("abc-selected"); node.setAttribute("aria-selected", "true"); });
    details.replaceChildren(...slotStrip(state, owners, block));
    panel?.update();
  };
  const redraw = () => {
    state = model.get("state");
    owners = ownersOf(state);
    blocks.show(state, owners);
    requests.show(state);
    panel?.show(state);
    showSelected();
  };
  redraw();
  on("selected", showSelected);
  return redraw;
}
