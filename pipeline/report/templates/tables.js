// Sorts a table by a head that is pressed: up, down, as it was. Without it tables stand in their own order.
(() => {
  const UNITS = { ms: 0.001, s: 1, min: 60, h: 3600, MB: 1, GB: 1000, million: 1e6 };
  const NUMBER = /^\[?\+?(-?\d*\.?\d+(?:e[+-]?\d+)?)\s*([a-z]+)?(?:\s+(\d+)\s*(min|s)\b)?/i;

  // "−1.56", "1,234", "62.3 % [55, 69]", "4 min 20 s", "1.2 GB"; null for what doesn't begin with a number.
  const number = (text) => {
    const found = text.replaceAll("−", "-").replaceAll(",", "").match(NUMBER);
    return found && found[1] * (UNITS[found[2]] ?? 1) + (found[3] ?? 0) * (UNITS[found[4]] ?? 1);
  };

  const sorted = (rows, column, direction) => {
    const cells = new Map(rows.map((row) => [row, row.cells[column].textContent.trim()]));
    const empty = (row) => ["", "–"].includes(cells.get(row)); // stays below, whichever way
    const numeric = rows.every((row) => empty(row) || number(cells.get(row)) !== null);
    const order = (a, b) => (numeric ? number(a) - number(b) : a.localeCompare(b, "en", { numeric: true }));
    const rank = (a, b) => empty(a) - empty(b) || direction * order(cells.get(a), cells.get(b)) || 0;
    return [...rows].sort(rank);
  };

  for (const table of document.querySelectorAll("table")) {
    const [body, rows] = [table.tBodies[0], [...table.tBodies[0].rows]];
    for (const head of rows.length > 1 ? table.querySelectorAll("thead th") : []) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const way = { null: "ascending", ascending: "descending" }[head.getAttribute("aria-sort")];
        table.querySelector("[aria-sort]")?.removeAttribute("aria-sort");
        if (way) head.setAttribute("aria-sort", way);
        body.append(...(way ? sorted(rows, head.cellIndex, way === "ascending" ? 1 : -1) : rows));
      });
    }
  }
})();
