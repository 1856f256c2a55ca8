// Small pictures of the videos in the list. Only rows that are seen ask for theirs.

// A list that is being scrolled asks for nothing.
const WAIT_MS = 120;
// So many are asked for at once: the player's own requests must find a free connection.
const MOST_ASKED = 3;
const MOST_KEPT = 500;

export class Thumbnails {
  constructor(scroller) {
    Object.assign(this, { scroller, kept: new Map(), asked: 0, timer: null });
  }

  // The picture of a video. While it is kept, it is the same element, so a redrawn row asks for
  // nothing.
  get(key) {
    let image = this.kept.get(key);
    if (image) {
      this.kept.delete(key);
    } else {
      image = document.createElement("img");
      image.className = "thumbnail";
      image.alt = "";
      image.decoding = "async";
    }
    this.kept.set(key, image);
    if (this.kept.size > MOST_KEPT) this.kept.delete(this.kept.keys().next().value);
    if (!image.hasAttribute("src")) this.askLater();
    return image;
  }

  askLater() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => { this.timer = null; this.ask(); }, WAIT_MS);
  }

  isSeen(image) {
    if (!image.isConnected) return false;
    const own = image.getBoundingClientRect(), box = this.scroller.getBoundingClientRect();
    return own.bottom > box.top && own.top < box.bottom;
  }

  ask() {
    if (this.asked >= MOST_ASKED) return;
    for (const [key, image] of this.kept) {
      if (image.hasAttribute("src") || !this.isSeen(image)) continue;
      const end = () => {
        this.asked--;
        if (this.timer === null) this.ask();
      };
      image.addEventListener("load", end, { once: true });
      image.addEventListener("error", () => { image.classList.add("missing"); end(); }, { once: true });
      this.asked++;
      image.src = `/thumbnail?${new URLSearchParams({ key })}`;
      if (this.asked >= MOST_ASKED) return;
    }
  }
}
