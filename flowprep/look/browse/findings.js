// The server's search for findings: its progress, and the findings beside each video.

import { $ } from "./page.js";
import { getJson } from "./streams.js";

const ASK_EACH_MS = 1000;
const LOST_EACH_MS = 5000;

const progressWords = ({ stage, done, total }) => {
  const count = `${done.toLocaleString("en")} of ${total.toLocaleString("en")} videos`;
  return {
    off: "",
    statistics: `Reading statistics: ${count} …`,
    pixels: `Searching for findings in pixels: ${count} …`,
    done: "",
    stopped: "The search for findings stopped. The terminal says why.",
  }[stage];
};

export class Findings {
  constructor({ kinds, severities, list, player }) {
    Object.assign(this, { kinds, severities, list, player });
    this.version = -1;
  }

  // Shows the known findings about the videos in the player.
  async show() {
    for (const view of this.player.views) {
      let found;
      try {
        found = await getJson(`/api/findings?${new URLSearchParams({ key: view.video.key })}`);
      } catch { return; }
      view.findings.replaceChildren(...found.map((one) => this.makeItem(one)));
    }
    this.player.layOut();
  }

  makeItem({ kind, detail, pair }) {
    const { title, severity, what, remedy } = this.kinds.get(kind);
    const item = document.createElement("li");
    const mark = document.createElement("span");
    mark.className = `mark ${severity}`;
    mark.textContent = `${this.severities[severity].split(" ")[0]} ${title}`;
    mark.title = `${this.severities[severity]}. ${what} ${remedy}`;
    item.append(mark, detail ? ` ${detail}` : ` ${what}`);
    if (pair !== null) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "go";
      button.textContent = `Go to ${pair}`;
      button.addEventListener("click", () => { this.player.pause(); this.player.seek(pair); });
      item.append(" ", button);
    }
    return item;
  }

  // Asks for the progress of the search again and again until the search has ended.
  async follow() {
    let wait = ASK_EACH_MS;
    try {
      const progress = await getJson("/api/survey");
      $("survey").textContent = progressWords(progress);
      if (progress.version !== this.version) {
        const values = await getJson("/api/statistics");
        this.version = values.version;
        this.list.setValues(values);
        this.show();
      }
      if (["off", "done", "stopped"].includes(progress.stage)) return;
    } catch {
      $("survey").textContent = "The server does not answer.";
      wait = LOST_EACH_MS;
    }
    setTimeout(() => this.follow(), wait);
  }
}
