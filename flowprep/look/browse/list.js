// The list of videos: the table and its filters.

import { $, setUpSearch, wordsOf } from "./page.js";
import { Table } from "./table.js";
import { Thumbnails } from "./thumbnails.js";

const NAME_FILTERS = ["class", "split"];

const option = (value, text) => {
  const made = document.createElement("option");
  made.value = value;
  made.textContent = text;
  return made;
};

const fillNames = (select, column) => {
  select.parentElement.hidden = !column || column.names.length < 2;
  if (!column) return;
  const counts = new Uint32Array(column.names.length);
  for (const value of column.values) counts[value]++;
  const options = column.names.map((name, number) => option(name, `${name || "none"} (${counts[number].toLocaleString("en")})`));
  select.replaceChildren(option("", "all"), ...options);
};

export class VideoList {
  // `columns` are the columns of the table by name. `onChoose` gets the chosen key. `onFilter` is
  // called when the filters or the order change. `classOf(key)` marks rows.
  constructor({ kinds, count, columns, onChoose, onFilter, classOf }) {
    Object.assign(this, { kinds, columns, onFilter });
    this.names = Object.keys(columns);
    this.keys = columns.key.values;
    this.rowOfKey = new Map(this.keys.map((key, row) => [key, row]));
    this.nameFilters = NAME_FILTERS.filter((id) => columns[id]);
    for (const id of NAME_FILTERS) fillNames($(id), columns[id]);
    this.fillFindings();
    const thumbnails = new Thumbnails($("scroller"));
    this.table = new Table({
      columns: Object.values(columns),
      count,
      scroller: $("scroller"),
      table: $("table"),
      keepsActive: true,
      filter: () => this.filter(),
      onCount: (words) => { $("count").textContent = words; },
      onMove: (place, row) => onChoose(this.keys[row]),
      classOf: (row) => classOf(this.keys[row]),
      pictureOf: (row) => thumbnails.get(this.keys[row]),
    });
    setUpSearch($("search"), () => this.refilter());
    for (const id of [...NAME_FILTERS, "finding"]) $(id).addEventListener("change", () => this.refilter());
    $("table").tHead.addEventListener("click", () => onFilter());
  }

  has(key) { return this.rowOfKey.has(key); }

  setActive(key) { this.table.setActive(this.rowOfKey.get(key) ?? -1); }

  // Chooses the video that is `by` places further on.
  move(by) {
    const { active } = this.table;
    this.table.choose(active < 0 ? Math.max(0, by - 1) : active + by);
  }

  refilter() {
    this.table.update({ keep: true });
    this.onFilter();
  }

  filter() {
    const { findings } = this.columns;
    const tests = [];
    for (const id of this.nameFilters) {
      const { names, values } = this.columns[id];
      const number = names.indexOf($(id).value);
      if ($(id).selectedIndex > 0) tests.push((row) => values[row] === number);
    }
    const finding = $("finding").value;
    if (finding) {
      const mask = finding === "any" ? -1 : 1 << this.kinds.get(finding).bit;
      tests.push((row) => (findings.values[row] & mask) !== 0);
    }
    return { words: wordsOf($("search")), accepts: tests.length ? (row) => tests.every((test) => test(row)) : null };
  }

  fillFindings() {
    const chosen = $("finding").value;
    const counts = new Uint32Array(this.kinds.size);
    let any = 0;
    for (const bits of this.columns.findings.values) {
      if (!bits) continue;
      any++;
      for (let bit = 0; bit < counts.length; bit++) if (bits & (1 << bit)) counts[bit]++;
    }
    const options = [...this.kinds.values()].filter(({ name, bit }) => counts[bit] || name === chosen)
      .map(({ name, title, bit }) => option(name, `${title} (${counts[bit].toLocaleString("en")})`));
    $("finding").replaceChildren(option("", "all"), option("any", `any (${any.toLocaleString("en")})`), ...options);
    $("finding").value = chosen;
  }

  // Takes the values known so far, as columns by name. Nothing scrolls.
  setValues(values) {
    for (const [index, name] of this.names.entries()) if (values[name]) this.table.setValues(index, values[name]);
    this.fillFindings();
    this.table.update({ keep: true, still: true });
  }

  // The filters and the order of the list, in words for the address, which leaves out empty ones.
  get filters() {
    const { column, down } = this.table.sorted;
    const nameOf = (id) => ($(id).selectedIndex > 0 ? $(id).value || " " : "");
    return {
      q: $("search").value.trim(),
      class: nameOf("class"),
      split: nameOf("split"),
      finding: $("finding").value,
      sort: column >= 0 ? `${down ? "-" : ""}${this.names[column]}` : "",
    };
  }

  // Sets the filters and the order from URLSearchParams. Unknown values count as none.
  setFilters(values) {
    $("search").value = values.get("q") ?? "";
    for (const id of NAME_FILTERS) {
      const wanted = values.get(id) === " " ? "" : values.get(id);
      const place = [...$(id).options].findIndex((one, number) => wanted !== null && number > 0 && one.value === wanted);
      $(id).selectedIndex = Math.max(0, place);
    }
    const finding = values.get("finding") ?? "";
    if (this.kinds.has(finding) && ![...$("finding").options].some((one) => one.value === finding)) {
      $("finding").append(option(finding, this.kinds.get(finding).title));
    }
    $("finding").value = finding === "any" || this.kinds.has(finding) ? finding : "";
    const sort = values.get("sort") ?? "";
    this.table.sortBy(this.names.indexOf(sort.replace(/^-/, "")), sort.startsWith("-"));
    this.table.update({ keep: true });
  }
}
