// The leaderboard: a column per task (or per metric of one task), sorted and filtered.
const PROTOCOLS = {
  personalised: "each client's model on its task's test set, mean over clients",
  worst_client: "per seed the task's worst client, mean over seeds",
  local: "each client's model on a held-out part of its own data, mean over clients",
};
const COSTS = [["megabytes", "MB", "up + down"], ["parameters", "parameters", "trainable"], ["seconds", "seconds", "wall time"]];
const sorting = { column: null, descending: true };

function boardColumns() {
  const protocol = byId("board-protocol").value;
  const chosen = byId("board-task").value;
  const tasks = BOARD.tasks.filter((task) => chosen === "" || task.name === chosen);
  const columns = tasks.flatMap((task) => (chosen === "" ? [task.primary] : task.metrics).map((metric) => ({
    key: `${task.name}|${metric}|${protocol}`, task: task.name, metric,
    title: chosen === "" ? task.name : metric, sub: chosen === "" ? metric : "",
    primary: metric === task.primary && protocol === "personalised", largest: task.largest[metric],
  })));
  return [...columns, ...COSTS.map(([key, title, sub]) => ({ key, title, sub, cost: true }))];
}

function boardValue(row, column) {
  if (column.cost) return row[column.key];
  const cell = row.cells[column.key];
  return cell ? cell[0] : null;
}

function whisker(cell, top) {
  const place = (value) => (100 * value) / top;
  const svg = svgElement("svg", { class: "whisker", viewBox: "0 0 100 9", preserveAspectRatio: "none", "aria-hidden": "true" });
  svg.append(svgElement("line", { x1: 0, x2: 100, y1: 4.5, y2: 4.5, stroke: "currentColor", "stroke-opacity": 0.15, "stroke-width": 1 }));
  if (cell[2] !== null) {
    svg.append(svgElement("line", { x1: place(cell[2]), x2: place(cell[3]), y1: 4.5, y2: 4.5, stroke: "currentColor", "stroke-width": 2, "stroke-opacity": 0.55 }));
  }
  svg.append(svgElement("rect", { x: place(cell[0]) - 1, y: 0.5, width: 2, height: 8, fill: "currentColor" }));
  return svg;
}

function costText(value) {
  if (value === null) return "-";
  if (value === 0) return "0";
  return value >= 1000 ? Math.round(value).toLocaleString("en-US") : value.toFixed(value < 10 ? 2 : 1);
}

function boardCell(row, column, top) {
  if (column.cost) return element("td", {}, costText(row[column.key]));
  const cell = row.cells[column.key];
  if (!cell) return element("td", {}, "-");
  if (cell[0] === null) return element("td", {}, cell[4]);
  const mark = column.primary ? row.marks[column.task] || {} : {};
  const text = cell[0].toFixed(3) + (cell[1] === null ? "" : ` ± ${cell[1].toFixed(3)}`);
  const value = element("span", { class: mark.best ? "value best" : "value" }, text);
  const made = element("td", {}, value);
  if (mark.best) value.append(element("span", { class: "hidden" }, " (best)"));
  if (mark.close) made.append(" ", element("span", { title: "not significantly different from the best" }, "†"));
  if (mark.p !== null && mark.p !== undefined && mark.p < 0.05) {
    const up = mark.difference > 0;
    const said = `significantly ${up ? "above" : "below"} ${BOARD.baseline} (p = ${mark.p.toPrecision(2)}, Holm)`;
    made.append(" ", element("span", { class: up ? "up" : "down", title: said }, up ? "↑" : "↓"));
  }
  made.append(whisker(cell, top));
  if (cell[2] !== null) made.append(element("span", { class: "ends" }, `[${cell[2].toFixed(3)}, ${cell[3].toFixed(3)}]`));
  return made;
}

function boardRows(columns) {
  const wanted = byId("board-filter").value.trim().toLowerCase();
  const rows = BOARD.rows.filter((row) => shown.has(row.method) && row.method.toLowerCase().includes(wanted));
  const column = columns.find((each) => each.key === sorting.column);
  if (!column && sorting.column !== "method") return rows;
  const sign = sorting.descending ? -1 : 1;
  const compare = (a, b) => {
    if (sorting.column === "method") return sign * a.method.localeCompare(b.method);
    const [x, y] = [boardValue(a, column), boardValue(b, column)];
    if (x === null || y === null) return (x === null) - (y === null);
    return sign * (x - y);
  };
  return [...rows].sort((a, b) => a.reference - b.reference || compare(a, b));
}

function titleCell(key, title, sub) {
  const active = sorting.column === key;
  const arrow = element("span", { class: "arrow", "aria-hidden": "true" }, active ? (sorting.descending ? "▼" : "▲") : "");
  const button = element("button", { type: "button", "data-sort": key }, arrow, title, sub ? element("small", {}, sub) : null);
  button.addEventListener("click", () => {
    sorting.descending = active ? !sorting.descending : key !== "method";
    sorting.column = key;
    drawBoard();
    byId("board").querySelector(`[data-sort="${CSS.escape(key)}"]`).focus();
  });
  const order = active ? (sorting.descending ? "descending" : "ascending") : "none";
  return element("th", { scope: "col", "aria-sort": order }, button);
}

function drawBoard() {
  const columns = boardColumns();
  const rows = boardRows(columns);
  const tops = new Map(columns.filter((column) => !column.cost).map((column) => {
    const ends = BOARD.rows.map((row) => row.cells[column.key]).filter(Boolean).flatMap((cell) => [cell[0] || 0, cell[3] || 0]);
    return [column.key, Math.max(...ends, 1e-9)];
  }));
  const head = element("tr", {}, titleCell("method", "method", ""), ...columns.map((column) => titleCell(column.key, column.title, column.sub)));
  byId("board").querySelector("thead").replaceChildren(head);
  byId("board").querySelector("tbody").replaceChildren(...rows.map((row) => element(
    "tr", { class: row.reference ? "reference" : null, "data-method": row.method },
    element("th", { scope: "row" }, methodLabel(row.method)),
    ...columns.map((column) => boardCell(row, column, tops.get(column.key))),
  )));
  byId("board-empty").hidden = rows.length > 0;
  byId("board-hint").textContent = `${byId("board-protocol").value.replace("_", " ")}: ${PROTOCOLS[byId("board-protocol").value]}.`;
}

function setUpBoard() {
  fillSelect(byId("board-task"), [["", "all tasks, main metric"], ...BOARD.tasks.map((task) => [task.name, `${task.name}, all metrics`])], "");
  fillSelect(byId("board-protocol"), Object.keys(PROTOCOLS).map((name) => [name, name.replace("_", " ")]), "personalised");
  byId("board-task").addEventListener("change", drawBoard);
  byId("board-protocol").addEventListener("change", drawBoard);
  byId("board-filter").addEventListener("input", drawBoard);
  listeners.push(drawBoard);
}
