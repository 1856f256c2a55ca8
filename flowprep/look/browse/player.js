// The player: one or two videos, their panels in step.
//
// All panels lie on the grid of frame t. Forward flow leaves it: field t, from frame t to t + step.
// Backward flow arrives from it: field t - step, from frame t to t - step. The other direction of the
// same field lies on the grid of the frame at its other end, and is shown there.

import { VideoStreams } from "./streams.js";

export const PANELS = {
  frame: { title: "Frame", words: "the frame" },
  color: { title: "Colour", words: "hue is the direction, saturation the speed" },
  x: { title: "Flow x", words: "stored levels, right is bright" },
  y: { title: "Flow y", words: "stored levels, down is bright" },
  arrows: { title: "Arrows", words: "where things go, over the frame" },
  reverse: { title: "Reverse", words: "the other direction of the same field" },
  error: { title: "Error", words: "how far forward and backward flow miss one another" },
};
export const SPEEDS = [0.1, 0.25, 0.5, 1, 2, 4];

const ARROW_SPACING_PX = 24;
// As arrow_factor of look/render.py.
const ARROW_FACTORS = [0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 20, 30, 50, 100];
const LOOK_AHEAD = 3;
const LEAST_PANEL_PX = 130;
// Narrower ones need two lines for the values.
const NARROW_PANEL_PX = 210;
const CAPTION_PX = 43, NARROW_CAPTION_PX = 60;
// A phone in the hand: the page scrolls as one, and panels need not fit into its height.
export const NARROW = matchMedia("(max-width: 60rem)");

const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;
const element = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};

// One video and its panels.
class View {
  constructor(player, video) {
    this.player = player;
    this.video = video;
    this.streams = new VideoStreams(video, player.dataset.max_range_bytes);
    this.drawn = null;
    this.root = element("section", "view");
    this.root.setAttribute("aria-label", video.name);
    const head = element("div", "view-head");
    this.title = element("h2", "", video.name);
    this.title.title = video.key;
    this.about = element("p", "quiet", this.describe());
    this.findings = element("ul", "findings");
    head.append(this.title, this.about, this.findings);
    this.box = element("div", "panels");
    this.root.append(head, this.box);
    this.panels = {};
  }

  close() {
    this.isClosed = true;
    this.streams.close();
    this.root.remove();
  }

  describe() {
    const { video } = this;
    const parts = [video.label, video.split, `${video.width}×${video.height}`, `${video.num_frames} frames`];
    if (video.fps) parts.push(`${Number(video.fps.toFixed(2))} fps`);
    parts.push(`mean ${video.mean_px.toFixed(2)} px`, `max ${video.max_px.toFixed(1)} px`);
    if (video.clipped_share > 0) parts.push(`${(100 * video.clipped_share).toPrecision(2)} % clipped`);
    if (video.is_partial) parts.push("cut short by damage");
    return parts.filter(Boolean).join(" · ");
  }

  setPanels(names) {
    for (const name of Object.keys(this.panels)) {
      if (!names.includes(name)) delete this.panels[name];
    }
    for (const name of names) this.panels[name] ??= this.makePanel(name);
    this.box.replaceChildren(...names.map((name) => this.panels[name].root));
  }

  makePanel(name) {
    const { width, height } = this.video;
    const root = element("figure", "panel");
    root.dataset.panel = name;
    const caption = element("figcaption");
    const title = element("span", "title", PANELS[name].title);
    title.title = PANELS[name].words;
    const where = element("span", "where");
    caption.append(title, where);
    const stage = element("div", "stage");
    stage.tabIndex = 0;
    stage.setAttribute("role", "img");
    const canvas = element("canvas");
    Object.assign(canvas, { width, height });
    const cross = element("div", "cross");
    const note = element("p", "note");
    stage.append(canvas, cross, note);
    const value = element("output", "value");
    value.setAttribute("aria-live", "off");
    root.append(caption, stage, value);
    const context = canvas.getContext("2d", { willReadFrequently: name !== "arrows" });
    const panel = { name, root, stage, canvas, context, cross, note, title, where, value };
    this.player.watch(this, panel);
    return panel;
  }

