"use strict";

const at = (id) => document.getElementById(id);
const element = (name, text, kind) => {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
};
const KNOWN = [2, 3, 4, 5, 6, 7, 8, 16, 32];
const kindOf = (bits) => (KNOWN.includes(bits) ? `bits-${bits}` : "bits-other");
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const bytesText = (bytes) => `${bytes.toLocaleString("en")} bytes`;
const milliseconds = (time) => `${time < 10 ? time.toFixed(2) : time.toFixed(0)} ms`;

let catalogue = null;
const planOf = (id) => catalogue.plans.find((plan) => plan.id === id);
const chosen = () => document.querySelector("input[name=choice]:checked").value;

/* What the server says, or an error with the server's own words. */
async function say(path, body) {
  const options = body && {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  };
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("the server does not answer");
  }
  const said = await response.json();
  if (said.error) throw new Error(said.error.message);
  return said;
}

/* The choice as the server reads it. */
function choice() {
  switch (chosen()) {
    case "plan": return { plan: at("name").value };
    case "bytes": return { bytes: Number(at("bytes").value) };
    case "accuracy": return { accuracy: Number(at("accuracy").value) };
    default: return chosen();
  }
}

/* The plan that a choice picks, as the controller does; undefined where none is good enough, null where the answer decides. */
function picked() {
  const front = catalogue.front.map(planOf);
  const best = (plans, better) => plans.reduce((one, other) => (one && !better(other, one) ? one : other), undefined);
  const smaller = (a, b) => a.bytes < b.bytes || (a.bytes === b.bytes && a.bit_ops_per_token < b.bit_ops_per_token);
  const sharper = (a, b) => a.measured.exact_match > b.measured.exact_match
    || (a.measured.exact_match === b.measured.exact_match && smaller(a, b));
  switch (chosen()) {
    case "plan": return planOf(at("name").value);
    case "bytes": return best(front.filter((plan) => plan.bytes <= Number(at("bytes").value)), sharper);
    case "accuracy": return best(front.filter((plan) => plan.measured.low >= Number(at("accuracy").value)), smaller);
    case "confidence": return null;
    default: return planOf(catalogue.default);
  }
}

function showChoice() {
  const isMeasured = catalogue.front.length > 0;
  const shown = (text) => (isMeasured ? text : "not measured");
  at("bytes-shown").textContent = shown(bytesText(Number(at("bytes").value)));
  at("accuracy-shown").textContent = shown(`at least ${Number(at("accuracy").value).toFixed(1)} %`);
  const plan = picked();
  if (plan === null) {
    const { plans, thresholds } = catalogue.cascade;
    const stages = plans.map((id, stage) => {
      const bits = `${planOf(id).average_bits.toFixed(1)} bits`;
      return stage < thresholds.length ? `${bits} while confidence is at least ${percent(thresholds[stage])}` : bits;
    });
    at("picked").textContent = `Cascade: ${stages.join(", then ")}.`;
    return;
  }
  if (plan === undefined) {
    at("picked").textContent = "No plan is good enough for that.";
    return;
  }
  const { measured } = plan;
  const accuracy = measured
    ? `, ${measured.exact_match.toFixed(1)} % [${measured.low.toFixed(1)}, ${measured.high.toFixed(1)}] exact on `
      + `${measured.n} questions`
    : "";
  at("picked").textContent =
    `Plan ${plan.id}: ${plan.average_bits.toFixed(1)} bits, ${bytesText(plan.bytes)}${accuracy}.`;
  showMap(plan);
}

function showMap(plan) {
  at("map-of").textContent = `Plan ${plan.id}, ${plan.average_bits.toFixed(2)} bits on average`;
  const table = element("table");
  const head = table.createTHead().insertRow();
  head.append(element("th", ""), ...catalogue.modules.map((name) => element("th", name)));
  const body = table.createTBody();
  plan.weights.forEach((row, block) => {
    const line = body.insertRow();
    line.append(element("th", catalogue.blocks[block]), ...row.map((bits) => element("td", bits, kindOf(bits))));
  });
  at("map").replaceChildren(table);
  const there = [...new Set(catalogue.plans.flatMap((each) => each.weights.flat()))].sort((a, b) => a - b);
  at("legend").replaceChildren(...there.map((bits) => element("span", `${bits} bits`, kindOf(bits))));
  const embeddings = Object.entries(plan.embeddings).map(([name, bits]) => `${name} ${bits}`);
  const cache = [...new Set(plan.kv_cache)].join(", ");
  at("beside").textContent = `Embeddings at bits: ${embeddings.join(", ") || "none"}. Keys and values at bits: ${cache}.`;
}

