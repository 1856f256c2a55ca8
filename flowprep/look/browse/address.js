// The address of the page. Its hash describes everything that is shown.

import { $ } from "./page.js";
import { SPEEDS } from "./player.js";

const PAUSE_MS = 250;

export class Address {
  // `browser` shows videos (browse.js).
  constructor(browser) {
    Object.assign(this, { browser, written: null, pause: 0 });
    addEventListener("popstate", () => {
      if (location.hash === this.written) return;
      this.written = location.hash;
      this.read();
    });
  }

  get text() {
    const { key, other, dataset, list, player } = this.browser;
    const values = new URLSearchParams();
    const put = (name, value, usual) => {
      if (value !== usual && value !== null && value !== "") values.set(name, value);
    };
    for (const [name, value] of Object.entries(list.filters)) put(name, value);
    if (key) {
      put("key", key);
      put("with", other);
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
  }

  write({ pushes = false } = {}) {
    clearTimeout(this.pause);
    const write = () => {
      const hash = this.text;
      if (hash === location.hash) return;
      this.written = hash;
      history[pushes ? "pushState" : "replaceState"](null, "", hash || location.pathname);
    };
    // A browser allows few changes of the address per second, and playing makes many.
    if (pushes) write();
    else this.pause = setTimeout(() => { if (!this.browser.player.isPlaying) write(); }, PAUSE_MS);
  }

  async read() {
    const { browser } = this;
    const { list, player } = browser;
    const values = new URLSearchParams(location.hash.slice(1));
    list.setFilters(values);
    player.pause();
    this.readPlayer(values);
    const known = (name) => (list.has(values.get(name)) ? values.get(name) : null);
    const key = known("key");
    if (values.get("key") && !key) browser.tell(`No video has the key ${values.get("key")}.`);
    await browser.show(key, known("with"));
    this.readPoint(values);
    browser.controls.show();
  }

  readPlayer(values) {
    const { dataset, player } = this.browser;
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
    // This is set before the video is there. The end of the video then limits it.
    player.t = Math.max(0, Math.round(Number(values.get("t")) || 0));
  }

  readPoint(values) {
    const { player } = this.browser;
    const point = /^(\d{1,6})\.(\d{1,6})$/.exec(values.get("point") ?? "");
    const video = player.views[0]?.video;
    if (point && video && point[1] < video.width && point[2] < video.height) {
      player.setPoint({ x: (Number(point[1]) + 0.5) / video.width, y: (Number(point[2]) + 0.5) / video.height }, true);
    }
  }
}
