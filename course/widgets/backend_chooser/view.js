const FEATURE_NAMES = {
  use_mla: "MLA", has_sink: "attention sinks", use_sparse: "sparse", use_mm_prefix: "multimodal prefix",
  use_non_causal: "non-causal", use_batch_invariant: "batch invariant",
};
const VERDICT_MARKS = { chosen: "✔ chosen", refuses: "✘ refuses", "valid, comes later": "○ valid, comes later" };

function draw({ model, root, ask }) {
  const form = element("div", {});
  const answer = element("div", { class: "abc-row abc-chosen" });
  const answers = element("div", { class: "abc-scroll", tabindex: 0, role: "region", "aria-label": "Whom vLLM asks" });
  takesKeys(answers);
  root.append(form, answer, answers);

  const redraw = () => {
    const { deployment, chosen, answers: rows, offered, features, scenarios, guess_first: guessFirst, candidates } = model.get("state");
    const focused = root.contains(document.activeElement) ? document.activeElement.dataset.field : null;
    // A select's values are texts; JSON says them exactly.
    const pick = (field, label, pairs) => {
      const coded = pairs.map((each) => {
        const [value, text] = Array.isArray(each) ? each : [each, each === null ? "not set" : String(each)];
        return [JSON.stringify(value), text];
      });
      const control = choice(label, coded, JSON.stringify(deployment[field]), (text) => ask("change", field, JSON.parse(text)));
      control.querySelector("select").dataset.field = field;
      return control;
    };
    const feature = (name) => {
      const control = tick(FEATURE_NAMES[name], deployment[name], (value) => ask("change", name, value));
      control.querySelector("input").dataset.field = name;
      return control;
    };
    const start = choice("Begin from", [["", "a deployment of question 1"], ...scenarios], "", (name) => name && ask("load", name));
    start.querySelector("select").dataset.field = "scenario";
    const guessing = tick("Guess first", guessFirst, (value) => ask("set_guess_first", value));
    guessing.querySelector("input").dataset.field = "guess_first";
    form.replaceChildren(
      element("div", { class: "abc-row" }, start, button("Reset", () => ask("reset"), { "data-field": "reset" }), guessing),
      element("div", { class: "abc-row" },
        pick("capability", "GPU (compute capability)", offered.capability), pick("dtype", "dtype", offered.dtype),
        pick("head_size", "head size", offered.head_size), pick("kv_cache_dtype", "KV cache dtype", offered.kv_cache_dtype),
        pick("block_size", "--block-size", offered.block_size)),
      element("div", { class: "abc-row", role: "group", "aria-label": "Features" }, features.map(feature)));
    // Whoever has just pressed Show goes on with the form's first choice.
    if (focused) (form.querySelector(`[data-field="${focused}"]`) ?? form.querySelector("select")).focus();
    answers.hidden = chosen === null;
    if (chosen === null) {
      const guess = choice("Who will be chosen?", candidates, candidates[0], () => {});
      answer.replaceChildren(guess, button("Show", () => ask("guess", guess.querySelector("select").value), { "data-field": "show" }));
      return;
    }
    answer.replaceChildren(element("span", {}, "vLLM chooses ", element("strong", { text: chosen }), "."));
    const texts = rows.map((row) => [row.backend, VERDICT_MARKS[row.verdict],
      row.reasons.map((reason, index) => row.places[index] ? `${reason} (${row.places[index]})` : reason).join("; ") || "–"]);
    answers.replaceChildren(table("In the order of asking", ["backend", "verdict", "reasons against it"], texts,
      (row, index) => `abc-verdict-${rows[index].verdict.split(",")[0]}`));
  };
  redraw();
  return redraw;
}
