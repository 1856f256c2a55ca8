// The camera's motion between two frames, as flowprep/flow/homography.py stores it.

const stays = (x, y) => [x, y];

const motion = ([a, b, c, d, e, f, g, h, i]) => (x, y) => {
  const depth = g * x + h * y + i;
  return [(a * x + b * y + c) / depth, (d * x + e * y + f) / depth];
};

// Up to a factor, which a homography does not have.
const inverse = ([a, b, c, d, e, f, g, h, i]) => [
  e * i - f * h, c * h - b * i, b * f - c * e,
  f * g - d * i, a * i - c * g, c * d - a * f,
  d * h - e * g, b * g - a * h, a * e - b * d,
];

// Where the camera's motion takes a point, in the direction of the flow and back. Without a
// homography the flow has the camera's motion already.
export function motionsOf(homography, direction) {
  if (!homography) return [stays, stays];
  const ways = [motion(homography), motion(inverse(homography))];
  return direction === "forward" ? ways : ways.reverse();
}
