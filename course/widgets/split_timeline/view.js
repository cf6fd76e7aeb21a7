// The batch above; after a guess, three schedules in small, and one of them in large: a lane for each multiprocessor.
const SIZE_NAMES = { num_kv_heads: "kv heads", num_sms: "multiprocessors", num_splits: "splits of the fixed schedule" };

function draw({ model, root, ask, say }) {
  const form = element("div", { class: "abc-row" });
  const batch = element("div", { class: "abc-batch", role: "img" });
  const question = element("div", {});
  const answer = element("div", {});
  root.classList.add("abc-split-timeline");
  root.append(form, batch, question, answer);
  let chosen = null; // the schedule that is shown in large
  let lane = 0;

  const settings = ({ seq_lens, sizes, offered, presets }) => {
    const focused = form.contains(document.activeElement) ? document.activeElement.dataset.field : null;
    const named = (control, field) => {
      control.querySelector("select, input").dataset.field = field;
      return control;
    };
    form.replaceChildren(
      named(choice("Take a batch", [["", "your own"], ...presets], "", (name) => name && ask("preset", name)), "preset"),
      named(line("seq_lens", seq_lens.join(", "), (text) => ask("lengths", text), { size: 34 }), "seq_lens"),
      ...Object.keys(offered).map((field) => named(choice(SIZE_NAMES[field], offered[field], sizes[field], (value) => ask("change", field, Number(value))), field)));
    if (focused) form.querySelector(`[data-field="${focused}"]`)?.focus();
  };

  const redraw = () => {
    const state = model.get("state");
    settings(state);
    drawBatch(batch, state.seq_lens);
    const asked = question.contains(document.activeElement);
    if (state.guessed === null) {
      chosen = null;
      question.replaceChildren(element("p", { class: "abc-ask", text: "Which schedule ends first? Press one to see all three." }),
        element("div", { class: "abc-row" }, Object.entries(state.labels).map(([name, label]) => button(label, () => ask("guess", name), { "data-guess": name }))));
      answer.replaceChildren();
      return;
    }
    const [right, guesses] = state.score;
    question.replaceChildren(element("p", { class: "abc-ask", text: `You said: ${state.labels[state.guessed]}. ${right} of ${guesses} guesses right so far. Change the batch to guess again.` }));
    chosen ??= state.guessed;
    const show = (name) => {
      chosen = name;
      drawAnswer(answer, state, chosen, lane, show, (index) => { lane = index; }, say);
      answer.querySelector(`[data-schedule="${name}"]`).focus();
    };
    drawAnswer(answer, state, chosen, lane, show, (index) => { lane = index; }, say);
    if (asked) answer.querySelector(`[data-schedule="${chosen}"]`).focus();
  };
  redraw();
  return redraw;
}

const letter = (request) => String.fromCharCode(65 + request);
const percent = (share) => `${Math.round(100 * share)}\u00a0%`;
const grouped = (number) => number.toLocaleString("en");

/** The requests' lengths as bars. */
function drawBatch(node, seqLens) {
  const longest = Math.max(...seqLens, 1);
  node.setAttribute("aria-label", `The batch: ${seqLens.map((tokens, request) => `${letter(request)} has ${tokens} tokens`).join(", ")}.`);
  node.replaceChildren(...seqLens.map((tokens, request) => element("div", { class: "abc-request" },
    element("span", { class: "abc-who", text: letter(request) }),
    element("div", { class: "abc-length" }, element("div", { class: ownerClass(request), style: `width:${(100 * tokens) / longest}%` })),
    element("span", { class: "abc-tokens", text: grouped(tokens) }))));
}

