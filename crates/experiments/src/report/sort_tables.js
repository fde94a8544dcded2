"use strict";
// Numbers by their value, with the minus sign of the text, and what is none behind them; a column without numbers by the
// alphabet.
const number = (text) => parseFloat(text.trim().replace(/^[\u2212+]/, (sign) => (sign === "+" ? "" : "-")));
const order = (texts) => {
  if (texts.every((text) => Number.isNaN(number(text)))) return (a, b) => a.localeCompare(b);
  const value = (text) => (Number.isNaN(number(text)) ? Infinity : number(text));
  return (a, b) => (value(a) === value(b) ? 0 : value(a) - value(b));
};
for (const table of document.querySelectorAll("table")) {
  const headings = [...table.querySelectorAll("thead th")];
  headings.forEach((heading, column) => {
    if (!heading.textContent.trim()) return;
    const button = document.createElement("button");
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const descending = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows];
      const text = (row) => row.cells[column].textContent;
      const compare = order(rows.map(text));
      rows.sort((a, b) => compare(text(a), text(b)) * (descending ? -1 : 1));
      table.tBodies[0].append(...rows);
    });
  });
}
