// The sample browser: one test example at a time, with every method's answer.
const SAMPLES = read("samples");
const browser = { task: null, found: [], place: 0 };
const RULES = [
  ["all", "all samples", false],
  ["disagree", "methods disagree: some right, some wrong", false],
  ["nobody", "every method wrong", false],
  ["everybody", "every method right", false],
  ["fails", "wrong answers", true],
  ["only", "right, all others wrong", true],
  ["alone", "wrong, all others right", true],
  ["unread", "answers without a readable box", true],
];

function answerOf(example, index) {
  const client = Number(byId("sample-client").value);
  const pick = (list) => (list.length === 1 ? list[0] : list[client] ?? null);
  const word = pick(example.answers[index]);
  return word === null ? null : { text: SAMPLES.words[word], box: SAMPLES.boxes[word], score: pick(example.scores[index]) };
}

function isRight(answer) {
  return answer !== null && answer.score !== null && answer.score >= browser.task.rightFrom;
}

function shownIndices() {
  return SAMPLES.methods.map((name, index) => [name, index]).filter(([name]) => shown.has(name));
}

function matches(example) {
  const rule = byId("sample-filter").value;
  const wanted = byId("sample-search").value.trim().toLowerCase();
  const answers = shownIndices().map(([name, index]) => [name, answerOf(example, index)]).filter(([, answer]) => answer !== null);
  if (wanted) {
    const texts = [example.question, ...example.references, ...answers.map(([, answer]) => answer.text)];
    if (!texts.some((text) => text.toLowerCase().includes(wanted))) return false;
  }
  if (rule === "all") return true;
  const right = new Map(answers.map(([name, answer]) => [name, isRight(answer)]));
  const count = [...right.values()].filter(Boolean).length;
  const chosen = byId("sample-method").value;
  if (rule === "disagree") return count > 0 && count < right.size;
  if (rule === "nobody") return right.size > 0 && count === 0;
  if (rule === "everybody") return right.size > 0 && count === right.size;
  if (rule === "unread") return answers.some(([name, answer]) => (chosen === "" || name === chosen) && answer.box === null);
  const names = chosen === "" ? [...right.keys()] : [chosen];
  return names.some((name) => right.has(name) && {
    fails: !right.get(name),
    only: right.get(name) && count === 1 && right.size > 1,
    alone: !right.get(name) && count === right.size - 1 && right.size > 1,
  }[rule]);
}

function boxOf(box, colour, dash) {
  const shape = { x: 100 * box[0], y: 100 * box[1], width: 100 * (box[2] - box[0]), height: 100 * (box[3] - box[1]) };
  return svgElement("rect", { ...shape, fill: "none", stroke: colour, "stroke-width": 2, "stroke-dasharray": dash, "vector-effect": "non-scaling-stroke" });
}

function picture(example) {
  const holder = element("div", { class: "picture" }, element("img", { src: example.image, alt: "The sample's image" }));
  const image = holder.firstChild;
  image.addEventListener("load", () => holder.classList.toggle("small", image.naturalWidth < 200));
  if (!byId("sample-boxes").checked || browser.task.kind !== "ground") return holder;
  const svg = svgElement("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" });
  for (const [name, index] of shownIndices()) {
    const answer = answerOf(example, index);
    const colour = METHODS.find((method) => method.name === name).colour;
    if (answer && answer.box) {
      const rect = boxOf(answer.box, colour === "currentColor" ? "#333333" : colour, "none");
      rect.setAttribute("data-box", name);
      svg.append(rect);
    }
  }
  if (example.box) {
    svg.append(boxOf(example.box, "white", "none"), boxOf(example.box, "black", "5 4"));
    svg.lastChild.setAttribute("data-box", "reference");
  }
  holder.append(svg);
  return holder;
}

