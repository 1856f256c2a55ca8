// The page decides which videos are shown. Its parts are list.js, controls.js, keys.js, address.js
// and findings.js. player.js draws the videos.

import { Address } from "./address.js";
import { FlowColors } from "./colors.js";
import { Controls } from "./controls.js";
import { Findings } from "./findings.js";
import { setUpKeys } from "./keys.js";
import { VideoList } from "./list.js";
import { $, setUpThemes } from "./page.js";
import { NARROW, Player } from "./player.js";
import { getJson } from "./streams.js";

const MOST_KEPT_VIDEOS = 32;
const movesLittle = matchMedia("(prefers-reduced-motion: reduce)");

const describe = (dataset, count) => [
  `${count.toLocaleString("en")} video${count === 1 ? "" : "s"}`,
  dataset.num_failed ? `${dataset.num_failed.toLocaleString("en")} failed` : "",
  `${dataset.algorithm} (${dataset.implementation})`,
  `step ${dataset.step}`,
  `bound ${dataset.bound_px} px`,
  dataset.quantizer,
  dataset.has_rgb ? "" : "no RGB frames",
  dataset.directions.length < 2 ? `${dataset.directions[0]} only` : "",
].filter(Boolean).join(" · ");

class Browser {
  constructor(dataset, { count, columns }) {
    Object.assign(this, { dataset, key: null, other: null, isPicking: false, hidesList: false });
    this.wish = 0;
    this.videos = new Map();
    const kinds = new Map(dataset.kinds.map((kind, bit) => [kind.name, { ...kind, bit }]));
    $("name").textContent = dataset.name;
    $("about").textContent = describe(dataset, count);
    this.player = new Player(dataset, new FlowColors(dataset), $("views"), {
      onChange: () => { this.controls.show(); this.address.write(); },
      onFrame: () => this.controls.showTime(),
      onPoint: ([spot]) => { $("point").textContent = spot ? `x ${spot.x}  y ${spot.y}` : ""; },
    });
    this.list = new VideoList({
      kinds,
      count,
      columns,
      onChoose: (key) => this.choose(key),
      onFilter: () => this.address.write(),
      classOf: (key) => (key === this.other ? "other" : ""),
    });
    this.controls = new Controls(this);
    this.findings = new Findings({ kinds, severities: dataset.severities, list: this.list, player: this.player });
    setUpKeys(this);
    this.address = new Address(this);
  }

  tell(words) {
    $("notice").textContent = words;
    $("notice").hidden = !words;
  }

  getVideo(key) {
    if (!this.videos.has(key)) {
      const made = getJson(`/api/video?${new URLSearchParams({ key })}`);
      made.catch(() => this.videos.delete(key));
      this.videos.set(key, made);
      if (this.videos.size > MOST_KEPT_VIDEOS) this.videos.delete(this.videos.keys().next().value);
    }
    return this.videos.get(key);
  }

  // Shows the video that the user chose in the list.
  choose(key) {
    if (this.isPicking) {
      this.endPicking();
      this.show(this.key, key, { pushes: true, reveals: true });
    } else if (key !== this.key) {
      this.player.t = 0;
      this.show(key, this.other, { plays: !movesLittle.matches, pushes: true, reveals: true });
    }
  }

  // Shows one video, two videos side by side, or none.
  async show(key, other, { plays = false, pushes = false, reveals = false } = {}) {
    const { player } = this;
    const wanted = ++this.wish;
    const wasPlaying = player.isPlaying;
    player.pause();
    this.key = key;
    this.other = key ? other : null;
    $("player").hidden = !key;
    document.title = `${key ?? this.dataset.name}: flowprep browse`;
    this.layOut();
    this.list.setActive(key);
    this.controls.show();
    this.address.write({ pushes });
    if (!key) {
      await player.setVideos([]);
      return;
    }
    $("player").setAttribute("aria-busy", "true");
    const wantedKeys = [key, other].filter(Boolean);
    const results = await Promise.allSettled(wantedKeys.map((one) => this.getVideo(one)));
    if (wanted !== this.wish) return;
    const failures = results.map(({ reason }, number) => (reason ? `${wantedKeys[number]}: ${reason.message}` : ""));
    this.tell(failures.filter(Boolean).join("; "));
    await player.setVideos(results.flatMap((result) => result.value ?? []));
    if (wanted !== this.wish) return;
    $("player").removeAttribute("aria-busy");
    if (reveals && NARROW.matches) $("player").scrollIntoView();
    this.controls.show();
    this.findings.show();
    if (plays || wasPlaying) player.play();
  }

  endPicking() {
    this.isPicking = false;
    $("picking").hidden = true;
    this.controls.show();
  }

  // Lets the user choose a second video, or ends the choice or the comparison.
  compare() {
    if (this.isPicking) this.endPicking();
    else if (this.other) this.show(this.key, null, { pushes: true });
    else {
      this.isPicking = true;
      this.hidesList = false;
      this.layOut();
      $("picking").hidden = false;
      this.controls.show();
      $("scroller").focus();
    }
  }

  close() {
    this.endPicking();
    this.show(null, null, { pushes: true });
    $("scroller").focus();
  }

  toggleList() {
    this.hidesList = !this.hidesList;
    this.layOut();
    this.controls.show();
    this.list.table.draw();
  }

  layOut() {
    $("main").className = !this.key ? "list-only" : this.hidesList ? "player-only" : "both";
  }
}

const start = async () => {
  const browser = new Browser(...await Promise.all([getJson("/api/dataset"), getJson("/api/videos")]));
  await browser.address.read();
  browser.findings.follow();
};

setUpThemes($("theme"));
start().catch((error) => {
  $("name").textContent = "The data set could not be opened";
  $("about").textContent = error.message;
});
