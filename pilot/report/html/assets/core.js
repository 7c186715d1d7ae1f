"use strict";
// Shared by all parts of the page: data, the methods shown, marks, small helpers.
const read = (name) => JSON.parse(document.getElementById(`data-${name}`).textContent);
const byId = (id) => document.getElementById(id);
const METHODS = read("methods");
const BOARD = read("board");
const SVG = "http://www.w3.org/2000/svg";
const NAMED = {
  "circle": "M1,0A1,1,0,1,1,-1,0A1,1,0,1,1,1,0Z",
  "square": "M-.85,-.85H.85V.85H-.85Z",
  "triangle-up": "M0,-1L.95,.8H-.95Z",
  "triangle-down": "M0,1L.95,-.8H-.95Z",
  "triangle-left": "M-1,0L.8,-.95V.95Z",
  "triangle-right": "M1,0L-.8,-.95V.95Z",
  "diamond": "M0,-1.1L.9,0L0,1.1L-.9,0Z",
  "cross": "M-.35,-1H.35V-.35H1V.35H.35V1H-.35V.35H-1V-.35H-.35Z",
};
const shown = new Set(METHODS.map((method) => method.name));
const listeners = [];

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") made.className = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function svgElement(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function markOf(name) {
  const method = METHODS.find((each) => each.name === name);
  const svg = svgElement("svg", { viewBox: "-1.3 -1.3 2.6 2.6", class: "mark", "aria-hidden": "true" });
  svg.append(svgElement("path", { d: NAMED[method.shape] || method.shape, fill: method.colour }));
  return svg;
}

function methodLabel(name) {
  return element("span", {}, markOf(name), name);
}

function fillSelect(select, values, chosen) {
  select.replaceChildren(...values.map(([value, text]) => element("option", { value, selected: value === chosen }, text)));
}

function shownMethods() {
  return METHODS.map((method) => method.name).filter((name) => shown.has(name));
}

function showMethods(names) {
  shown.clear();
  names.forEach((name) => shown.add(name));
  for (const box of byId("methods").querySelectorAll("input")) box.checked = shown.has(box.value);
  for (const key of document.querySelectorAll(".key")) key.replaceChildren(...shownMethods().map(methodLabel));
  byId("shown-count").textContent = `${shown.size} of ${METHODS.length}`;
  listeners.forEach((listener) => listener());
}

function setUpMethods() {
  byId("methods").append(...METHODS.map((method) => {
    const box = element("input", { type: "checkbox", value: method.name, checked: true });
    box.addEventListener("change", () => {
      const names = new Set(shown);
      if (box.checked) names.add(method.name); else names.delete(method.name);
      showMethods(names);
    });
    return element("label", {}, box, methodLabel(method.name));
  }));
  const all = METHODS.map((method) => method.name);
  const core = ["pilot", "fedavg", "local", "central"];
  const choices = {
    all: () => all,
    federated: () => METHODS.filter((method) => !method.reference).map((method) => method.name),
    core: () => all.filter((name) => core.includes(name)),
    none: () => [],
  };
  for (const button of document.querySelectorAll("[data-choose]")) {
    button.addEventListener("click", () => showMethods(choices[button.dataset.choose]()));
  }
}

function setUpTheme() {
  const order = ["auto", "light", "dark"];
  const words = { auto: "automatic", light: "light", dark: "dark" };
  const button = byId("theme");
  button.addEventListener("click", () => {
    const now = document.documentElement.dataset.theme;
    const next = order[(order.indexOf(now) + 1) % order.length];
    document.documentElement.dataset.theme = next;
    button.textContent = `Theme: ${next}`;
    button.setAttribute("aria-label", `Theme: ${words[next]}. Press to change.`);
  });
}
