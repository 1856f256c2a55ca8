// Draws arrows over a paled frame that show the motion.

const ARROW_SPACING_PX = 24;
// The same formula as arrow_factor in look/render.py.
const ARROW_FACTORS = [0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 20, 30, 50, 100];

const paleFrame = (context, picture, drawnWidth, drawnHeight) => {
  // 0.62 of the frame and 82 gray levels, so that arrows stand out.
  context.globalAlpha = 1;
  context.fillStyle = "rgb(216 216 216)";
  context.fillRect(0, 0, drawnWidth, drawnHeight);
  if (picture) {
    context.globalAlpha = 0.62;
    context.drawImage(picture, 0, 0, drawnWidth, drawnHeight);
    context.globalAlpha = 1;
  }
};

// The mean flow in px around a place, over the area that one px of the screen covers.
const meanFlow = ({ x: xs, y: ys }, px, { width, height }, column, row, reach) => {
  let u = 0, v = 0, count = 0;
  for (let y = Math.max(0, row - reach); y <= Math.min(height - 1, row + reach); y++) {
    for (let x = Math.max(0, column - reach); x <= Math.min(width - 1, column + reach); x++) {
      u += px[xs[y * width + x]];
      v += px[ys[y * width + x]];
      count++;
    }
  }
  return [u / count, v / count];
};

const addArrow = (lines, left, top, u, v, barb) => {
  const endX = left + u, endY = top + v, angle = Math.atan2(v, u);
  lines.moveTo(left, top);
  lines.lineTo(endX, endY);
  for (const turn of [Math.PI - 0.5, Math.PI + 0.5]) {
    lines.moveTo(endX, endY);
    lines.lineTo(endX + barb * Math.cos(angle + turn), endY + barb * Math.sin(angle + turn));
  }
};

const stroke = (context, lines, dots, density) => {
  context.lineCap = "round";
  for (const [color, thickness] of [["rgb(60 64 70)", 3], ["rgb(255 221 30)", 1.2]]) {
    context.strokeStyle = context.fillStyle = color;
    context.lineWidth = thickness * density;
    context.stroke(lines);
    context.lineWidth = (thickness - 1) * density;
    if (thickness > 2) context.stroke(dots);
    context.fill(dots);
  }
};

// Draws into a panel's canvas at the screen's own resolution. Returns the length of the arrows, in
// words.
export const drawArrows = ({ canvas, context, stage }, { picture, flow }, video, { colors, scalePx }) => {
  const { width, height } = video;
  const shownWidth = stage.clientWidth || width;
  const density = Math.min(devicePixelRatio || 1, 2);
  const drawnWidth = Math.max(1, Math.round(shownWidth * density));
  const drawnHeight = Math.max(1, Math.round((drawnWidth * height) / width));
  if (canvas.width !== drawnWidth || canvas.height !== drawnHeight) {
    Object.assign(canvas, { width: drawnWidth, height: drawnHeight });
  }
  paleFrame(context, picture, drawnWidth, drawnHeight);
  const scale = drawnWidth / width;
  const spacing = (shownWidth < 220 ? 16 : ARROW_SPACING_PX) * density;
  const most = (2 * spacing) / (scalePx * scale);
  const factor = ARROW_FACTORS.findLast((one) => one <= most) ?? ARROW_FACTORS[0];
  const reach = Math.max(0, Math.round(1 / scale / 2));
  const lines = new Path2D(), dots = new Path2D();
  for (let top = spacing / 2; top < drawnHeight; top += spacing) {
    for (let left = spacing / 2; left < drawnWidth; left += spacing) {
      const column = Math.min(width - 1, Math.floor(left / scale)), row = Math.min(height - 1, Math.floor(top / scale));
      const [u, v] = meanFlow(flow, colors.px, video, column, row, reach).map((one) => one * scale * factor);
      const length = Math.hypot(u, v);
      if (length < 0.25 * factor * scale || length < 2 * density) {
        dots.moveTo(left + density, top);
        dots.arc(left, top, density, 0, 7);
      } else {
        addArrow(lines, left, top, u, v, Math.min(4.5 * density, 0.35 * length));
      }
    }
  }
  stroke(context, lines, dots, density);
  return factor === 1 ? "as long as the flow" : `${factor} times the flow`;
};