function drawAnswer(node, state, chosen, lane, show, move, say) {
  const { results, labels, sizes, guessed, estimate } = state;
  const last = Math.max(...results.map((result) => result.total));
  const small = results.map((result) => {
    const marks = [result.first ? "✔ first" : "", result.name === guessed ? "your guess" : ""].filter(Boolean).join(", ");
    return takesKeys(element("button", { type: "button", class: "abc-small", "data-schedule": result.name, "aria-pressed": String(result.name === chosen),
      onclick: () => show(result.name) },
      element("span", { class: "abc-small-name", text: labels[result.name] }),
      element("span", { text: `${grouped(result.total)} tokens in all${marks ? `: ${marks}` : ""}` }),
      miniature(result, sizes.num_sms, last)));
  });
  const result = results.find((each) => each.name === chosen);
  const rows = results.map((each) => [`${each.first ? "✔ " : ""}${labels[each.name]}`, grouped(each.programs), grouped(each.makespan), percent(each.idle),
    percent(each.beginning), grouped(each.merge), grouped(each.total)]);
  const info = element("p", { class: "abc-info" });
  const lanes = lanesOf(result, sizes.num_sms, last);
  grid(lanes.map((each) => each.node), 1, { start: lane,
    move: (index) => { info.textContent = lanes[index].said; move(index); },
    choose: (index) => { info.textContent = lanes[index].said; say(lanes[index].said); } });
  info.textContent = "Choose a lane to read what runs on it.";
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((part) => element("span", { style: `left:${100 * part}%`, text: grouped(Math.round(part * last)) }));
  const figures = takesKeys(element("div", { class: "abc-scroll", tabindex: 0, role: "region", "aria-label": "The three schedules in numbers" },
    table("The three schedules, in tokens", ["schedule", "programs", "last ends", "idle", "begin and end", "merge", "in all"], rows,
      (row, index) => (results[index].first ? "abc-verdict-chosen" : ""))));
  node.replaceChildren(
    element("div", { class: "abc-smalls", role: "group", "aria-label": "Show a schedule in large" }, small),
    element("div", { class: "abc-lanes", role: "group", "aria-label": `${labels[chosen]}: one lane for each multiprocessor` }, lanes.map((each) => each.node)),
    element("div", { class: "abc-axis", "aria-hidden": "true" }, element("span", { class: "abc-who" }), element("div", { class: "abc-ticks" }, ticks)),
    element("p", { class: "abc-key", "aria-hidden": "true" }, element("i", { class: "abc-begin" }), " begins and ends   ", element("i", { class: "abc-idle" }), " idle   ",
      element("i", { class: "abc-merge" }), " merge   letters: the request whose tokens are read; time in tokens"),
    info, figures, element("p", { class: "abc-estimate", text: estimate }));
}

/** A schedule in the size of a stamp. */
function miniature(result, numSms, last) {
  const height = 4;
  return drawn("svg", { class: "abc-mini", viewBox: `0 0 200 ${numSms * height}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    result.bars.map(([sm, , , , , , start, stop]) => drawn("rect", { x: (200 * start) / last, y: sm * height, width: Math.max((200 * (stop - start)) / last - 0.4, 0.3), height: height - 1 })),
    result.merge ? drawn("rect", { class: "abc-mini-merge", x: (200 * result.makespan) / last, y: 0, width: (200 * result.merge) / last, height: numSms * height - 1 }) : null);
}

/** A lane for each multiprocessor: its element, and what runs on it in words. */
function lanesOf(result, numSms, last) {
  const left = (time) => `${(100 * time) / last}%`;
  return Array.from({ length: numSms }, (_, sm) => {
    const bars = result.bars.filter((bar) => bar[0] === sm);
    const ends = bars.length ? bars.at(-1)[7] : 0;
    const words = bars.map(([, request, head, split, first, end, start, stop]) =>
      `${letter(request)}, kv head ${head}, split ${split}: ${end > first ? `tokens ${first} to ${end - 1}` : "no token"}, from ${start} to ${stop}`);
    const said = `Multiprocessor ${sm}: ${words.join("; ") || "nothing"}. ${ends < result.makespan ? `Idle from ${ends} to ${result.makespan}.` : "It ends last."}`;
    const track = element("span", { class: "abc-track", "aria-hidden": "true" },
      bars.map(([, request, head, split, first, end, start, stop]) => element("span", { class: `abc-bar ${ownerClass(request)}`, title: `${letter(request)}, kv head ${head}, split ${split}: ${end - first} tokens`,
        style: `left:${left(start)};width:calc(${left(stop - start)} - 1px)` },
        element("i", { class: "abc-begin", style: `width:${(100 * (stop - start - end + first)) / (stop - start)}%` }),
        (end - first) / last > 0.017 ? element("b", { text: letter(request) }) : null)),
      ends < result.makespan ? element("span", { class: "abc-bar abc-idle", style: `left:${left(ends)};width:${left(result.makespan - ends)}` }) : null,
      result.merge ? element("span", { class: "abc-bar abc-merge", style: `left:${left(result.makespan)};width:${left(result.merge)}` }) : null);
    return { said, node: element("button", { type: "button", class: "abc-lane", "aria-label": said }, element("span", { class: "abc-who", text: `SM ${sm}` }), track) };
  });
}
