// The player shows one or two videos, with all panels at the same frame.

import { PANELS, View } from "./view.js";

export const SPEEDS = [0.1, 0.25, 0.5, 1, 2, 4];

const LEAST_PANEL_PX = 130;
// Narrower panels need two lines for the values.
const NARROW_PANEL_PX = 210;
const CAPTION_PX = 43, NARROW_CAPTION_PX = 60;
const GAP_PX = 12;
// On a phone, the whole page scrolls, and panels need not fit into its height.
export const NARROW = matchMedia("(max-width: 60rem)");

export class Player {
  // `onChange` is called when the state that a link must hold has changed. `onFrame` is called for
  // every drawn frame.
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

  setSpeed(speed) {
    this.speed = speed;
    this.onChange();
  }

  setLoops(loops) {
    this.loops = loops;
    this.onChange();
  }

  seek(t) {
    this.t = Math.max(0, Math.min(Math.round(t), this.lastFrame));
    this.onChange();
    return this.refresh();
  }

  // Draws the current frame. While a frame is being drawn, only the latest request is remembered.
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
        // All panels are drawn in one task, so that they change on the screen at the same time.
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
      // No frame is left out. If drawing takes longer, the video plays more slowly.
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
      // A second click at the pinned place removes the pin.
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

  // Chooses the number of columns that makes the panels as large as possible, with all in sight.
  layOut() {
    if (!this.views.length || !this.box.clientWidth) return;
    const count = this.panels.length;
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
        const wide = (share - GAP_PX * (columns - 1)) / columns;
        const highWith = (captionPx) => ((room - GAP_PX * (rows - 1)) / rows - captionPx) * (width / height);
        const isNarrow = Math.min(wide, highWith(CAPTION_PX)) < NARROW_PANEL_PX;
        const high = highWith(isNarrow ? NARROW_CAPTION_PX : CAPTION_PX);
        if (wide < least) break;
        const most = NARROW.matches ? (0.75 * innerHeight * width) / height : high;
        const size = Math.min(wide, Math.max(most, least));
        // If all panels have the smallest size, more columns mean less scrolling.
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
