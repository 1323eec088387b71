"use strict";
(() => {
  const tip = document.querySelector(".tip");
  const safe = (name) => name.replace(/[^\w.-]+/g, "_");
  const make = (tag, properties) => Object.assign(document.createElement(tag), properties);

  function download(name, type, text) {
    const url = URL.createObjectURL(new Blob([text], { type }));
    make("a", { href: url, download: safe(`${document.body.dataset.run}-${name}`) }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  function tool(before, label, describes, action) {
    let tools = before.previousElementSibling;
    if (!tools || !tools.classList.contains("tools")) {
      tools = make("div", { className: "tools" });
      before.before(tools);
    }
    const button = make("button", { type: "button", textContent: label, onclick: action });
    button.setAttribute("aria-label", `${label}: ${describes}`);
    tools.append(button);
  }

  // Tables: a spreadsheet must not run a name as a formula, so such text gets an apostrophe.
  const field = (text) => {
    const harmless = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text.split(" ")[0])) ? `'${text}` : text;
    return /[",\n\r]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless;
  };
  const csv = (rows) => rows.map((row) => row.map(field).join(",")).join("\r\n") + "\r\n";
  const headings = (table) => Array.from(table.tHead.rows[table.tHead.rows.length - 1].cells);
  const spoken = (cell) => Array.from(cell.childNodes)
    .filter((node) => !(node.getAttribute && node.getAttribute("aria-hidden")))
    .map((node) => node.textContent).join("").trim().replace(/^\d{1,3}(,\d{3})+$/, (digits) => digits.replaceAll(",", ""));

  function plainRows(table) {
    const heads = headings(table).map((th) => th.dataset.csv || th.dataset.name);
    return [heads, ...Array.from(table.tBodies[0].rows, (row) => Array.from(row.cells, spoken))];
  }

  // One number of a map: what the square shows, the tooltip says, and the file has. Of many Parts, these are the rows.
  function reading(table, rows, part, place) {
    const turned = table.classList.contains("turned");
    const [row, column] = turned ? [rows[part], place] : [rows[place], part];
    const cell = row.cells[column + 1], head = headings(table)[column + 1], small = cell.querySelector("small");
    const [low, high] = small ? small.textContent.split(" to ") : ["", ""];
    const value = cell.firstChild.textContent.trim(), first = row.cells[0].textContent;
    const [name, where, about] = turned
      ? [first, head.dataset.name, head.dataset] : [head.dataset.name, first, row.dataset];
    return {
      part: name, place: where, value: value === "none" ? "" : value, low, high, missing: cell.title, n: about.n,
      kind: about.kind || "", ...table.dataset,
    };
  }

  function tidyRows(table, rows) {
    const heads = ["part", "values", "metric", "split", "value", "unit", "low", "high", "level", "interval", "n", "missing"];
    const line = (r) => [r.part, r.place, r.metric, r.split, r.value, r.unit, r.low, r.high,
      r.low && r.level, r.low && r.kind, r.value && r.n, r.missing];
    const [down, across] = [rows, headings(table).slice(1)].map((all) => Array.from(all.keys()));
    const [parts, places] = table.classList.contains("turned") ? [down, across] : [across, down];
    return [heads, ...places.flatMap((place) => parts.map((part) => line(reading(table, rows, part, place))))];
  }

  function sentence(r) {
    if (!r.value) return `${r.part}, ${r.place}: no number. ${r.missing}`;
    const draws = r.kind === "draws" || (!r.split && ["re-randomised", "permuted"].includes(r.place)), over = draws ? "draws" : r.counted;
    const within = r.low ? `, ${r.level} interval ${r.low} to ${r.high}` : "";
    const amount = over ? `, n = ${Number(r.n).toLocaleString("en")} ${over}` : "";
    return `${r.part}, ${r.place}: ${`${r.value} ${r.unit}`.trim()}${within}${amount}`;
  }

  // Sorting
  const number = (text) => (text === "none" || text === "" ? NaN : Number(text.split(" ")[0]));

  function compare(a, b) {
    const [x, y] = [number(a), number(b)];
    if (a === b) return 0;
    if (!Number.isNaN(x) && !Number.isNaN(y)) return x - y;
    return a.localeCompare(b, "en", { numeric: true });
  }

  function sort(table, th, column) {
    const descending = th.getAttribute("aria-sort") === "ascending";
    headings(table).forEach((other) => other.setAttribute("aria-sort", "none"));
    th.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const rows = Array.from(table.tBodies[0].rows, (row) => [spoken(row.cells[column]), row]);
    const missing = (text) => text === "none" || text === "";
    rows.sort(([a], [b]) => missing(a) - missing(b) || (descending ? -compare(a, b) : compare(a, b)));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }

  function sortable(table) {
    headings(table).forEach((th, column) => {
      th.dataset.name = th.textContent.trim();
      const button = make("button", { type: "button", textContent: th.dataset.name, onclick: () => sort(table, th, column) });
      th.replaceChildren(button);
      th.setAttribute("aria-sort", "none");
    });
  }

  function line(source, y, name) {
    const text = document.createElementNS("http://www.w3.org/2000/svg", "text");
    text.textContent = source.textContent;
    for (const [key, value] of Object.entries({ x: 8, y, class: name })) text.setAttribute(key, value);
    return text;
  }

  // Figures: a file that stands alone has our figure style in it, always the light one.
  function standalone(svg) {
    const copy = svg.cloneNode(true);
    copy.querySelectorAll(".cursor").forEach((cursor) => cursor.remove());
    const style = document.createElementNS(svg.namespaceURI, "style");
    style.textContent = document.getElementById("figure-style").textContent;
    const paper = document.createElementNS(svg.namespaceURI, "rect");
    for (const [name, value] of Object.entries({ width: "100%", height: "100%", fill: "#ffffff" })) paper.setAttribute(name, value);
    const { width, height } = svg.viewBox.baseVal, figure = svg.closest("figure"), above = 46;
    copy.setAttribute("viewBox", `0 ${-above} ${width} ${height + above}`);
    copy.setAttribute("height", height + above);
    paper.setAttribute("y", -above);
    copy.prepend(style, paper, line(figure.querySelector("h3"), -26, "ink"), line(figure.querySelector(".about"), -9, "soft"));
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + new XMLSerializer().serializeToString(copy) + "\n";
  }

  // Maps
  function interactive(figure) {
    const table = document.getElementById(figure.dataset.values), rows = Array.from(table.tBodies[0].rows);
    const box = figure.querySelector(".picture"), svg = box.querySelector("svg"), said = figure.querySelector(".readout");
    const squares = Array.from(svg.querySelectorAll("g.r"), (g) => Array.from(g.children));
    const places = new Map(squares.flatMap((line, r) => line.map((square, c) => [square, [r, c]])));
    const cursor = document.createElementNS(svg.namespaceURI, "rect");
    cursor.setAttribute("class", "cursor");
    let at = [0, 0];

    const text = ([part, place]) => sentence(reading(table, rows, part, place));
    function show(place, x, y) {
      tip.textContent = text(place);
      tip.hidden = false;
      const { width, height } = tip.getBoundingClientRect(), right = document.documentElement.clientWidth;
      tip.style.left = `${Math.max(4, Math.min(x + 14, right - width - 4))}px`;
      tip.style.top = `${y + 18 + height > innerHeight ? y - height - 10 : y + 18}px`;
    }
    function mark(place) {
      const square = squares[place[0]][place[1]], { x, y, width, height } = square.getBBox();
      const top = y + square.parentNode.transform.baseVal[0].matrix.f;
      for (const [name, value] of Object.entries({ x, y: top, width, height })) cursor.setAttribute(name, value);
      svg.append(cursor);
      at = place;
    }
    function read(place) {
      mark(place);
      said.textContent = text(place);
    }
    function go(event) {
      const [r, c] = at, last = squares[0].length - 1;
      const moves = {
        ArrowLeft: [r, c - 1], ArrowRight: [r, c + 1], ArrowUp: [r - 1, c], ArrowDown: [r + 1, c], Home: [r, 0], End: [r, last],
      };
      if (event.key === "Escape") tip.hidden = true;
      const move = moves[event.key];
      if (!move) return;
      event.preventDefault();
      read([Math.max(0, Math.min(squares.length - 1, move[0])), Math.max(0, Math.min(last, move[1]))]);
      cursor.scrollIntoView({ block: "nearest", inline: "nearest" });
      const { left, bottom } = cursor.getBoundingClientRect();
      show(at, left, bottom - 14);
    }

    box.setAttribute("role", "application");
    box.setAttribute("aria-roledescription", "map of numbers");
    box.setAttribute("aria-label", `${box.getAttribute("aria-label")} Use the arrow keys to read the numbers.`);
    box.addEventListener("keydown", go);
    box.addEventListener("focus", () => box.matches(":focus-visible") && read(at));
    box.addEventListener("blur", () => { tip.hidden = true; cursor.remove(); });
    svg.addEventListener("pointermove", (e) => (places.has(e.target) ? show(places.get(e.target), e.clientX, e.clientY) : (tip.hidden = true)));
    svg.addEventListener("pointerleave", () => { tip.hidden = true; });
    svg.addEventListener("click", (e) => places.has(e.target) && read(places.get(e.target)));
  }

  document.body.classList.add("js");
  for (const table of document.querySelectorAll("table")) {
    const rows = Array.from(table.tBodies[0].rows), title = table.caption.textContent.trim();
    sortable(table);
    const content = () => csv(table.classList.contains("values") ? tidyRows(table, rows) : plainRows(table));
    tool(table.closest(".scroll"), "CSV", title, () => download(`${table.id}.csv`, "text/csv", content()));
  }
  for (const figure of document.querySelectorAll("figure")) {
    const svg = figure.querySelector("svg"), title = figure.querySelector("h3").textContent;
    tool(figure.querySelector(".picture"), "SVG", title, () => download(`${figure.id}.svg`, "image/svg+xml", standalone(svg)));
    if (figure.classList.contains("map")) interactive(figure);
  }
  // A mouse tells us itself when a square has moved away under it; a finger does not.
  addEventListener("touchmove", () => { tip.hidden = true; }, { passive: true });
})();
