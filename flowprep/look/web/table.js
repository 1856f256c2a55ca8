// The table of videos on the pages of `report` and `browse`. Only the visible rows are in the page.
// The page of `report` includes this file in its own script, so it imports nothing.
//
//   row     a video's number in the data set
//   place   the position of a video among the shown videos, in their order

const cellText = (column, row) => {
  const value = column.values[row];
  if (value === null || value === undefined) return "";
  if (column.kind === "name") return column.names[value];
  if (column.kind === "set") return value ? column.names.filter((_, bit) => value & (1 << bit)).join(", ") : "";
  if (column.kind === "number") return column.digits === undefined ? String(value) : value.toFixed(column.digits);
  return value;
};

// A text that is cut where it is too long, but never at its end: that tells long keys apart.
const END_LENGTH = 14;

const fillCell = (cell, text) => {
  if (text.length <= END_LENGTH) {
    cell.append(text);
    return;
  }
  const box = document.createElement("span");
  box.className = "cut";
  for (const part of [text.slice(0, -END_LENGTH), text.slice(-END_LENGTH)]) {
    box.append(Object.assign(document.createElement("span"), { textContent: part }));
  }
  cell.append(box);
};

// Which rows are shown, and in which order.
class Rows {
  constructor(columns, count) {
    Object.assign(this, { columns, count });
    this.all = Uint32Array.from({ length: count }, (_, row) => row);
    this.shown = this.all;
    this.sorted = { column: -1, down: false };
    this.orders = new Map();
    this.haystack = null;
  }

  // Rank of each row in a column. It is made once, so that every sort compares only numbers.
  ranks(index) {
    if (!this.orders.has(index)) this.orders.set(index, this.makeRanks(this.columns[index]));
    return this.orders.get(index);
  }

  makeRanks({ kind, names, values }) {
    const rank = new Float64Array(this.count);
    const fill = (rankOf) => {
      for (let row = 0; row < rank.length; row++) rank[row] = rankOf(values[row]);
    };
    if (kind === "number") fill((value) => value ?? -Infinity);
    else if (kind === "set") fill((value) => -value || 0);
    else if (kind === "name") {
      const order = names.map((_, n) => n).sort((a, b) => (names[a] < names[b] ? -1 : 1));
      const place = [];
      order.forEach((n, number) => { place[n] = number; });
      fill((value) => place[value]);
    } else {
      const order = Array.from(this.all);
      order.sort((a, b) => (values[a] < values[b] ? -1 : 1));
      order.forEach((row, number) => { rank[row] = number; });
    }
    return rank;
  }

  makeHaystack() {
    const searched = this.columns.filter((column) => column.kind !== "number");
    const textOf = (row) => searched.map((column) => `${cellText(column, row)} ${column.also?.[row] ?? ""}`);
    return Array.from(this.all, (row) => textOf(row).join(" ").toLowerCase());
  }

  select({ words, accepts }) {
    let rows = this.all;
    if (words.length || accepts) {
      if (words.length) this.haystack ??= this.makeHaystack();
      rows = rows.filter((row) => (!accepts || accepts(row)) && words.every((word) => this.haystack[row].includes(word)));
    }
    if (this.sorted.column >= 0) {
      const rank = this.ranks(this.sorted.column);
      const sign = this.sorted.down ? -1 : 1;
      rows = Uint32Array.from(rows).sort((a, b) => {
        const x = rank[a], y = rank[b];
        return x === y ? a - b : sign * (x < y ? -1 : 1);
      });
    }
    this.shown = rows;
  }

  setValues(index, values) {
    this.columns[index].values = values;
    this.orders.delete(index);
    if (this.columns[index].kind !== "number") this.haystack = null;
  }

  get words() {
    const { shown: { length }, count } = this;
    const [few, all] = [length, count].map((number) => number.toLocaleString("en"));
    return length === count ? `${all} video${count === 1 ? "" : "s"}` : `${few} of ${all} videos`;
  }
}

