"use strict";

// Tables: a button in each column header sorts; three presses cycle: best or first on top, reversed, original.
const words = new Intl.Collator("en", { numeric: true });

/** The sort key of a cell: a number, a text in columns of words, or null if it is empty. */
function sortValue(cell, isWord) {
  const text = cell.textContent.trim();
  if (text === "" || text === "–") return null;
  if (cell.dataset.sort !== undefined) return Number(cell.dataset.sort);
  if (isWord) return text;
  const number = parseFloat(text.replaceAll("−", "-").replace(/^[+±]/, ""));
  return Number.isNaN(number) ? text : number;
}

function compare(one, other) {
  const numbers = typeof one === "number" && typeof other === "number";
  return numbers ? one - other : words.compare(one, other);
}

/** Rows in the order of a column; empty cells come last in either direction. */
function sorted(rows, column, isWord, falling) {
  const keyed = rows.map((row) => [sortValue(row.cells[column], isWord), row]);
  const known = keyed.filter(([key]) => key !== null);
  known.sort(([one], [other]) => (falling ? compare(other, one) : compare(one, other)));
  return [...known, ...keyed.filter(([key]) => key === null)].map(([, row]) => row);
}

function makeSortable(table) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const isWord = head.classList.contains("word");
    const steps = isWord ? ["ascending", "descending", null] : ["descending", "ascending", null];
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const step = steps[(steps.indexOf(head.getAttribute("aria-sort")) + 1) % steps.length];
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      if (step) head.setAttribute("aria-sort", step);
      body.append(...(step ? sorted(original, column, isWord, step === "descending") : original));
    });
  });
}

document.querySelectorAll("table.sortable").forEach(makeSortable);

// Gallery: two lists choose which detectors are shown, side by side if there is room.
function makeChoice(form) {
  const panels = [...document.querySelectorAll(".detectors details")];
  const [first, second] = form.querySelectorAll("select");
  const show = () => {
    panels.forEach((panel) => {
      const place = [first.value, second.value].indexOf(panel.dataset.name);
      panel.hidden = place < 0;
      panel.style.order = place;
    });
  };
  if (matchMedia("(min-width: 60rem)").matches) second.value = panels[0].dataset.partner ?? "";
  form.addEventListener("change", show);
  form.hidden = false;
  document.querySelector(".detectors").classList.add("chosen");
  show();
}

document.querySelectorAll("form.choice").forEach(makeChoice);

// Paper shows everything, including what is collapsed.
window.addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((each) => (each.open = true));
});
