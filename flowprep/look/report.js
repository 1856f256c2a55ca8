"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);

  // ---- colours: as the system, light, dark
  const names = { auto: "Auto", light: "Light", dark: "Dark" };
  const setTheme = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    $("theme").textContent = names[theme];
    $("theme").setAttribute("aria-label", theme === "auto" ? "Colours: as the system" : `Colours: ${theme}`);
    $("theme").value = theme;
  };
  const store = (theme) => {
    // A file opened from disk may have no storage.
    try {
      if (theme) localStorage.setItem("flowprep-theme", theme);
      return localStorage.getItem("flowprep-theme");
    } catch { return null; }
  };
  setTheme(names[store()] ? store() : "auto");
  $("theme").addEventListener("click", () => {
    const order = Object.keys(names);
    const next = order[(order.indexOf($("theme").value) + 1) % order.length];
    setTheme(next);
    store(next);
  });

  // ---- copying a command
  const tell = (text) => { $("told").textContent = text; };
  const copy = async (text) => {
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
      update();
      $("videos").scrollIntoView();
      scroller.focus({ preventScroll: true });
    }
  });

  // ---- the table: data.columns are [{title, kind, width, values, names?, digits?}]
  // A column of names holds numbers into `names`; one of sets holds bits over `names`.
  const { columns, count } = data;
  const scroller = $("scroller");
  const [headRow] = $("table").tHead.rows;
  const body = $("table").tBodies[0];
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

  const update = () => {
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = $("only").value;
    const findings = columns.find((column) => column.kind === "set");
    if (words.length && !haystack) {
      haystack = new Array(count);
      for (let row = 0; row < count; row++) {
        haystack[row] = searched.map((column) => text(column, row)).join(" ").toLowerCase();
      }
    }
    let rows = all;
    if (words.length || wanted !== "all") {
      const bit = Number(wanted);
      rows = all.filter((row) => {
        if (wanted === "any" && !findings.values[row]) return false;
        if (wanted !== "any" && wanted !== "all" && !(findings.values[row] & (1 << bit))) return false;
        return words.every((word) => haystack[row].includes(word));
      });
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
    active = 0;
    $("count").textContent = shown.length === count ? `${count.toLocaleString("en")} videos`
      : `${shown.length.toLocaleString("en")} of ${count.toLocaleString("en")} videos`;
    scroller.scrollTop = 0;
    $("table").setAttribute("aria-rowcount", shown.length + 1);
    draw(true);
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
      const down = sorted.column === index ? !sorted.down : column.kind === "number";
      sorted = { column: index, down };
      for (const other of headRow.cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      update();
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
    if (place === active) row.className = "active";
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
  addEventListener("resize", () => draw(true));

  // As report_page.py makes it for the findings.
  const quote = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\"'\"'")}'`);
  const command = (name) => {
    const film = name.slice(name.lastIndexOf("/") + 1).replace(/[^\w.-]+/g, "_").replace(/^-+/, "");
    return `${data.view} ${quote(name)} --to ${film}.mp4`;
  };
  const key = (place) => columns[0].values[shown[place]];
  const choose = (place) => {
    if (!shown.length) return;
    active = Math.max(0, Math.min(place, shown.length - 1));
    const { view, scale } = sizes();
    const top = active * rowHeight, now = scroller.scrollTop * scale;
    if (top < now) scroller.scrollTop = top / scale;
    else if (top + rowHeight > now + view) scroller.scrollTop = (top + rowHeight - view) / scale;
    draw(true);
    tell(`${active + 1} of ${shown.length.toLocaleString("en")}: ${key(active)}`);
  };
  scroller.addEventListener("keydown", async (event) => {
    if (event.target !== scroller || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(sizes().view / rowHeight) - 1);
    const moves = { ArrowDown: active + 1, ArrowUp: active - 1, PageDown: active + page, PageUp: active - page, Home: 0, End: shown.length - 1 };
    if (event.key in moves) {
      event.preventDefault();
      choose(moves[event.key]);
    } else if (event.key === "Enter" && shown.length) {
      event.preventDefault();
      await copy(command(key(active)));
      scroller.focus({ preventScroll: true });
      tell(`Copied: ${command(key(active))}`);
    } else if (event.key === "/") {
      event.preventDefault();
      $("search").focus();
    }
  });
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-place]");
    if (row) choose(Number(row.dataset.place));
  });
  body.addEventListener("dblclick", async (event) => {
    const row = event.target.closest("tr[data-place]");
    if (!row) return;
    await copy(command(key(Number(row.dataset.place))));
    tell(`Copied: ${command(key(Number(row.dataset.place)))}`);
  });
  let pause = 0;
  $("search").addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(update, 120);
  });
  $("search").addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") { event.preventDefault(); scroller.focus(); }
    if (event.key === "Escape") { $("search").value = ""; update(); }
  });
  $("only").addEventListener("change", update);
  document.querySelector("form.search").addEventListener("submit", (event) => { event.preventDefault(); update(); });
  update();

  // A print shows the findings in full and the first rows of the table.
  addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((item) => { item.open = true; });
    const rows = [];
    for (let place = 0; place < Math.min(shown.length, 200); place++) rows.push(make(place));
    body.replaceChildren(...rows);
  });
  addEventListener("afterprint", () => draw(true));
})();
