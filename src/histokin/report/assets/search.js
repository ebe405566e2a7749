// A search's page: answers by patient, as they stand in the file, or by rank.
(() => {
  const tabs = [...document.querySelectorAll("[data-arrange]")];
  const list = document.getElementById("answer-groups");
  if (!tabs.length || !list) return;
  const groups = [...list.children];
  const homes = [...list.querySelectorAll(".answer")].map((card) => [card, card.parentElement]);
  const ranked = [...homes].sort(([a], [b]) => a.dataset.rank - b.dataset.rank);
  const flat = document.createElement("ol");
  flat.className = "cards-row";

  for (const tab of tabs) {
    tab.addEventListener("click", () => {
      tabs.forEach((other) => other.setAttribute("aria-pressed", String(other === tab)));
      if (tab.dataset.arrange === "rank") {
        for (const [card] of ranked) flat.append(card);
        list.replaceChildren(flat);
      } else {
        for (const [card, home] of homes) home.append(card);
        list.replaceChildren(...groups);
      }
    });
  }
})();
