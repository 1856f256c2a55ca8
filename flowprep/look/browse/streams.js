// Bytes of a video's streams, and pictures made of them.

// One request asks for at most this many frames or bytes, so that a seek does not wait for more.
const CHUNK_FRAMES = 32;
const CHUNK_BYTES = 1 << 19;
// A video keeps this many bytes of undecoded data and of decoded pictures.
const KEPT_BYTES = 48 << 20;
const KEPT_PIXELS = 48 << 20;
const LEAST_KEPT = 40;

export const getJson = async (path) => {
  const response = await fetch(path);
  if (!response.ok) throw new Error((await response.text()).trim() || `${response.status}`);
  return response.json();
};

// Keeps the items used last, up to a total size.
class Recent {
  constructor(most, least, onDrop = () => {}) {
    Object.assign(this, { most, least, onDrop, sum: 0, items: new Map() });
  }

  get(key, size, make) {
    let item = this.items.get(key);
    if (item) {
      this.items.delete(key);
    } else {
      item = { size, promise: make() };
      this.sum += size;
      item.promise.catch(() => this.drop(key));
    }
    this.items.set(key, item);
    while (this.sum > this.most && this.items.size > this.least) this.drop(this.items.keys().next().value);
    return item.promise;
  }

  drop(key) {
    const item = this.items.get(key);
    if (!item) return;
    this.items.delete(key);
    this.sum -= item.size;
    item.promise.then(this.onDrop, () => {});
  }

  clear() {
    for (const key of [...this.items.keys()]) this.drop(key);
  }
}

const scratch = document.createElement("canvas");
const scratchContext = scratch.getContext("2d", { willReadFrequently: true });

export class VideoStreams {
  constructor(video, maxRangeBytes) {
    this.video = video;
    this.maxRangeBytes = maxRangeBytes;
    this.chunks = new Recent(KEPT_BYTES, 4);
    this.pictures = new Recent(KEPT_PIXELS, LEAST_KEPT, (picture) => picture.close?.());
    this.abort = new AbortController();
    this.starts = {};
  }

  close() {
    this.abort.abort();
    this.chunks.clear();
    this.pictures.clear();
  }

  // The first frame of each chunk of a stream. It depends only on the offsets.
  chunkStarts(name) {
    if (!this.starts[name]) {
      const offsets = this.video.offsets[name];
      const starts = [0];
      for (let index = 1; index < offsets.length - 1; index++) {
        const start = starts[starts.length - 1];
        if (index - start >= CHUNK_FRAMES || offsets[index + 1] - offsets[start] > CHUNK_BYTES) starts.push(index);
      }
      this.starts[name] = starts;
    }
    return this.starts[name];
  }

  // The chunk that holds a frame, as a promise of {start, data}.
  chunk(name, index) {
    const starts = this.chunkStarts(name);
    let low = 0, high = starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (starts[middle] <= index) low = middle; else high = middle - 1;
    }
    const offsets = this.video.offsets[name];
    const start = starts[low], stop = starts[low + 1] ?? offsets.length - 1;
    const begin = offsets[start], end = offsets[stop];
    return this.chunks.get(`${name}:${start}`, end - begin, () => this.fetchRange(name, begin, end));
  }

  async fetchRange(name, begin, end) {
    if (end - begin > this.maxRangeBytes) throw new Error(`${name}: a picture of ${end - begin} bytes is too long`);
    const query = new URLSearchParams({ key: this.video.key, name });
    const response = await fetch(`/stream?${query}`, {
      headers: { Range: `bytes=${begin}-${end - 1}` },
      signal: this.abort.signal,
    });
    if (response.status !== 206) throw new Error((await response.text()).trim() || `${response.status}`);
    return { begin, data: await response.arrayBuffer() };
  }

  async decode(name, index) {
    const { begin, data } = await this.chunk(name, index);
    const offsets = this.video.offsets[name];
    const jpeg = data.slice(offsets[index] - begin, offsets[index + 1] - begin);
    let bitmap;
    try {
      const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
      bitmap = await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }), options);
    } catch {
      throw new Error(`${name} ${index} is not a JPEG`);
    }
    const { width, height } = this.video;
    if (bitmap.width !== width || bitmap.height !== height) {
      throw new Error(`${name} ${index} is ${bitmap.width}x${bitmap.height}, not ${width}x${height}`);
    }
    return bitmap;
  }

  // A frame as an ImageBitmap.
  frame(index) {
    const size = 4 * this.video.width * this.video.height;
    return this.pictures.get(`rgb:${index}`, size, () => this.decode("rgb", index));
  }

  // The levels of one component, a Uint8Array, row by row.
  plane(name, index) {
    const { width, height } = this.video;
    return this.pictures.get(`${name}:${index}`, width * height, async () => {
      const bitmap = await this.decode(name, index);
      // Nothing may wait from here to the end, because all callers share the canvas.
      if (scratch.width !== width || scratch.height !== height) Object.assign(scratch, { width, height });
      scratchContext.drawImage(bitmap, 0, 0);
      bitmap.close();
      const rgba = scratchContext.getImageData(0, 0, width, height).data;
      const levels = new Uint8Array(width * height);
      for (let place = 0; place < levels.length; place++) levels[place] = rgba[4 * place];
      return levels;
    });
  }
}