  // Gets what the panels need of frame t; returns what draws it, which never waits.
  async prepare(t, { isAhead = false } = {}) {
    const { player, streams, video } = this;
    const { dataset, direction } = player;
    const names = Object.keys(this.panels);
    const frame = Math.min(t, video.num_frames - 1);
    const field = direction === "forward" ? frame : frame - dataset.step;
    const hasField = field >= 0 && field < video.num_flows;
    const needs = (...wanted) => wanted.some((name) => names.includes(name));
    const letter = (one) => (one === "forward" ? "flow" : "back");
    const reverse = direction === "forward" ? "backward" : "forward";
    const pair = async (one) => {
      const [x, y] = await Promise.all(["x", "y"].map((axis) => streams.plane(`${letter(one)}_${axis}`, field)));
      return { x, y };
    };
    const got = { frame, field: hasField ? field : null };
    const failures = {};
    const get = async (part, wanted, load) => {
      if (!wanted) return;
      try {
        got[part] = await load();
      } catch (error) {
        failures[part] = error.message;
      }
    };
    await Promise.all([
      get("picture", dataset.has_rgb && needs("frame", "arrows"), () => streams.frame(frame)),
      get("flow", hasField && needs("color", "x", "y", "arrows", "error"), () => pair(direction)),
      get("back", hasField && needs("reverse", "error") && dataset.directions.includes(reverse), () => pair(reverse)),
    ]);
    if (got.flow && got.back && names.includes("error") && !isAhead) {
      got.error = player.colors.consistency(got.flow, got.back, video.width, video.height);
    }
    return () => {
      // Its pictures are gone with it.
      if (this.isClosed) return;
      this.drawn = got;
      for (const panel of Object.values(this.panels)) this.drawPanel(panel, got, failures, t);
    };
  }

  // Begins to get what comes after frame t.
  lookAhead(t) {
    for (let ahead = 1; ahead <= LOOK_AHEAD; ahead++) {
      if (t + ahead < this.video.num_frames) this.prepare(t + ahead, { isAhead: true });
    }
  }

  drawPanel(panel, got, failures, t) {
    const { player, video } = this;
    const { dataset, direction } = player;
    const { width, height } = video;
    const sources = { frame: ["picture"], reverse: ["back"], error: ["flow", "back"], arrows: ["flow", "picture"] }[panel.name] ?? ["flow"];
    let note = sources.map((part) => failures[part]).find(Boolean) ?? "";
    const hasAll = got[{ frame: "picture", reverse: "back", error: "error" }[panel.name] ?? "flow"] !== undefined;
    const { frame, field } = got;
    if (!note && panel.name !== "frame" && field === null) {
      note = direction === "forward" ? "No flow leaves the last frame" : "No flow leads back from the first frame";
      if (dataset.step > 1) note = note.replace("frame", `${dataset.step} frames`);
    }
    const other = direction === "forward" ? frame + dataset.step : frame - dataset.step;
    panel.where.textContent = panel.name === "frame" ? `${frame}` : field === null ? ""
      : panel.name === "reverse" ? `${other} → ${frame}` : `${frame} → ${other}`;
    if (t >= video.num_frames) panel.where.textContent += " · ended";
    panel.note.textContent = note;
    panel.root.classList.toggle("empty", !hasAll);
    const scene = `${panel.title.textContent} ${panel.where.textContent}, ${video.name}`;
    panel.stage.setAttribute("aria-label", note ? `${scene}: ${note}` : scene);
    if (!hasAll) {
      panel.context.clearRect(0, 0, panel.canvas.width, panel.canvas.height);
      return;
    }
    if (panel.name === "frame") {
      panel.context.drawImage(got.picture, 0, 0);
      return;
    }
    if (panel.name === "arrows") {
      this.drawArrows(panel, got);
      return;
    }
    panel.image ??= panel.context.createImageData(width, height);
    const pixels = new Uint32Array(panel.image.data.buffer);
    const { colors } = player;
    if (panel.name === "x" || panel.name === "y") {
      const levels = got.flow[panel.name];
      for (let place = 0; place < pixels.length; place++) pixels[place] = colors.gray[levels[place]];
    } else if (panel.name === "error") {
      for (let place = 0; place < pixels.length; place++) pixels[place] = colors.errorColor(got.error[place]);
    } else {
      const { x, y } = panel.name === "color" ? got.flow : got.back;
      const table = colors.table(player.scalePx);
      for (let place = 0; place < pixels.length; place++) pixels[place] = table[256 * y[place] + x[place]];
    }
    panel.context.putImageData(panel.image, 0, 0);
  }

