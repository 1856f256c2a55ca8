// One video of the player, and its panels.
//
// All panels use the grid of frame t. Forward flow is field t, from frame t to frame t + step.
// Backward flow is field t - step, from frame t to frame t - step. The panel "Reverse" shows the
// other direction of the same field, on the grid of the frame at the field's other end.

import { drawArrows } from "./arrows.js";
import { motionsOf } from "./homography.js";
import { VideoStreams } from "./streams.js";

export const PANELS = {
  frame: { title: "Frame", words: "the frame" },
  color: { title: "Color", words: "hue is the direction, saturation the speed" },
  x: { title: "Flow x", words: "stored levels, right is bright" },
  y: { title: "Flow y", words: "stored levels, down is bright" },
  arrows: { title: "Arrows", words: "the motion as arrows over the frame" },
  reverse: { title: "Reverse", words: "the other direction of the same field" },
  error: { title: "Error", words: "distance by which backward flow misses the start of forward flow" },
};

const LOOK_AHEAD = 3;

const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;
const element = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};

export class View {
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
    if (video.camera_words) parts.push(video.camera_words);
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

  // Gets the data that the panels need for frame t. Returns a function that draws without waiting.
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
      const found = video.homographies?.[field];
      got.error = player.colors.consistency(got.flow, got.back, video, motionsOf(found, direction));
    }
    return () => {
      // After the view is closed, its pictures are gone.
      if (this.isClosed) return;
      this.drawn = got;
      for (const panel of Object.values(this.panels)) this.drawPanel(panel, got, failures, t);
    };
  }

  // Starts to get the data of the frames after frame t.
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
    if (field !== null && panel.name === "color" && video.camera_px) {
      const px = video.camera_px[field];
      panel.where.textContent += px === null ? " · camera not found" : ` · camera ${px.toFixed(1)} px`;
    }
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
      panel.title.title = `${PANELS.arrows.words}; ${drawArrows(panel, got, this.video, player)}`;
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

  // The same point of the picture in this video, or null if the point lies outside.
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