// Browsers limit the height of an element to about 16 million px. If the rows need more than half
// of that, scrolling moves through them faster.
const MAX_PX = 8e6;

export class Table {
  // `columns` are [{title, kind, width, values, names?, digits?, help?, also?}]. In a column of
  // names, values are indices of `names`. In a column of sets, values are bits over `names`. `also`
  // has more text to search, by row. `filter()` returns {words, accepts}: the words that a row's
  // text must contain, and a function of the row or null. `onMove(place, row)` is called for every
  // move. `classOf(row)` marks rows, `pictureOf(row)` makes the picture before a key. If `keepsActive` is true, a sort keeps the active row and does
  // not begin at the top.
  constructor({ columns, count, scroller, table, filter, onCount, onMove, classOf, pictureOf, keepsActive = false }) {
    Object.assign(this, { columns, scroller, table, filter, onCount, onMove, classOf, pictureOf, keepsActive });
    this.rows = new Rows(columns, count);
    this.active = 0;
    [this.headRow] = table.tHead.rows;
    this.body = table.tBodies[0];
    columns.forEach((column, index) => this.headRow.append(this.makeHead(column, index)));
    // The drawn rows stand between two spaces that are as high as the rows not drawn.
    [this.before, this.after] = [this.makeSpace(), this.makeSpace()];
    this.body.append(this.before, this.after);
    this.rowHeight = 32;
    this.drawn = { first: -1, last: -1 };
    this.listen();
  }

  get length() { return this.rows.shown.length; }

  get sorted() { return this.rows.sorted; }

  rowAt(place) { return this.rows.shown[place]; }

  // `keep`: the active row stays active if it is still shown. `still`: nothing scrolls.
  update({ keep = false, still = false } = {}) {
    const row = this.active >= 0 ? this.rowAt(this.active) : -1;
    this.rows.select(this.filter());
    this.active = keep ? this.placeOf(row) : 0;
    this.onCount(this.rows.words);
    this.table.setAttribute("aria-rowcount", this.length + 1);
    if (!still) {
      this.scroller.scrollTop = 0;
      if (keep && this.active >= 0) this.reveal(this.active);
    }
    this.draw();
  }

  sortBy(index, down) {
    this.rows.sorted = { column: index, down };
    const { cells } = this.headRow;
    for (const cell of cells) cell.removeAttribute("aria-sort");
    if (index >= 0) cells[index].setAttribute("aria-sort", down ? "descending" : "ascending");
  }

  choose(place) {
    if (!this.length) return;
    this.active = Math.max(0, Math.min(place, this.length - 1));
    this.reveal(this.active);
    this.draw();
    this.onMove(this.active, this.rowAt(this.active));
  }

  // Makes a row active without calling `onMove`. -1 means no row.
  setActive(row) {
    this.active = this.placeOf(row);
    if (this.active >= 0) this.reveal(this.active);
    this.draw();
  }

  setValues(index, values) { this.rows.setValues(index, values); }

  // Puts the first `most` rows into the page for printing.
  drawFirst(most) {
    this.body.replaceChildren(...this.makeRows(0, Math.min(this.length, most)));
  }

  // Draws the visible rows. If these are the same as before, `force` must be true.
  draw(force = true) {
    const { full, high, view, scale } = this.sizes();
    const { scrollTop } = this.scroller;
    const top = scrollTop * scale;
    const first = Math.max(0, Math.min(Math.floor(top / this.rowHeight) - 8, this.length - 1));
    const last = Math.min(this.length, Math.ceil((top + Math.max(view, 0)) / this.rowHeight) + 8);
    if (!force && first === this.drawn.first && last === this.drawn.last) return;
    this.drawn = { first, last };
    const rows = this.makeRows(first, last);
    const begin = scale === 1 ? first * this.rowHeight : scrollTop - (top - first * this.rowHeight);
    this.before.cells[0].style.height = `${Math.max(0, begin)}px`;
    const rest = scale === 1 ? full - last * this.rowHeight : high - begin - rows.length * this.rowHeight;
    this.after.cells[0].style.height = `${Math.max(0, rest)}px`;
    this.body.replaceChildren(this.before, ...rows, this.after);
    const real = rows.length && rows[0].getBoundingClientRect().height;
    if (real && Math.abs(real - this.rowHeight) > 0.01) {
      this.rowHeight = real;
      this.draw();
    }
  }