  drawArrows(panel, { picture, flow }) {
    const { width, height } = this.video;
    const { canvas, context } = panel;
    const shownWidth = panel.stage.clientWidth || width;
    const density = Math.min(devicePixelRatio || 1, 2);
    const drawnWidth = Math.max(1, Math.round(shownWidth * density));
    const drawnHeight = Math.max(1, Math.round((drawnWidth * height) / width));
    if (canvas.width !== drawnWidth || canvas.height !== drawnHeight) {
      Object.assign(canvas, { width: drawnWidth, height: drawnHeight });
    }
    // 0.62 of the frame and 82 gray levels, so that arrows stand out.
    context.globalAlpha = 1;
    context.fillStyle = "rgb(216 216 216)";
    context.fillRect(0, 0, drawnWidth, drawnHeight);
    if (picture) {
      context.globalAlpha = 0.62;
      context.drawImage(picture, 0, 0, drawnWidth, drawnHeight);
      context.globalAlpha = 1;
    }
    const { px } = this.player.colors;
    const scale = drawnWidth / width;
    const spacing = (shownWidth < 220 ? 16 : ARROW_SPACING_PX) * density;
    const most = (2 * spacing) / (this.player.scalePx * scale);
    const factor = ARROW_FACTORS.findLast((one) => one <= most) ?? ARROW_FACTORS[0];
    panel.title.title = `${PANELS.arrows.words}; ${factor === 1 ? "as long as the flow" : `${factor} times the flow`}`;
    const reach = Math.max(0, Math.round(1 / scale / 2));
    const lines = new Path2D(), dots = new Path2D();
    for (let top = spacing / 2; top < drawnHeight; top += spacing) {
      for (let left = spacing / 2; left < drawnWidth; left += spacing) {
        const column = Math.min(width - 1, Math.floor(left / scale)), row = Math.min(height - 1, Math.floor(top / scale));
        let u = 0, v = 0, count = 0;
        for (let y = Math.max(0, row - reach); y <= Math.min(height - 1, row + reach); y++) {
          for (let x = Math.max(0, column - reach); x <= Math.min(width - 1, column + reach); x++) {
            u += px[flow.x[y * width + x]];
            v += px[flow.y[y * width + x]];
            count++;
          }
        }
        u *= (scale * factor) / count;
        v *= (scale * factor) / count;
        const length = Math.hypot(u, v);
        if (length < 0.25 * factor * scale || length < 2 * density) {
          dots.moveTo(left + density, top);
          dots.arc(left, top, density, 0, 7);
          continue;
        }
        const endX = left + u, endY = top + v;
        lines.moveTo(left, top);
        lines.lineTo(endX, endY);
        const barb = Math.min(4.5 * density, 0.35 * length), angle = Math.atan2(v, u);
        for (const turn of [Math.PI - 0.5, Math.PI + 0.5]) {
          lines.moveTo(endX, endY);
          lines.lineTo(endX + barb * Math.cos(angle + turn), endY + barb * Math.sin(angle + turn));
        }
      }
    }
    context.lineCap = "round";
    for (const [color, thickness] of [["rgb(60 64 70)", 3], ["rgb(255 221 30)", 1.2]]) {
      context.strokeStyle = context.fillStyle = color;
      context.lineWidth = thickness * density;
      context.stroke(lines);
      context.lineWidth = (thickness - 1) * density;
      if (thickness > 2) context.stroke(dots);
      context.fill(dots);
    }
  }

  // The same point of the picture in this video; null where there is none.
  placeOf(point) {
    if (!point) return null;
    const { width, height } = this.video;
    const x = Math.floor(point.x * width), y = Math.floor(point.y * height);
    return x >= 0 && x < width && y >= 0 && y < height ? { x, y, place: y * width + x } : null;
  }

  showPoint(point) {
    const spot = this.placeOf(point);
    const { width, height } = this.video;
    for (const panel of Object.values(this.panels)) {
      panel.cross.style.display = spot ? "block" : "none";
      panel.value.textContent = spot && this.drawn ? this.valueAt(panel.name, spot, panel) : "";
      if (!spot) continue;
      panel.cross.style.setProperty("--x", `${(100 * (spot.x + 0.5)) / width}%`);
      panel.cross.style.setProperty("--y", `${(100 * (spot.y + 0.5)) / height}%`);
    }
    return spot;
  }

