// A colour for each category, from nothing but its name: the same in every image, set and session.

const SHADES = ["0.67", "0.77", "0.88"];

/** FNV-1a over UTF-16 units, with the bits mixed at the end: similar names get different colours. */
function hash(name) {
  let value = 0x811c9dc5;
  for (let i = 0; i < name.length; i += 1) value = Math.imul(value ^ name.charCodeAt(i), 0x01000193);
  value = Math.imul(value ^ (value >>> 15), 0x2c1b3c6d);
  value = Math.imul(value ^ (value >>> 12), 0x297a2d39);
  return (value ^ (value >>> 15)) >>> 0;
}

/** Gives a node the colour of a category; the style sheets make strokes and backgrounds of it. */
export function paint(node, name) {
  const value = hash(name);
  node.style.setProperty("--hue", String((value % 72) * 5));
  node.style.setProperty("--shade", SHADES[(value >>> 8) % SHADES.length]);
}
