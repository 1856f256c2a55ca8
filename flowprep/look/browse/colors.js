// Draws flow and errors as colors, with the numbers that the data set gives.

// An opaque color in the format of a canvas.
export const pack = (r, g, b) => (0xff000000 | (b << 16) | (g << 8) | r) >>> 0;

export class FlowColors {
  constructor({ px_of_level, wheel, error_ramp, outside, consistency_px }) {
    this.px = Float32Array.from(px_of_level);
    this.wheel = wheel;
    this.gray = Uint32Array.from({ length: 256 }, (_, level) => pack(level, level, level));
    this.errors = Uint32Array.from(error_ramp, (color) => pack(...color));
    this.outside = pack(...outside);
    this.mostError = consistency_px;
    this.tables = new Map();
  }

  // Like flow_to_color in look/color.py, for one vector relative to the scale: [r, g, b].
  color(u, v) {
    const radius = Math.hypot(u, v);
    const last = this.wheel.length - 1;
    const position = Math.round(((Math.atan2(-v, -u) / Math.PI + 1) / 2) * last * 256) / 256;
    const below = Math.floor(position), share = position - below;
    const low = this.wheel[below], high = this.wheel[Math.min(below + 1, last)];
    return low.map((value, channel) => {
      const hue = value + share * (high[channel] - value);
      return Math.floor((radius <= 1 ? 255 - radius * (255 - hue) : 0.75 * hue) + 1e-3);
    });
  }

  // The color of each pair of levels, at 256 y + x.
  table(scalePx) {
    let table = this.tables.get(scalePx);
    if (!table) {
      table = new Uint32Array(65536);
      for (let y = 0; y < 256; y++) {
        for (let x = 0; x < 256; x++) table[256 * y + x] = pack(...this.color(this.px[x] / scalePx, this.px[y] / scalePx));
      }
      this.tables.clear();
      this.tables.set(scalePx, table);
    }
    return table;
  }

  // The distance in px from the start after following the flow and then the reverse flow. NaN if
  // the first step leaves the frame. Like consistency_error in flow/consistency.py. The motions of
  // the camera, there and back, are added to flow that is freed of them.
  consistency({ x, y }, reverse, { width, height }, [there, back]) {
    const errors = new Float32Array(width * height);
    const { px } = this;
    for (let row = 0, place = 0; row < height; row++) {
      for (let column = 0; column < width; column++, place++) {
        const [endX, endY] = there(column + px[x[place]], row + px[y[place]]);
        if (!(endX >= 0 && endX <= width - 1 && endY >= 0 && endY <= height - 1)) {
          errors[place] = NaN;
          continue;
        }
        const left = Math.floor(endX), top = Math.floor(endY);
        const right = Math.min(left + 1, width - 1), bottom = Math.min(top + 1, height - 1);
        const shareX = endX - left, shareY = endY - top;
        const a = top * width + left, b = top * width + right, c = bottom * width + left, d = bottom * width + right;
        const look = (levels) => (px[levels[a]] * (1 - shareX) + px[levels[b]] * shareX) * (1 - shareY)
          + (px[levels[c]] * (1 - shareX) + px[levels[d]] * shareX) * shareY;
        const [homeX, homeY] = back(endX + look(reverse.x), endY + look(reverse.y));
        errors[place] = Math.hypot(homeX - column, homeY - row);
      }
    }
    return errors;
  }

  errorColor(error) {
    return Number.isNaN(error) ? this.outside : this.errors[Math.min(255, Math.round((error * 255) / this.mostError))];
  }
}
