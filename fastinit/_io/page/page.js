// Without this script a page shows the same, in its own order.
for (const table of document.querySelectorAll("table.data")) {
  const body = table.tBodies[0], all = [...body.rows], number = all.length.toLocaleString("en");
  const field = document.createElement("input"), shown = document.createElement("small");
  field.type = "search"; field.placeholder = "show rows with this text";
  field.setAttribute("aria-label", field.placeholder);
  const texts = all.map(row => row.textContent.toLowerCase());
  const filter = () => {
    const text = field.value.trim().toLowerCase();
    let count = 0;
    all.forEach((row, i) => { row.hidden = !texts[i].includes(text); count += !row.hidden; });
    shown.textContent = text ? `${count.toLocaleString("en")} of ${number}` : "";
  };
  field.addEventListener("input", filter);
  table.parentNode.before(field, shown);
  const value = (row, i) => row.cells[i].dataset.v === undefined ? NaN : Number(row.cells[i].dataset.v);
  [...table.tHead.rows[0].cells].forEach((head, i) => {
    const button = document.createElement("button");
    button.append(...head.childNodes); head.append(button);
    button.addEventListener("click", () => {
      const turn = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", turn > 0 ? "ascending" : "descending");
      const keyed = all.map((row, j) => [value(row, i), row.cells[i].textContent, j, row]);
      keyed.sort((a, b) => {
        const [x, y] = [a[0], b[0]];
        if (isNaN(x) && isNaN(y)) return turn * a[1].localeCompare(b[1], "en", {numeric: true}) || a[2] - b[2];
        return isNaN(x) - isNaN(y) || turn * (x < y ? -1 : x > y) || a[2] - b[2];
      });
      body.append(...keyed.map(one => one[3]));
    });
  });
}