  valueAt(name, { x, y, place }, panel) {
    const { flow, back, error, picture } = this.drawn;
    const { px } = this.player.colors;
    const vector = (one) => {
      const u = px[one.x[place]], v = px[one.y[place]];
      return `u ${signed(u)}  v ${signed(v)}  |f| ${Math.hypot(u, v).toFixed(3)}`;
    };
    if (name === "frame") {
      if (!picture) return "";
      const [r, g, b] = panel.context.getImageData(x, y, 1, 1).data;
      return `rgb ${r} ${g} ${b}`;
    }
    if (name === "reverse") return back ? vector(back) : "";
    if (name === "error") return !error ? "" : Number.isNaN(error[place]) ? "leaves the frame" : `${error[place].toFixed(3)} px`;
    if (!flow) return "";
    if (name === "x") return `u ${signed(px[flow.x[place]])} px  level ${flow.x[place]}`;
    if (name === "y") return `v ${signed(px[flow.y[place]])} px  level ${flow.y[place]}`;
    return vector(flow);
  }
}

export class Player {
  // `onChange` is told when what a link must hold has changed, `onFrame` of every drawn frame.
  constructor(dataset, colors, box, { onChange, onFrame, onPoint }) {
    Object.assign(this, { dataset, colors, box, onChange, onFrame, onPoint });
    this.views = [];
    this.t = 0;
    this.isPlaying = false;
    this.loops = true;
    this.speed = 1;
    this.direction = dataset.directions[0];
    this.chosenScalePx = null;
    this.point = null;
    this.isPinned = false;
    const both = dataset.directions.length === 2;
    this.available = Object.keys(PANELS).filter((name) => (name === "frame" ? dataset.has_rgb : both || (name !== "reverse" && name !== "error")));
    this.panels = this.available.filter((name) => ["frame", "color", "x", "y"].includes(name));
    this.isBusy = this.isStale = false;
    new ResizeObserver(() => this.layOut()).observe(box);
    addEventListener("resize", () => this.layOut());
  }

  get lastFrame() {
    return Math.max(0, ...this.views.map((view) => view.video.num_frames - 1));
  }

  get scalePx() {
    if (this.chosenScalePx) return this.chosenScalePx;
    return Math.max(...this.views.map((view) => view.video.scale_px[this.direction]), 0) || 1;
  }

  // Shows one video or two.
  setVideos(videos) {
    const before = this.views;
    this.views = videos.map((video) => before.find((view) => view.video === video) ?? new View(this, video));
    for (const view of before) if (!this.views.includes(view)) view.close();
    for (const view of this.views) view.setPanels(this.panels);
    this.box.replaceChildren(...this.views.map((view) => view.root));
    this.box.dataset.count = this.views.length;
    this.t = Math.min(this.t, this.lastFrame);
    this.layOut();
    return this.refresh();
  }

  setPanels(names) {
    this.panels = this.available.filter((name) => names.includes(name));
    for (const view of this.views) view.setPanels(this.panels);
    this.layOut();
    this.onChange();
    return this.refresh();
  }

  toggle(name) {
    const names = this.panels.includes(name) ? this.panels.filter((one) => one !== name) : [...this.panels, name];
    if (names.length) return this.setPanels(names);
    return undefined;
  }

  setDirection(direction) {
    if (!this.dataset.directions.includes(direction)) return undefined;
    this.direction = direction;
    this.onChange();
    return this.refresh();
  }

  setScale(px) {
    this.chosenScalePx = px;
    this.onChange();
    return this.refresh();
  }

  seek(t) {
    this.t = Math.max(0, Math.min(Math.round(t), this.lastFrame));
    this.onChange();
    return this.refresh();
  }

  // Draws the present frame; while one is being drawn, only the latest wish is remembered.
  async refresh() {
    if (!this.views.length) return;
    this.isStale = true;
    if (this.isBusy) return;
    this.isBusy = true;
    try {
      while (this.isStale) {
        this.isStale = false;
        const { t, views } = this;
        const draws = await Promise.all(views.map((view) => view.prepare(t)));
        // All in one task, so that the panels change in one picture of the screen.
        draws.forEach((draw) => draw());
        this.onFrame();
        this.showPoint();
        for (const view of this.views) view.lookAhead(t);
      }
    } finally {
      this.isBusy = false;
    }
  }

