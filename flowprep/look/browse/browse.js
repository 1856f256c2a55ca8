// The page: the list of videos with its filters, the player's controls, keys, and the address, whose
// hash holds all that is shown.

import { $, makeTable, setUpSearch, setUpThemes, wordsOf } from "./page.js";
import { NARROW, PANELS, Player, SPEEDS } from "./player.js";
import { FlowColors, getJson } from "./streams.js";

const SURVEY_EACH_MS = 1000;
const LOST_EACH_MS = 5000;
const movesLittle = matchMedia("(prefers-reduced-motion: reduce)");

setUpThemes($("theme"));

const start = async () => {
  const [dataset, { count, columns: byName }] = await Promise.all([getJson("/api/dataset"), getJson("/api/videos")]);
  const columnNames = Object.keys(byName);
  const columns = Object.values(byName);
  const keys = byName.key.values;
  const rowOfKey = new Map(keys.map((key, row) => [key, row]));
  const kinds = new Map(dataset.kinds.map((kind, bit) => [kind.name, { ...kind, bit }]));

  $("name").textContent = dataset.name;
  document.title = `${dataset.name}: flowprep browse`;
  $("about").textContent = [
    `${count.toLocaleString("en")} video${count === 1 ? "" : "s"}`,
    dataset.num_failed ? `${dataset.num_failed.toLocaleString("en")} failed` : "",
    `${dataset.algorithm} (${dataset.implementation})`,
    `step ${dataset.step}`,
    `bound ${dataset.bound_px} px`,
    dataset.quantizer,
    dataset.has_rgb ? "" : "no RGB frames",
    dataset.directions.length < 2 ? `${dataset.directions[0]} only` : "",
  ].filter(Boolean).join(" · ");

  // ---- state

  const state = { key: null, other: null, isPicking: false, hidesList: false };
  const videos = new Map();
  const getVideo = (key) => {
    if (!videos.has(key)) {
      const made = getJson(`/api/video?${new URLSearchParams({ key })}`);
      made.catch(() => videos.delete(key));
      videos.set(key, made);
      if (videos.size > 32) videos.delete(videos.keys().next().value);
    }
    return videos.get(key);
  };
  const tell = (words) => { $("notice").textContent = words; $("notice").hidden = !words; };

  const colors = new FlowColors(dataset);
  const player = new Player(dataset, colors, $("views"), {
    onChange: () => { showControls(); writeAddress(); },
    onFrame: () => showTime(),
    onPoint: (spots) => {
      $("point").textContent = spots[0] ? `x ${spots[0].x}  y ${spots[0].y}` : "";
    },
  });

  // ---- the list

  const option = (value, text) => {
    const made = document.createElement("option");
    made.value = value;
    made.textContent = text;
    return made;
  };
  const fillNames = (select, column, every) => {
    const counts = new Uint32Array(column.names.length);
    for (const value of column.values) counts[value]++;
    select.replaceChildren(option("", every), ...column.names.map((name, number) => option(name, `${name || "none"} (${counts[number].toLocaleString("en")})`)));
    select.parentElement.hidden = column.names.length < 2;
  };
  const nameFilters = ["class", "split"].filter((id) => byName[id]);
  for (const id of ["class", "split"]) {
    if (byName[id]) fillNames($(id), byName[id], "all");
    else $(id).parentElement.hidden = true;
  }
  const fillFindings = () => {
    const chosen = $("finding").value;
    const counts = new Uint32Array(dataset.kinds.length);
    let any = 0;
    for (const bits of byName.findings.values) {
      if (!bits) continue;
      any++;
      for (let bit = 0; bit < counts.length; bit++) if (bits & (1 << bit)) counts[bit]++;
    }
    const options = dataset.kinds.map((kind, bit) => option(kind.name, `${kind.title} (${counts[bit].toLocaleString("en")})`))
      .filter((_, bit) => counts[bit] || dataset.kinds[bit].name === chosen);
    $("finding").replaceChildren(option("", "all"), option("any", `any (${any.toLocaleString("en")})`), ...options);
    $("finding").value = chosen;
  };
  fillFindings();

  const table = makeTable({
    columns,
    count,
    scroller: $("scroller"),
    table: $("table"),
    keepsActive: true,
    filter: () => {
      const tests = [];
      for (const id of nameFilters) {
        const { names, values } = byName[id];
        const number = names.indexOf($(id).value);
        if ($(id).selectedIndex > 0) tests.push((row) => values[row] === number);
      }
      const finding = $("finding").value;
      if (finding) {
        const mask = finding === "any" ? -1 : 1 << kinds.get(finding).bit;
        tests.push((row) => (byName.findings.values[row] & mask) !== 0);
      }
      return { words: wordsOf($("search")), accepts: tests.length ? (row) => tests.every((test) => test(row)) : null };
    },
    onCount: (words) => { $("count").textContent = words; },
    onMove: (place, row) => choose(keys[row]),
    classOf: (row) => (keys[row] === state.other ? "other" : ""),
  });
  const filtered = () => { table.update({ keep: true }); writeAddress(); };
  setUpSearch($("search"), filtered);
  for (const id of ["class", "split", "finding"]) $(id).addEventListener("change", filtered);
  $("table").tHead.addEventListener("click", () => writeAddress());

  // ---- which videos are shown

  let wish = 0;
  const choose = (key) => {
    if (state.isPicking) {
      endPicking();
      return show(state.key, key, { pushes: true, reveals: true });
    }
    if (key === state.key) return undefined;
    player.t = 0;
    return show(key, state.other, { plays: !movesLittle.matches, pushes: true, reveals: true });
  };
  const show = async (key, other, { plays = false, pushes = false, reveals = false } = {}) => {
    const wanted = ++wish;
    const wasPlaying = player.isPlaying;
    player.pause();
    Object.assign(state, { key, other: key ? other : null });
    const isOpen = Boolean(key);
    $("main").className = isOpen ? (state.hidesList ? "player-only" : "both") : "list-only";
    $("player").hidden = !isOpen;
    table.setActive(isOpen ? rowOfKey.get(key) ?? -1 : -1);
    showControls();
    writeAddress({ pushes });
    if (!isOpen) {
      await player.setVideos([]);
      document.title = `${dataset.name}: flowprep browse`;
      return;
    }
    document.title = `${key}: flowprep browse`;
    $("player").setAttribute("aria-busy", "true");
    const wantedKeys = [key, other].filter(Boolean);
    const results = await Promise.allSettled(wantedKeys.map(getVideo));
    if (wanted !== wish) return;
    const failures = results.map((result, number) => (result.reason ? `${wantedKeys[number]}: ${result.reason.message}` : "")).filter(Boolean);
    tell(failures.join("; "));
    await player.setVideos(results.flatMap((result) => result.value ?? []));
    if (wanted !== wish) return;
    $("player").removeAttribute("aria-busy");
    if (reveals && NARROW.matches) $("player").scrollIntoView();
    showControls();
    showFindings();
    if (plays || wasPlaying) player.play();
  };
  const endPicking = () => {
    state.isPicking = false;
    $("picking").hidden = true;
    showControls();
  };
  const compare = () => {
    if (state.isPicking) return endPicking();
    if (state.other) return show(state.key, null, { pushes: true });
    state.isPicking = true;
    state.hidesList = false;
    $("main").className = "both";
    $("picking").hidden = false;
    showControls();
    $("scroller").focus();
    return undefined;
  };
  const close = () => { endPicking(); show(null, null, { pushes: true }); $("scroller").focus(); };
  const toggleList = () => {
    state.hidesList = !state.hidesList;
    $("main").className = state.hidesList ? "player-only" : "both";
    showControls();
    table.draw();
  };

  // ---- findings

  const showFindings = async () => {
    for (const view of player.views) {
      let found;
      try {
        found = await getJson(`/api/findings?${new URLSearchParams({ key: view.video.key })}`);
      } catch { return; }
      view.findings.replaceChildren(...found.map(({ kind, detail, pair }) => {
        const { title, severity, what, remedy } = kinds.get(kind);
        const item = document.createElement("li");
        const mark = document.createElement("span");
        mark.className = `mark ${severity}`;
        mark.textContent = `${dataset.severities[severity].split(" ")[0]} ${title}`;
        mark.title = `${dataset.severities[severity]}. ${what} ${remedy}`;
        item.append(mark, detail ? ` ${detail}` : ` ${what}`);
        if (pair !== null) {
          const button = document.createElement("button");
          button.type = "button";
          button.className = "go";
          button.textContent = `Go to ${pair}`;
          button.addEventListener("click", () => { player.pause(); player.seek(pair); });
          item.append(" ", button);
        }
        return item;
      }));
    }
    player.layOut();
  };
  let version = -1;
  const survey = async () => {
    let wait = SURVEY_EACH_MS;
    try {
      const progress = await getJson("/api/survey");
      const words = {
        off: "",
        statistics: `Reading statistics: ${progress.done.toLocaleString("en")} of ${progress.total.toLocaleString("en")} videos …`,
        pixels: `Searching for findings in pixels: ${progress.done.toLocaleString("en")} of ${progress.total.toLocaleString("en")} videos …`,
        done: "",
        stopped: "The search for findings stopped; the terminal says why.",
      }[progress.stage];
      $("survey").textContent = words;
      if (progress.version !== version) {
        const values = await getJson("/api/statistics");
        ({ version } = values);
        for (const [index, name] of columnNames.entries()) if (values[name]) table.setValues(index, values[name]);
        fillFindings();
        table.update({ keep: true, still: true });
        showFindings();
      }
      if (["off", "done", "stopped"].includes(progress.stage)) return;
    } catch {
      $("survey").textContent = "The server does not answer.";
      wait = LOST_EACH_MS;
    }
    setTimeout(survey, wait);
  };

  // ---- controls

  const press = (button, isPressed) => button.setAttribute("aria-pressed", String(isPressed));
  const makeButton = (box, text, title, act) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.title = title;
    button.addEventListener("click", act);
    box.append(button);
    return button;
  };
  const panelButtons = player.available.map((name, number) =>
    [name, makeButton($("panels"), PANELS[name].title, `${PANELS[name].words} (${number + 1})`, () => player.toggle(name))]);
  const directionButtons = dataset.directions.map((one) =>
    [one, makeButton($("directions"), one === "forward" ? "Forward" : "Backward", one === "forward"
      ? "Flow that leaves the frame (d)" : "Flow that leads back from the frame (d)", () => player.setDirection(one))]);
  $("directions").hidden = dataset.directions.length < 2;
  for (const speed of SPEEDS) $("speed").append(option(speed, `${speed}×`));
  $("low").textContent = `−${dataset.bound_px} px`;
  $("high").textContent = `+${dataset.bound_px} px`;
  $("error-end").textContent = `${dataset.consistency_px} px`;
  const paint = (canvas, colorOf) => {
    const context = canvas.getContext("2d");
    const image = context.createImageData(canvas.width, canvas.height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let place = 0; place < pixels.length; place++) pixels[place] = colorOf(place % canvas.width, Math.floor(place / canvas.width));
    context.putImageData(image, 0, 0);
  };
  paint($("wheel"), (x, y) => {
    const [r, g, b] = colors.color((x - 47.5) / 48, (y - 47.5) / 48);
    return Math.hypot(x - 47.5, y - 47.5) > 48 ? 0 : (0xff000000 | (b << 16) | (g << 8) | r) >>> 0;
  });
  paint($("gray-ramp"), (x) => colors.gray[x]);
  paint($("error-ramp"), (x) => colors.errors[x]);
  $("outside").style.background = `rgb(${dataset.outside.join(" ")})`;

  const showTime = () => {
    const last = player.lastFrame;
    $("scrub").max = last;
    $("scrub").value = player.t;
    const fps = player.views[0]?.video.fps;
    const seconds = fps ? ` · ${(player.t / fps).toFixed(2)} s` : "";
    $("at").textContent = `${player.t} / ${last}`;
    $("seconds").textContent = seconds;
    $("scrub").setAttribute("aria-valuetext", `frame ${player.t} of ${last}`);
  };
  const showControls = () => {
    for (const [name, button] of panelButtons) press(button, player.panels.includes(name));
    for (const [one, button] of directionButtons) press(button, player.direction === one);
    press($("compare"), state.isPicking || Boolean(state.other));
    press($("toggle-list"), !state.hidesList);
    $("play").classList.toggle("playing", player.isPlaying);
    $("play").setAttribute("aria-label", player.isPlaying ? "Pause" : "Play");
    $("speed").value = player.speed;
    $("loop").checked = player.loops;
    press($("auto-scale"), player.chosenScalePx === null);
    if (document.activeElement !== $("scale")) $("scale").value = player.scalePx;
    for (const item of document.querySelectorAll("#legend .item")) {
      item.hidden = !item.dataset.for.split(" ").some((name) => player.panels.includes(name));
    }
    showTime();
  };
  const step = (by) => { player.pause(); player.seek(player.t + by); };
  const togglePlay = () => (player.isPlaying ? player.pause() : player.play());
  const setSpeed = (speed) => { player.speed = speed; showControls(); writeAddress(); };
  const actions = {
    first: () => step(-Infinity),
    back: () => step(-1),
    play: togglePlay,
    forth: () => step(1),
    last: () => step(Infinity),
    compare,
    close,
    "toggle-list": toggleList,
    "end-picking": endPicking,
    "auto-scale": () => player.setScale(null),
    "open-help": () => $("help").showModal(),
    "close-help": () => $("help").close(),
  };
  for (const [id, act] of Object.entries(actions)) $(id).addEventListener("click", act);
  // A button that was clicked with a mouse must not take the space bar from the player.
  $("player").addEventListener("click", (event) => {
    if (event.detail) event.target.closest("button")?.blur();
  });
  $("scrub").addEventListener("input", () => { player.pause(); player.seek(Number($("scrub").value)); });
  $("speed").addEventListener("change", () => setSpeed(Number($("speed").value)));
  $("loop").addEventListener("change", () => { player.loops = $("loop").checked; writeAddress(); });
  $("scale").addEventListener("input", () => {
    const px = Number($("scale").value);
    if (px > 0 && px <= 10000) player.setScale(px);
  });
  $("scale").addEventListener("change", () => { $("scale").value = player.scalePx; });
  $("help").addEventListener("click", (event) => { if (event.target === $("help")) $("help").close(); });

  // ---- keys

  addEventListener("keydown", (event) => {
    const { target, key } = event;
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
    const isTyping = target.matches("input:not([type=range], [type=checkbox]), select, textarea");
    if (key === "Escape") {
      if (target === $("search")) {
        if (target.value) { target.value = ""; filtered(); } else target.blur();
      } else if (state.isPicking) endPicking();
      else if (state.other) compare();
      return;
    }
    if (target === $("search") && key === "ArrowDown") {
      event.preventDefault();
      $("scroller").focus();
      return;
    }
    // There the picture's own keys move the cross.
    if (isTyping || (event.shiftKey && target.matches(".stage"))) return;
    const isOpen = !$("player").hidden;
    const isPlain = !target.matches("button, input, a, summary");
    const always = {
      "/": () => { if (state.hidesList) toggleList(); $("search").focus(); $("search").select(); },
      "?": () => $("help").showModal(),
      ArrowUp: () => table.choose(table.active < 0 ? 0 : table.active - 1),
      ArrowDown: () => table.choose(table.active + 1),
    };
    const open = {
      ArrowLeft: () => step(event.shiftKey ? -10 : -1),
      ArrowRight: () => step(event.shiftKey ? 10 : 1),
      Home: () => step(-Infinity),
      End: () => step(Infinity),
      " ": isPlain || target.type === "range" ? togglePlay : null,
      c: compare,
      l: toggleList,
      d: () => player.setDirection(dataset.directions.find((one) => one !== player.direction)),
      "[": () => setSpeed(SPEEDS[Math.max(0, SPEEDS.indexOf(player.speed) - 1)]),
      "]": () => setSpeed(SPEEDS[Math.min(SPEEDS.length - 1, SPEEDS.indexOf(player.speed) + 1)]),
    };
    let act = always[key] ?? (isOpen ? open[key] : undefined);
    if (isOpen && /^[1-9]$/.test(key) && player.available[key - 1]) act = () => player.toggle(player.available[key - 1]);
    if (!act) return;
    event.preventDefault();
    // Home and End would move in the list too.
    event.stopPropagation();
    act();
  }, { capture: true });

  // ---- the address

  let lastWritten = null;
  let pause = 0;
  const address = () => {
    const values = new URLSearchParams();
    const put = (name, value, usual) => {
      if (value !== usual && value !== null && value !== "") values.set(name, value);
    };
    put("q", $("search").value.trim());
    put("class", $("class").selectedIndex > 0 ? $("class").value || " " : "");
    put("split", $("split").selectedIndex > 0 ? $("split").value || " " : "");
    put("finding", $("finding").value);
    const { column, down } = table.sorted;
    if (column >= 0) put("sort", `${down ? "-" : ""}${columnNames[column]}`);
    if (state.key) {
      put("key", state.key);
      put("with", state.other);
      put("t", player.t, 0);
      put("panels", player.panels.join("."));
      put("direction", player.direction, dataset.directions[0]);
      put("scale", player.chosenScalePx);
      put("speed", player.speed, 1);
      put("loop", player.loops ? null : "no");
      const point = player.isPinned ? player.views[0]?.placeOf(player.point) : null;
      if (point) put("point", `${point.x}.${point.y}`);
    }
    return values.size ? `#${values}` : "";
  };
  const writeAddress = ({ pushes = false } = {}) => {
    clearTimeout(pause);
    const write = () => {
      // A browser allows few changes of the address a second, and playing makes many.
      const hash = address();
      if (hash === location.hash) return;
      lastWritten = hash;
      history[pushes ? "pushState" : "replaceState"](null, "", hash || location.pathname);
    };
    if (pushes) write(); else pause = setTimeout(() => { if (!player.isPlaying) write(); }, 250);
  };
  const readAddress = async () => {
    const values = new URLSearchParams(location.hash.slice(1));
    const choice = (id, name) => {
      const value = values.get(name) === " " ? "" : values.get(name);
      const place = [...$(id).options].findIndex((one, number) => value !== null && number > 0 && one.value === value);
      $(id).selectedIndex = Math.max(0, place);
    };
    $("search").value = values.get("q") ?? "";
    choice("class", "class");
    choice("split", "split");
    const finding = values.get("finding") ?? "";
    if (kinds.has(finding) && ![...$("finding").options].some((one) => one.value === finding)) {
      $("finding").append(option(finding, kinds.get(finding).title));
    }
    $("finding").value = finding === "any" || kinds.has(finding) ? finding : "";
    const sort = values.get("sort") ?? "";
    table.sortBy(columnNames.indexOf(sort.replace(/^-/, "")), sort.startsWith("-"));
    table.update({ keep: true });
    player.pause();
    const panels = values.get("panels")?.split(".").filter((name) => player.available.includes(name));
    if (panels?.length) player.panels = player.available.filter((name) => panels.includes(name));
    for (const view of player.views) view.setPanels(player.panels);
    const direction = values.get("direction");
    player.direction = dataset.directions.includes(direction) ? direction : dataset.directions[0];
    const scale = Number(values.get("scale"));
    player.chosenScalePx = scale > 0 && scale <= 10000 ? scale : null;
    const speed = Number(values.get("speed") ?? 1);
    player.speed = SPEEDS.includes(speed) ? speed : 1;
    player.loops = values.get("loop") !== "no";
    const known = (key) => (rowOfKey.has(key) ? key : null);
    const key = known(values.get("key"));
    // Set before the video is there, whose end then limits it.
    player.t = Math.max(0, Math.round(Number(values.get("t")) || 0));
    if (values.get("key") && !key) tell(`No video has the key ${values.get("key")}.`);
    await show(key, known(values.get("with")));
    const point = /^(\d{1,6})\.(\d{1,6})$/.exec(values.get("point") ?? "");
    const video = player.views[0]?.video;
    if (point && video && point[1] < video.width && point[2] < video.height) {
      player.setPoint({ x: (Number(point[1]) + 0.5) / video.width, y: (Number(point[2]) + 0.5) / video.height }, true);
    }
    showControls();
  };
  addEventListener("popstate", () => { if (location.hash !== lastWritten) { lastWritten = location.hash; readAddress(); } });

  await readAddress();
  survey();
};

start().catch((error) => {
  $("name").textContent = "The data set could not be opened";
  $("about").textContent = error.message;
});