  placeOf(row) { return row < 0 ? -1 : this.rows.shown.indexOf(row); }

  sizes() {
    const full = this.length * this.rowHeight;
    const high = Math.min(full, MAX_PX);
    const view = this.scroller.clientHeight - this.headRow.offsetHeight;
    return { full, high, view, scale: full > high ? (full - view) / (high - view) : 1 };
  }

  reveal(place) {
    const { scroller, rowHeight } = this;
    const { view, scale } = this.sizes();
    const top = place * rowHeight, now = scroller.scrollTop * scale;
    if (top < now) scroller.scrollTop = top / scale;
    else if (top + rowHeight > now + view) scroller.scrollTop = (top + rowHeight - view) / scale;
  }

  makeHead(column, index) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.style.width = column.width;
    if (column.kind === "number") cell.className = "n";
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = column.title;
    if (column.help) button.title = column.help;
    button.addEventListener("click", () => {
      this.sortBy(index, this.sorted.column === index ? !this.sorted.down : column.kind === "number");
      this.update({ keep: this.keepsActive });
    });
    cell.append(button);
    return cell;
  }

  makeSpace() {
    const row = document.createElement("tr");
    row.className = "space";
    row.setAttribute("aria-hidden", "true");
    const cell = row.insertCell();
    cell.colSpan = this.columns.length;
    return row;
  }

  makeRows(first, last) {
    const rows = [];
    for (let place = first; place < last; place++) rows.push(this.makeRow(place));
    return rows;
  }

  makeRow(place) {
    const row = document.createElement("tr");
    row.setAttribute("aria-rowindex", place + 2);
    row.dataset.place = place;
    row.className = [place === this.active ? "active" : "", this.classOf?.(this.rowAt(place)) ?? ""].join(" ").trim();
    for (const column of this.columns) {
      const cell = row.insertCell();
      const text = cellText(column, this.rowAt(place));
      if (column.kind === "number") cell.className = "n";
      else cell.title = text;
      if (column.kind === "key") {
        cell.classList.add("key");
        if (this.pictureOf) cell.append(this.pictureOf(this.rowAt(place)));
      }
      if (["key", "name"].includes(column.kind)) fillCell(cell, text);
      else cell.textContent = text;
    }
    return row;
  }

  listen() {
    const { scroller } = this;
    let isWaiting = false;
    scroller.addEventListener("scroll", () => {
      if (isWaiting) return;
      isWaiting = true;
      requestAnimationFrame(() => { isWaiting = false; this.draw(false); });
    }, { passive: true });
    new ResizeObserver(() => this.draw()).observe(scroller);
    addEventListener("resize", () => this.draw());
    scroller.addEventListener("keydown", (event) => {
      if (event.target !== scroller || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
      const page = Math.max(1, Math.floor(this.sizes().view / this.rowHeight) - 1);
      const moves = {
        ArrowDown: this.active + 1,
        ArrowUp: this.active - 1,
        PageDown: this.active + page,
        PageUp: this.active - page,
        Home: 0,
        End: this.length - 1,
      };
      if (event.key in moves) {
        event.preventDefault();
        this.choose(moves[event.key]);
      }
    });
    this.body.addEventListener("click", (event) => {
      const row = event.target.closest("tr[data-place]");
      if (row) this.choose(Number(row.dataset.place));
    });
  }
}