/* The text with the answer marked; offsets are characters, which JavaScript's strings do not count. */
function marked(context, { start, end }) {
  const characters = Array.from(context);
  const piece = (from, to) => characters.slice(from, to).join("");
  if (end <= start) return [context];
  return [piece(0, start), element("mark", piece(start, end)), piece(end)];
}

function showAnswer(said, context) {
  const { plan } = said;
  const isSure = said.confidence !== null;
  at("answer").textContent = said.answer || "(no answer)";
  at("marked").replaceChildren(...marked(context, said));
  at("sure-name").textContent = isSure ? "confidence" : "probability";
  at("sure").textContent = percent(isSure ? said.confidence : said.probability);
  at("bits").textContent = plan.average_bits.toFixed(2);
  at("computed").textContent = milliseconds(said.milliseconds.computed);
  at("waited").textContent = milliseconds(said.milliseconds.waited);
  at("size").textContent = plan.bytes.toLocaleString("en");
  at("plan").textContent = plan.id;
  const steps = said.escalations.map((step) => element("li",
    `${step.plan.average_bits.toFixed(1)} bits (${step.plan.id}): “${step.answer}”, confidence `
    + `${percent(step.confidence)}, below ${percent(step.threshold)}: read again at more bits`));
  if (isSure) {
    steps.push(element("li", `${plan.average_bits.toFixed(1)} bits (${plan.id}): “${said.answer}”, confidence `
      + `${percent(said.confidence)}: answered`));
  }
  at("steps").replaceChildren(...steps);
  at("escalations").hidden = !isSure;
  at("error").hidden = true;
  at("result").hidden = false;
  at("said").hidden = false;
  const run = planOf(plan.id);
  if (run) showMap(run);
}

function showError(error) {
  at("error").textContent = error.message;
  at("error").hidden = false;
  at("result").hidden = true;
  at("said").hidden = false;
}

async function ask(event) {
  event.preventDefault();
  const context = at("context").value;
  at("go").disabled = true;
  try {
    showAnswer(await say("answer", { question: at("question").value, context, choice: choice() }), context);
  } catch (error) {
    showError(error);
  } finally {
    at("go").disabled = false;
  }
}

function allow(value, isThere) {
  const radio = document.querySelector(`input[name=choice][value=${value}]`);
  const label = radio.closest("label");
  label.classList.toggle("off", !isThere);
  label.querySelectorAll("input, select").forEach((control) => { control.disabled = !isThere; });
  if (!isThere) label.title = "The model was packed without it";
}

async function start() {
  at("ask").addEventListener("submit", ask);
  at("ask").addEventListener("input", (event) => {
    /* A slider that is moved, or a name that is chosen, is what is meant. */
    const own = event.target.closest("fieldset label")?.querySelector("input[type=radio]");
    if (own) own.checked = true;
    if (catalogue) showChoice();
  });
  try {
    const [health, plans] = await Promise.all([say("health"), say("plans")]);
    catalogue = plans;
    at("model").textContent = `${health.model} on ${health.device}`;
  } catch (error) {
    at("model").textContent = error.message;
    return;
  }
  const front = catalogue.front.map(planOf);
  at("name").replaceChildren(...catalogue.names.map((name) => new Option(name, name)));
  allow("plan", catalogue.names.length > 0);
  allow("bytes", front.length > 0);
  allow("accuracy", front.length > 0);
  allow("confidence", catalogue.cascade !== null);
  if (front.length > 0) {
    const sizes = front.map((plan) => plan.bytes);
    at("bytes").min = Math.min(...sizes);
    at("bytes").max = Math.max(...sizes);
    at("bytes").value = Math.max(...sizes);
  }
  showChoice();
}

start();
