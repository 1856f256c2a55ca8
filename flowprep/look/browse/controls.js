// The player's buttons, sliders and legend.

import { pack } from "./colors.js";
import { $ } from "./page.js";
import { SPEEDS } from "./player.js";
import { PANELS } from "./view.js";

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

const paint = (canvas, colorOf) => {
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let place = 0; place < pixels.length; place++) pixels[place] = colorOf(place % canvas.width, Math.floor(place / canvas.width));
  context.putImageData(image, 0, 0);
};

const drawLegend = (dataset, colors) => {
  $("low").textContent = `−${dataset.bound_px} px`;
  $("high").textContent = `+${dataset.bound_px} px`;
  $("error-end").textContent = `${dataset.consistency_px} px`;
  paint($("wheel"), (x, y) => {
    const u = (x - 47.5) / 48, v = (y - 47.5) / 48;
    return Math.hypot(u, v) > 1 ? 0 : pack(...colors.color(u, v));
  });
  paint($("gray-ramp"), (x) => colors.gray[x]);
  paint($("error-ramp"), (x) => colors.errors[x]);
  $("outside").style.background = `rgb(${dataset.outside.join(" ")})`;
};

export class Controls {
  // `browser` shows videos (browse.js). The controls are its buttons and its player's buttons.
  constructor(browser) {
    const { dataset, player } = browser;
    Object.assign(this, { browser, player });
    this.panelButtons = player.available.map((name, number) =>
      [name, makeButton($("panels"), PANELS[name].title, `${PANELS[name].words} (${number + 1})`, () => player.toggle(name))]);
    this.directionButtons = dataset.directions.map((one) =>
      [one, makeButton($("directions"), one === "forward" ? "Forward" : "Backward", one === "forward"
        ? "Flow from this frame to a later frame (d)" : "Flow from this frame to an earlier frame (d)", () => player.setDirection(one))]);
    $("directions").hidden = dataset.directions.length < 2;
    for (const speed of SPEEDS) $("speed").append(new Option(`${speed}×`, speed));
    drawLegend(dataset, player.colors);
    this.listen();
  }

  showTime() {
    const { player } = this;
    const last = player.lastFrame;
    $("scrub").max = last;
    $("scrub").value = player.t;
    const fps = player.views[0]?.video.fps;
    $("at").textContent = `${player.t} / ${last}`;
    $("seconds").textContent = fps ? ` · ${(player.t / fps).toFixed(2)} s` : "";
    $("scrub").setAttribute("aria-valuetext", `frame ${player.t} of ${last}`);
  }

  show() {
    const { browser, player } = this;
    for (const [name, button] of this.panelButtons) press(button, player.panels.includes(name));
    for (const [one, button] of this.directionButtons) press(button, player.direction === one);
    press($("compare"), browser.isPicking || Boolean(browser.other));
    press($("toggle-list"), !browser.hidesList);
    $("play").classList.toggle("playing", player.isPlaying);
    $("play").setAttribute("aria-label", player.isPlaying ? "Pause" : "Play");
    $("speed").value = player.speed;
    $("loop").checked = player.loops;
    press($("auto-scale"), player.chosenScalePx === null);
    if (document.activeElement !== $("scale")) $("scale").value = player.scalePx;
    for (const item of document.querySelectorAll("#legend .item")) {
      item.hidden = !item.dataset.for.split(" ").some((name) => player.panels.includes(name));
    }
    this.showTime();
  }

  step(by) {
    this.player.pause();
    this.player.seek(this.player.t + by);
  }

  togglePlay() {
    if (this.player.isPlaying) this.player.pause();
    else this.player.play();
  }

  // Plays at the next speed, faster or slower.
  changeSpeed(by) {
    const place = SPEEDS.indexOf(this.player.speed) + by;
    this.player.setSpeed(SPEEDS[Math.max(0, Math.min(SPEEDS.length - 1, place))]);
  }

  changeDirection() {
    const { direction, dataset } = this.player;
    this.player.setDirection(dataset.directions.find((one) => one !== direction));
  }

  listen() {
    const { browser, player } = this;
    const actions = {
      first: () => this.step(-Infinity),
      back: () => this.step(-1),
      play: () => this.togglePlay(),
      forth: () => this.step(1),
      last: () => this.step(Infinity),
      compare: () => browser.compare(),
      close: () => browser.close(),
      "toggle-list": () => browser.toggleList(),
      "end-picking": () => browser.endPicking(),
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
    $("speed").addEventListener("change", () => player.setSpeed(Number($("speed").value)));
    $("loop").addEventListener("change", () => player.setLoops($("loop").checked));
    $("scale").addEventListener("input", () => {
      const px = Number($("scale").value);
      if (px > 0 && px <= 10000) player.setScale(px);
    });
    $("scale").addEventListener("change", () => { $("scale").value = player.scalePx; });
    $("help").addEventListener("click", (event) => { if (event.target === $("help")) $("help").close(); });
  }
}
