// The charts: Vega draws them as SVG; controls set signals.
const SPECS = read("charts");
const CHOICES = read("choices");
const views = {};

function setSignal(chart, signal, value) {
  const view = views[chart];
  if (!view) return Promise.resolve();
  return view.signal(signal, value).runAsync();
}

function valueOf(control) {
  return control.type === "checkbox" ? control.checked : control.value;
}

function setUpControls() {
  for (const control of document.querySelectorAll("[data-signal]")) {
    if (control.tagName === "SELECT") fillSelect(control, CHOICES[control.dataset.values], null);
    control.addEventListener("change", () => setSignal(control.dataset.for, control.dataset.signal, valueOf(control)));
  }
  listeners.push(() => {
    for (const [name, view] of Object.entries(views)) {
      if (SPECS[name].signals.some((signal) => signal.name === "shown")) setSignal(name, "shown", shownMethods());
    }
  });
}

function setUpRounds() {
  const slider = byId("exchange-round");
  if (!slider) return;
  const method = byId("exchange-method");
  const play = byId("exchange-play");
  const entries = CHOICES.exchange;
  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
    play.setAttribute("aria-pressed", "false");
  };
  const draw = () => {
    const chosen = entries.find((entry) => entry.method === method.value);
    const number = chosen.rounds[Number(slider.value)];
    byId("exchange-number").textContent = number;
    slider.setAttribute("aria-valuetext", `round ${number}`);
    for (const chart of ["router", "neighbours"]) {
      if (!byId(`chart-${chart}`)) continue;
      const known = chosen[chart].includes(number);
      byId(`chart-${chart}`).hidden = !known;
      document.querySelector(`[data-none="${chart}"]`).hidden = known;
      if (views[chart]) views[chart].signal("method", method.value).signal("round", number).runAsync();
    }
  };
  const choose = () => {
    const chosen = entries.find((entry) => entry.method === method.value);
    slider.min = 0;
    slider.max = chosen.rounds.length - 1;
    slider.value = chosen.rounds.length - 1;
    draw();
  };
  fillSelect(method, entries.map((entry) => [entry.method, entry.method]), entries[0].method);
  method.addEventListener("change", () => { stop(); choose(); });
  slider.addEventListener("input", () => { stop(); draw(); });
  play.addEventListener("click", () => {
    if (timer) { stop(); return; }
    if (slider.value === slider.max) slider.value = 0;
    draw();
    play.textContent = "Stop";
    play.setAttribute("aria-pressed", "true");
    timer = setInterval(() => {
      if (slider.value === slider.max) { stop(); return; }
      slider.value = Number(slider.value) + 1;
      draw();
    }, 900);
  });
  choose();
  return draw;
}

async function embed(holder) {
  const name = holder.dataset.chart;
  const result = await vegaEmbed(holder, SPECS[name], {
    mode: "vega", renderer: "svg", logLevel: 1, tooltip: { theme: "custom" },
    actions: { export: true, source: false, compiled: false, editor: false },
    downloadFileName: `${document.title.split(" ")[0]}-${name}`,
  });
  views[name] = result.view;
}

async function drawCharts() {
  for (const holder of document.querySelectorAll("[data-chart]")) await embed(holder);
}
