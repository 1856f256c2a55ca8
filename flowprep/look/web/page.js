// What the report's page and the browser's page have in common: colours, copying, the table.
// The report holds it in its own script; a browser imports it.

export const $ = (id) => document.getElementById(id);

// ---- colours: as the system, light, dark

const THEMES = { auto: "Auto", light: "Light", dark: "Dark" };

export const setUpThemes = (button) => {
  const setTheme = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = THEMES[theme];
    button.setAttribute("aria-label", theme === "auto" ? "Colours: as the system" : `Colours: ${theme}`);
    button.value = theme;
  };
  const store = (theme) => {
    // A file opened from disk may have no storage.
    try {
      if (theme) localStorage.setItem("flowprep-theme", theme);
      return localStorage.getItem("flowprep-theme");
    } catch { return null; }
  };
  setTheme(THEMES[store()] ? store() : "auto");
  button.addEventListener("click", () => {
    const order = Object.keys(THEMES);
    const next = order[(order.indexOf(button.value) + 1) % order.length];
    setTheme(next);
    store(next);
  });
};

// ---- copying

export const copy = async (text) => {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.style.position = "fixed";
    area.style.opacity = "0";
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
};

// ---- the table

// `columns` are [{title, kind, width, values, names?, digits?, help?, also?}]. A column of names
// holds numbers into `names`; one of sets holds bits over `names`; `also` has more text to search
// for, by row. `filter()` returns {words, accepts}: what a row's text must contain, and a function
// of the row or null. `onMove(place, row)` is told of every move; `classOf(row)` marks rows;
// `keepsActive`: a sort leaves the active row the active one, and does not begin at the top.
//
//   row     a video's number in the data set
//   place   where it stands among those that are shown, in their order
export const makeTable = ({ columns, count, scroller, table, filter, onCount, onMove, classOf, keepsActive = false }) => {
  const [headRow] = table.tHead.rows;
  const body = table.tBodies[0];
  const text = (column, row) => {
    const value = column.values[row];
    if (value === null || value === undefined) return "";
    if (column.kind === "name") return column.names[value];
    if (column.kind === "set") return value ? column.names.filter((_, bit) => value & (1 << bit)).join(", ") : "";
    if (column.kind === "number") return column.digits === undefined ? String(value) : value.toFixed(column.digits);
    return value;
  };
  const searched = columns.filter((column) => column.kind !== "number");
  let haystack = null;
  const all = Uint32Array.from({ length: count }, (_, row) => row);
  let shown = all;
  let sorted = { column: -1, down: false };
  const orders = new Map();
  let active = 0;

  // Rank of each row in a column, made once: then every sort is one of numbers.
  const ranks = (index) => {
    if (!orders.has(index)) {
      const column = columns[index];
      const rank = new Float64Array(count);
      if (column.kind === "number") {
        for (let row = 0; row < count; row++) rank[row] = column.values[row] ?? -Infinity;
      } else if (column.kind === "set") {
        for (let row = 0; row < count; row++) rank[row] = -column.values[row] || 0;
      } else if (column.kind === "name") {
        const order = column.names.map((_, n) => n).sort((a, b) => (column.names[a] < column.names[b] ? -1 : 1));
        const place = [];
        order.forEach((n, number) => { place[n] = number; });
        for (let row = 0; row < count; row++) rank[row] = place[column.values[row]];
      } else {
        const order = Array.from(all);
        order.sort((a, b) => (column.values[a] < column.values[b] ? -1 : 1));
        order.forEach((row, number) => { rank[row] = number; });
      }
      orders.set(index, rank);
    }
    return orders.get(index);
  };

  // `keep`: the active row stays the active one, if it is still shown; `still`: nothing scrolls.
  const update = ({ keep = false, still = false } = {}) => {
    const { words, accepts } = filter();
    const row = active >= 0 ? shown[active] : -1;
    if (words.length && !haystack) {
      haystack = new Array(count);
      for (let row = 0; row < count; row++) {
        const parts = searched.map((column) => `${text(column, row)} ${column.also?.[row] ?? ""}`);
        haystack[row] = parts.join(" ").toLowerCase();
      }
    }
    let rows = all;
    if (words.length || accepts) {
      rows = all.filter((row) => (!accepts || accepts(row)) && words.every((word) => haystack[row].includes(word)));
    }
    if (sorted.column >= 0) {
      const rank = ranks(sorted.column);
      const sign = sorted.down ? -1 : 1;
      rows = Uint32Array.from(rows).sort((a, b) => {
        const x = rank[a], y = rank[b];
        return x === y ? a - b : sign * (x < y ? -1 : 1);
      });
    }
    shown = rows;
    active = keep ? (row < 0 ? -1 : shown.indexOf(row)) : 0;
    onCount(shown.length === count ? `${count.toLocaleString("en")} video${count === 1 ? "" : "s"}`
      : `${shown.length.toLocaleString("en")} of ${count.toLocaleString("en")} videos`);
    table.setAttribute("aria-rowcount", shown.length + 1);
    if (!still) {
      scroller.scrollTop = 0;
      if (keep && active >= 0) reveal(active);
    }
    draw(true);
  };

  const sortBy = (index, down) => {
    sorted = { column: index, down };
    for (const cell of headRow.cells) cell.removeAttribute("aria-sort");
    if (index >= 0) headRow.cells[index].setAttribute("aria-sort", down ? "descending" : "ascending");
  };
  columns.forEach((column, index) => {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.style.width = column.width;
    if (column.kind === "number") cell.className = "n";
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = column.title;
    if (column.help) button.title = column.help;
    button.addEventListener("click", () => {
      sortBy(index, sorted.column === index ? !sorted.down : column.kind === "number");
      update({ keep: keepsActive });
    });
    cell.append(button);
    headRow.append(cell);
  });

  // Only the rows in sight are in the page, between two spaces as high as the others. A browser
  // allows no element of more than some 16 million px: beyond a half of it the way is shortened.
  const space = () => {
    const row = document.createElement("tr");
    row.className = "space";
    row.setAttribute("aria-hidden", "true");
    const cell = row.insertCell();
    cell.colSpan = columns.length;
    return row;
  };
  const before = space(), after = space();
  body.append(before, after);
  let rowHeight = 32;
  let drawn = { first: -1, last: -1 };
  const MAX_PX = 8e6;
  const sizes = () => {
    const full = shown.length * rowHeight;
    const high = Math.min(full, MAX_PX);
    const view = scroller.clientHeight - headRow.offsetHeight;
    return { full, high, view, scale: full > high ? (full - view) / (high - view) : 1 };
  };
  const make = (place) => {
    const row = document.createElement("tr");
    row.setAttribute("aria-rowindex", place + 2);
    row.dataset.place = place;
    row.className = [place === active ? "active" : "", classOf?.(shown[place]) ?? ""].join(" ").trim();
    for (const column of columns) {
      const cell = row.insertCell();
      cell.textContent = text(column, shown[place]);
      if (column.kind === "number") cell.className = "n";
      else cell.title = cell.textContent;
      if (column.kind === "key") cell.classList.add("key");
    }
    return row;
  };
  const draw = (force) => {
    const { full, high, view, scale } = sizes();
    const top = scroller.scrollTop * scale;
    const first = Math.max(0, Math.min(Math.floor(top / rowHeight) - 8, shown.length - 1));
    const last = Math.min(shown.length, Math.ceil((top + Math.max(view, 0)) / rowHeight) + 8);
    if (!force && first === drawn.first && last === drawn.last) return;
    drawn = { first, last };
    const rows = [];
    for (let place = first; place < last; place++) rows.push(make(place));
    const begin = scale === 1 ? first * rowHeight : scroller.scrollTop - (top - first * rowHeight);
    before.cells[0].style.height = `${Math.max(0, begin)}px`;
    const rest = scale === 1 ? full - last * rowHeight : high - begin - rows.length * rowHeight;
    after.cells[0].style.height = `${Math.max(0, rest)}px`;
    body.replaceChildren(before, ...rows, after);
    const real = rows.length && rows[0].getBoundingClientRect().height;
    if (real && Math.abs(real - rowHeight) > 0.01) {
      rowHeight = real;
      draw(true);
    }
  };
  let waiting = false;
  scroller.addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(false); });
  }, { passive: true });
  new ResizeObserver(() => draw(true)).observe(scroller);
  addEventListener("resize", () => draw(true));

  const reveal = (place) => {
    const { view, scale } = sizes();
    const top = place * rowHeight, now = scroller.scrollTop * scale;
    if (top < now) scroller.scrollTop = top / scale;
    else if (top + rowHeight > now + view) scroller.scrollTop = (top + rowHeight - view) / scale;
  };
  const choose = (place) => {
    if (!shown.length) return;
    active = Math.max(0, Math.min(place, shown.length - 1));
    reveal(active);
    draw(true);
    onMove(active, shown[active]);
  };
  scroller.addEventListener("keydown", (event) => {
    if (event.target !== scroller || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(sizes().view / rowHeight) - 1);
    const moves = { ArrowDown: active + 1, ArrowUp: active - 1, PageDown: active + page, PageUp: active - page, Home: 0, End: shown.length - 1 };
    if (event.key in moves) {
      event.preventDefault();
      choose(moves[event.key]);
    }
  });
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-place]");
    if (row) choose(Number(row.dataset.place));
  });

  return {
    choose,
    draw: () => draw(true),
    sortBy,
    update,
    get active() { return active; },
    get length() { return shown.length; },
    get sorted() { return sorted; },
    rowAt: (place) => shown[place],
    // Makes a row the active one without telling `onMove`; -1 for none.
    setActive: (row) => {
      active = row < 0 ? -1 : shown.indexOf(row);
      if (active >= 0) reveal(active);
      draw(true);
    },
    setValues: (index, values) => {
      columns[index].values = values;
      orders.delete(index);
      if (columns[index].kind !== "number") haystack = null;
    },
    // Puts the first `most` rows into the page, for a print.
    drawFirst: (most) => {
      const rows = [];
      for (let place = 0; place < Math.min(shown.length, most); place++) rows.push(make(place));
      body.replaceChildren(...rows);
    },
  };
};

// Waits for a pause in a search, and gives its words.
export const setUpSearch = (input, onChange) => {
  let pause = 0;
  input.addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(onChange, 120);
  });
  input.form.addEventListener("submit", (event) => { event.preventDefault(); onChange(); });
};

export const wordsOf = (input) => input.value.toLowerCase().split(/\s+/).filter(Boolean);
