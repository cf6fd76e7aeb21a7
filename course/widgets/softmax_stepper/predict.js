// What the learner says before it is shown.

function predictionForm(frame, guess, commit) {
  const field = (label, value) => labelled(label, takesKeys(element("input", { type: "text", class: "abc-input", size: 12, value,
    onkeydown: (event) => { if (event.key === "Enter") { event.preventDefault(); send(); } } })));
  const m = field("The new m", guess ? guess[0] : "");
  const factor = field("The factor (0.05, or exp(2 - 5))", guess ? guess[1] : "");
  const send = () => commit(m.querySelector("input").value.trim(), factor.querySelector("input").value.trim());
  return [element("p", { class: "abc-sm-question", text: `Predict. ${frame.question}` }),
    element("div", { class: "abc-row" }, m, factor, button("Commit and reveal", send))];
}

function revealed(frame, guess) {
  const sentence = element("p", {}, element("strong", { text: frame.sentence }));
  if (!guess || (guess[0] === "" && guess[1] === "")) return [sentence];
  const judge = (text, name, value, shown) => text === "" ? `no ${name}` :
    near(readNumber(text), value) ? `${name} ${text} ✔ right` : `${name} ${text} ✘ it is ${shown}`;
  const real = frame.heights.m === null ? -Infinity : frame.heights.m;
  return [sentence, element("p", { class: "abc-sm-verdict", text: `You predicted: ${judge(guess[0], "m", real, frame.m)}; ${
    judge(guess[1], "factor", frame.factor_value, frame.factor)}.` })];
}

/** "0.05", "-inf", "exp(2 - 5)", "e^-3", "2 - 5" as a number; NaN for what is none. */
function readNumber(text) {
  const plain = text.toLowerCase().replace(/−/g, "-").replace(/∞/g, "inf").replace(/\s+/g, "");
  const power = plain.match(/^(?:exp|e\^|e\*\*)\(?(.+?)\)?$/);
  if (power) return Math.exp(readNumber(power[1]));
  const terms = plain.replace(/[()]/g, "").replace(/--/g, "+").match(/[+-]?(?:inf|\d*\.?\d+(?:e[+-]?\d+)?)/g);
  if (!terms || terms.join("") !== plain.replace(/[()]/g, "").replace(/--/g, "+")) return NaN;
  return terms.reduce((sum, term) => sum + Number(term.replace("inf", "Infinity")), 0);
}

/** As near as somebody gets who computes in their head: two percent. */
function near(guess, value) {
  return guess === value || (Math.abs(value) < Infinity && Math.abs(guess - value) <= 0.02 * Math.abs(value));
}
