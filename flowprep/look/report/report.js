// This file is part of one script, after page.js and table.js.

const data = JSON.parse($("data").textContent);
const { columns } = data;
const scroller = $("scroller");
const findings = columns.find((column) => column.kind === "set");
const tell = (text) => { $("told").textContent = text; };

setUpThemes($("theme"));

const table = new Table({
  columns,
  count: data.count,
  scroller,
  table: $("table"),
  filter: () => {
    const wanted = $("only").value;
    const bit = 1 << Number(wanted);
    const accepts = wanted === "all" ? null
      : wanted === "any" ? (row) => findings.values[row] !== 0 : (row) => (findings.values[row] & bit) !== 0;
    return { words: wordsOf($("search")), accepts };
  },
  onCount: (words) => { $("count").textContent = words; },
  onMove: (place) => tell(`${place + 1} of ${table.length.toLocaleString("en")}: ${key(place)}`),
});
const key = (place) => columns[0].values[table.rowAt(place)];

// page.py makes the same command for the findings.
const quote = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\"'\"'")}'`);
const command = (name) => {
  const film = name.slice(name.lastIndexOf("/") + 1).replace(/[^\w.-]+/g, "_").replace(/^-+/, "");
  return `${data.view} ${quote(name)} --to ${film}.mp4`;
};
scroller.addEventListener("keydown", async (event) => {
  if (event.target !== scroller || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Enter" && table.length) {
    event.preventDefault();
    const line = command(key(table.active));
    await copy(line);
    scroller.focus({ preventScroll: true });
    tell(`Copied: ${line}`);
  } else if (event.key === "/") {
    event.preventDefault();
    $("search").focus();
  }
});
$("table").tBodies[0].addEventListener("dblclick", async (event) => {
  const row = event.target.closest("tr[data-place]");
  if (!row) return;
  const line = command(key(Number(row.dataset.place)));
  await copy(line);
  tell(`Copied: ${line}`);
});
document.addEventListener("click", async (event) => {
  const button = event.target.closest("button.copy");
  if (button) {
    const before = button.textContent;
    await copy(button.value);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = before; }, 1200);
  }
  const more = event.target.closest("button.more");
  if (more) {
    $("only").value = more.value;
    $("search").value = "";
    table.update();
    $("videos").scrollIntoView();
    scroller.focus({ preventScroll: true });
  }
});
setUpSearch($("search"), () => table.update());
$("search").addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown") { event.preventDefault(); scroller.focus(); }
  if (event.key === "Escape") { $("search").value = ""; table.update(); }
});
$("only").addEventListener("change", () => table.update());
table.update();

// A printed page shows the findings in full and the first rows of the table.
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((item) => { item.open = true; });
  table.drawFirst(200);
});
addEventListener("afterprint", () => table.draw());