  async play() {
    if (this.isPlaying || !this.views.length || this.lastFrame === 0) return;
    this.isPlaying = true;
    if (this.t >= this.lastFrame) this.t = 0;
    this.onChange();
    const run = this.run = {};
    let due = performance.now();
    while (this.isPlaying && this.run === run) {
      const interval = 1000 / ((this.views[0]?.video.fps || 25) * this.speed);
      // No frame is left out: where drawing takes longer, playing is slower.
      due = Math.max(due + interval, performance.now());
      await this.refresh();
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, due - performance.now())));
      await new Promise(requestAnimationFrame);
      if (!this.isPlaying || this.run !== run) break;
      if (this.t >= this.lastFrame && !this.loops) {
        this.pause();
        break;
      }
      this.t = this.t >= this.lastFrame ? 0 : this.t + 1;
    }
  }

  pause() {
    if (!this.isPlaying) return;
    this.isPlaying = false;
    this.run = null;
    this.onChange();
  }

  setPoint(point, isPinned = this.isPinned) {
    this.point = point;
    this.isPinned = isPinned && point !== null;
    this.showPoint();
  }

  showPoint() {
    const spots = this.views.map((view) => view.showPoint(this.point));
    this.onPoint(spots);
  }

  watch(view, panel) {
    const { stage } = panel;
    const { width, height } = view.video;
    const pointOf = (event) => {
      const box = panel.canvas.getBoundingClientRect();
      const inside = (value) => Math.max(0, Math.min(value, 1 - 1e-9));
      return { x: inside((event.clientX - box.left) / box.width), y: inside((event.clientY - box.top) / box.height) };
    };
    stage.addEventListener("pointermove", (event) => {
      if (!this.isPinned) this.setPoint(pointOf(event));
    });
    stage.addEventListener("pointerleave", () => {
      if (!this.isPinned) this.setPoint(null);
    });
    stage.addEventListener("click", (event) => {
      // A second click at the pinned place lets go of it.
      const point = pointOf(event);
      const [a, b] = [view.placeOf(point), view.placeOf(this.point)];
      const again = this.isPinned && b && Math.hypot(a.x - b.x, a.y - b.y) * (stage.clientWidth / width) < 8;
      this.setPoint(point, !again);
      this.onChange();
    });
    stage.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      if (!event.shiftKey || !(event.key in moves)) return;
      event.preventDefault();
      const spot = view.placeOf(this.point) ?? { x: width >> 1, y: height >> 1 };
      const [right, down] = moves[event.key];
      const x = Math.max(0, Math.min(width - 1, spot.x + right)), y = Math.max(0, Math.min(height - 1, spot.y + down));
      this.setPoint({ x: (x + 0.5) / width, y: (y + 0.5) / height }, true);
      this.onChange();
    });
  }

  // Chooses the number of columns that makes the panels largest and leaves all of them in sight.
  layOut() {
    if (!this.views.length || !this.box.clientWidth) return;
    const count = this.panels.length;
    const gap = 12;
    const style = getComputedStyle(this.box);
    const whole = this.box.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    const share = (whole - (parseFloat(style.columnGap) || 0) * (this.views.length - 1)) / this.views.length;
    for (const view of this.views) {
      const { width, height } = view.video;
      const head = Math.max(...this.views.map((one) => one.root.firstChild.scrollHeight));
      const room = NARROW.matches ? Infinity : Math.max(220, this.box.clientHeight - head - 4);
      const least = Math.min(share, LEAST_PANEL_PX);
      let best = { size: 0, columns: 1 };
      const most = NARROW.matches ? (share > 320 && count > 2 ? 2 : 1) : count;
      for (let columns = 1; columns <= most; columns++) {
        const rows = Math.ceil(count / columns);
        const wide = (share - gap * (columns - 1)) / columns;
        const highWith = (captionPx) => ((room - gap * (rows - 1)) / rows - captionPx) * (width / height);
        const isNarrow = Math.min(wide, highWith(CAPTION_PX)) < NARROW_PANEL_PX;
        const high = highWith(isNarrow ? NARROW_CAPTION_PX : CAPTION_PX);
        if (wide < least) break;
        const most = NARROW.matches ? (0.75 * innerHeight * width) / height : high;
        const size = Math.min(wide, Math.max(most, least));
        // Where all are as small as may be, the most columns leave the least to scroll.
        if (size >= best.size) best = { size, columns };
      }
      view.box.style.setProperty("--panel", `${Math.floor(best.size)}px`);
      view.box.style.setProperty("--columns", best.columns);
      view.root.classList.toggle("coarse", best.size / width >= 6);
      view.root.classList.toggle("narrow", best.size < NARROW_PANEL_PX);
    }
    if (this.panels.includes("arrows")) this.refresh();
  }
}
