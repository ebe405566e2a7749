"use strict";
// The page works without this script; it adds the theme switch, filters, the map's colours and read-outs.
// Texts from data are only ever set as textContent.
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const one = (id) => document.getElementById(id);
  root.classList.add("scripted");

  const press = (buttons, chosen) =>
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button === chosen)));

  one("theme").addEventListener("click", () => {
    const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    const now = root.dataset.theme || system;
    root.dataset.theme = now === "dark" ? "light" : "dark";
  });

  // Slides by state
  const filters = all("[data-state].chip");
  for (const button of filters) {
    button.addEventListener("click", () => {
      press(filters, button);
      for (const card of all(".card")) {
        card.hidden = button.dataset.state !== "all" && card.dataset.state !== button.dataset.state;
      }
    });
  }

  // Curves: the value under the pointer
  for (const plot of all("[data-points]")) {
    const points = plot.dataset.points.split(" ").map((pair) => pair.split(",").map(Number));
    const output = plot.parentElement.querySelector("output");
    const [first, last] = [points[0][0], points[points.length - 1][0]];
    plot.addEventListener("pointermove", (event) => {
      const box = plot.getBoundingClientRect();
      const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      const step = first + share * (last - first);
      const near = points.reduce((a, b) => (Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a));
      output.textContent = `step ${Math.round(near[0])}: ${near[1]}`;
      plot.style.setProperty("--at", `${last > first ? ((near[0] - first) / (last - first)) * 100 : 50}%`);
      plot.classList.add("probed");
    });
    plot.addEventListener("pointerleave", () => {
      output.textContent = output.dataset.last;
      plot.classList.remove("probed");
    });
  }

  // Copy the command; `file:` pages may have no clipboard, then the text is selected instead.
  const copy = one("copy");
  if (copy) {
    copy.addEventListener("click", async () => {
      const command = one("command");
      try {
        await navigator.clipboard.writeText(command.textContent);
        copy.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(command);
        copy.textContent = "Selected";
      }
      setTimeout(() => (copy.textContent = "Copy"), 2000);
    });
  }

  const data = one("map-data");
  if (data) drawMap(JSON.parse(data.textContent));

  function drawMap({ colourings, thumbs }) {
    const svg = document.querySelector("svg.map");
    if (!svg) return;
    const points = all("use", svg);
    const places = points.map((point) => [Number(point.getAttribute("x")), Number(point.getAttribute("y"))]);
    const tabs = all("[data-colouring]");
    const showAll = one("show-all");
    const tip = one("tip");
    let current = Object.keys(colourings)[0];
    let isolated = new Set();

    function paint() {
      const { slots, of } = colourings[current];
      points.forEach((point, index) => {
        const [colour, shape] = slots[of[index]];
        const dim = isolated.size && !isolated.has(of[index]) ? " dim" : "";
        point.setAttribute("class", `k${colour}${dim}`);
        point.setAttribute("href", `#m${shape}`);
      });
      showAll.hidden = !isolated.size;
      const legend = document.querySelector(`[data-legend="${current}"]`);
      all("button", legend).forEach((button, index) => {
        button.setAttribute("aria-pressed", String(isolated.has(index)));
        button.classList.toggle("off", isolated.size > 0 && !isolated.has(index));
      });
    }

    function isolate(next) {
      isolated = next;
      paint();
    }

    for (const tab of tabs) {
      tab.addEventListener("click", () => {
        press(tabs, tab);
        current = tab.dataset.colouring;
        for (const legend of all("[data-legend]")) legend.hidden = legend.dataset.legend !== current;
        svg.setAttribute("aria-label", svg.getAttribute("aria-label").replace(/coloured by .*/, `coloured by ${current}`));
        isolate(new Set());
      });
    }
    for (const legend of all("[data-legend]")) {
      all("button", legend).forEach((button, index) => {
        button.addEventListener("click", () => {
          const next = new Set(isolated);
          if (!next.delete(index)) next.add(index);
          isolate(next);
        });
      });
    }
    showAll.addEventListener("click", () => isolate(new Set()));
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && isolated.size) isolate(new Set());
    });

    function nearest(event) {
      const toMap = svg.getScreenCTM().inverse();
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(toMap);
      const reach = 16 * toMap.a; // pixels on the screen
      let best = -1;
      let bestDistance = reach * reach;
      const { of } = colourings[current];
      places.forEach(([x, y], index) => {
        const distance = (x - at.x) ** 2 + (y - at.y) ** 2;
        if (distance < bestDistance && (!isolated.size || isolated.has(of[index]))) {
          best = index;
          bestDistance = distance;
        }
      });
      return best;
    }

    function show(event) {
      const index = nearest(event);
      tip.hidden = index < 0;
      if (index < 0) return;
      tip.replaceChildren();
      if (thumbs.length) {
        const image = document.createElement("img");
        image.src = thumbs[index];
        image.alt = "";
        tip.append(image);
      }
      for (const [name, { names, of }] of Object.entries(colourings)) {
        const line = document.createElement("span");
        const word = document.createElement("small");
        word.textContent = name;
        line.append(word, ` ${names[of[index]]}`);
        tip.append(line);
      }
      const box = svg.parentElement.getBoundingClientRect();
      const [x, y] = [event.clientX - box.left, event.clientY - box.top];
      tip.style.left = `${Math.min(x + 14, Math.max(0, box.width - tip.offsetWidth - 4))}px`;
      tip.style.top = `${y + 14 + tip.offsetHeight > box.height ? Math.max(0, y - 14 - tip.offsetHeight) : y + 14}px`;
    }
    svg.addEventListener("pointermove", show);
    svg.addEventListener("pointerdown", show);
    svg.addEventListener("pointerleave", () => (tip.hidden = true));
  }
})();
