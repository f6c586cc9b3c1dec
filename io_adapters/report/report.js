"use strict";
// The page is complete without this script: it adds the filters and the enlarged picture.

const filters = document.querySelector("#filters");
const studies = [...document.querySelectorAll(".study")];

function matches({ kinds, classes, score, text }, wanted) {
  return wanted.text.toLowerCase().split(/\s+/).every((word) => text.includes(word))
    && (!wanted.kind || kinds.split("|").includes(wanted.kind))
    && (!wanted.class || classes.split("|").includes(wanted.class))
    && (!wanted.score || (score !== "" && Number(score) >= Number(wanted.score)));
}

function applyFilters() {
  const wanted = Object.fromEntries(new FormData(filters));
  for (const study of studies) study.hidden = !matches(study.dataset, wanted);
  const shown = studies.filter((study) => !study.hidden).length;
  filters.elements.shown.value = `${shown} of ${studies.length} shown`;
}

if (filters) {
  filters.hidden = false;
  filters.addEventListener("input", applyFilters);
  filters.addEventListener("submit", (event) => event.preventDefault());
  applyFilters();  // browsers keep what was typed when a page is reloaded
}

const viewer = document.querySelector("#viewer");
document.addEventListener("click", (event) => {
  const link = event.target.closest("a.overlay");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  viewer.firstElementChild.src = link.href;
  viewer.firstElementChild.alt = link.firstElementChild.alt;
  viewer.showModal();
});
viewer.addEventListener("click", () => viewer.close());
