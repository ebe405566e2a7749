// The page of slide classifiers: tables that can be sorted, and how strongly maps are painted over tissue.
(() => {
  const sortKey = (row, column) => {
    const cell = row.children[column];
    const text = cell.dataset.value ?? cell.textContent.trim();
    return text === "" || text === "–" ? null : text;
  };
  const compare = (a, b) => {
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, undefined, { numeric: true }) : x - y;
  };

  for (const table of document.querySelectorAll("[data-sortable]")) {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const way = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
        const keyed = [...body.rows].map((row) => [sortKey(row, column), row]);
        // Cells without a value stay last, whichever way is sorted.
        keyed.sort(([a], [b]) => (a === null) - (b === null) || (a === null ? 0 : way * compare(a, b)));
        body.append(...keyed.map(([, row]) => row));
      });
    });
  }

  const strength = document.getElementById("strength");
  if (strength) {
    const gallery = document.getElementById("gallery");
    strength.addEventListener("input", () => gallery.style.setProperty("--strength", strength.value / 100));
  }
})();