function answerRow(example, name, index) {
  const answer = answerOf(example, index);
  const sign = answer === null || answer.score === null ? "" : isRight(answer) ? "✓" : "✗";
  const score = answer === null || answer.score === null ? "-" : answer.score.toFixed(browser.task.kind === "caption" ? 2 : 0);
  const side = sign === "✓" ? "score right" : "score wrong";
  const text = answer === null ? "no answer" : answer.text.trim() === "" ? "(empty)" : answer.text;
  return element("tr", { "data-method": name }, element("th", { scope: "row" }, methodLabel(name)), element("td", {}, text),
    element("td", { class: sign ? side : "score" }, browser.task.kind === "caption" ? `${score} ${sign}` : sign || score));
}

function drawSample() {
  const example = browser.found[browser.place];
  byId("sample-place").textContent = example ? `${browser.place + 1} of ${browser.found.length}` : "no match";
  byId("sample-previous").disabled = browser.place <= 0;
  byId("sample-next").disabled = browser.place >= browser.found.length - 1;
  if (!example) {
    byId("sample").replaceChildren(element("p", { class: "hint" }, "No sample matches these choices."));
    return;
  }
  const facts = element("dl", {}, element("dt", {}, "question"), element("dd", {}, example.question),
    element("dt", {}, example.references.length > 1 ? "references" : "reference"),
    ...example.references.map((reference) => element("dd", {}, reference)), element("dt", {}, "id"), element("dd", {}, example.id));
  const body = element("tbody", {}, ...shownIndices().map(([name, index]) => answerRow(example, name, index)));
  const titles = ["method", "answer", browser.task.kind === "caption" ? browser.task.metric : "right"];
  const head = element("thead", {}, element("tr", {}, ...titles.map((title) => element("th", { scope: "col" }, title))));
  byId("sample").replaceChildren(element("div", {}, picture(example), browser.task.kind === "ground" ? element("p", { class: "hint" }, "Dashed: the reference's box.") : null),
    element("div", {}, facts, element("div", { class: "scroll" }, element("table", {}, head, body))));
}

function findSamples() {
  if (browser.task === null) return;
  byId("sample-method").disabled = !RULES.find(([name]) => name === byId("sample-filter").value)[2];
  browser.found = browser.task.examples.filter(matches);
  browser.place = 0;
  drawSample();
}

function chooseTask() {
  browser.task = SAMPLES.tasks.find((task) => task.name === byId("sample-task").value);
  fillSelect(byId("sample-client"), browser.task.clients.map((client, index) => [String(index), `client ${client}`]), "0");
  const rules = RULES.filter(([name]) => name !== "unread" || browser.task.kind === "ground");
  fillSelect(byId("sample-filter"), rules.map(([name, text]) => [name, text]), "all");
  const seeds = [...new Set(Object.values(SAMPLES.seeds))].join(", ");
  const counted = browser.task.examples.length < browser.task.total ? `${browser.task.examples.length} of ${browser.task.total} test examples, drawn by the digest of their id` : `all ${browser.task.total} test examples`;
  byId("sample-hint").textContent = `${counted}; answers of seed ${seeds}. Right: ${browser.task.metric} of at least ${browser.task.rightFrom} on the example.`;
  findSamples();
}

function step(by) {
  const next = browser.place + by;
  if (next < 0 || next >= browser.found.length) return;
  browser.place = next;
  drawSample();
}

function setUpSamples() {
  byId("browser").hidden = SAMPLES.tasks.length === 0;
  byId("browser-none").hidden = SAMPLES.tasks.length > 0;
  if (SAMPLES.tasks.length === 0) return;
  fillSelect(byId("sample-task"), SAMPLES.tasks.map((task) => [task.name, task.name]), null);
  fillSelect(byId("sample-method"), [["", "any method"], ...SAMPLES.methods.map((name) => [name, name])], "");
  byId("sample-task").addEventListener("change", chooseTask);
  for (const id of ["sample-client", "sample-filter", "sample-method"]) byId(id).addEventListener("change", findSamples);
  byId("sample-search").addEventListener("input", findSamples);
  byId("sample-boxes").addEventListener("change", drawSample);
  byId("sample-previous").addEventListener("click", () => step(-1));
  byId("sample-next").addEventListener("click", () => step(1));
  byId("sample").addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
    else return;
    event.preventDefault();
  });
  listeners.push(findSamples);
  chooseTask();
}
