// Reflectance by wavelength, a line for each month, as SVG.
import { svg } from './dom.js';

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [300, 170, 34, 8, 10, 30];
export const LINES = ['#2f7de1', '#e0632b', '#2a9d55', '#9250c4', '#b8860b', '#555'];

/** A step of 1, 2 or 5 that gives about so many marks. */
function step(range, marks) {
  const rough = range / marks;
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find((s) => s * power >= rough);
}

/** The plot; months without data are left out, bands of unknown wavelength stand side by side. */
export function spectraPlot(spectra, wavelengths, bands) {
  const measured = spectra.filter((s) => s.reflectance);
  const known = bands.every((b) => b in wavelengths);
  const at = (band) => (known ? wavelengths[band] : bands.indexOf(band) + 1);
  const order = [...bands].sort((a, b) => at(a) - at(b));
  const [low, high] = known ? [400, Math.max(...order.map(at)) + 100] : [0.5, bands.length + 0.5];
  const highest = Math.max(0.05, ...measured.flatMap((s) => Object.values(s.reflectance)));
  const rise = step(highest * 1.05, 4);
  const ceiling = Math.ceil((highest * 1.02) / rise) * rise;
  const x = (value) => LEFT + ((value - low) / (high - low)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - (Math.max(value, 0) / ceiling) * (HEIGHT - TOP - BOTTOM);
  const plot = svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: 'spectra', role: 'img', 'aria-label': 'reflectance by wavelength' });
  for (let value = 0; value <= ceiling + 1e-9; value += rise) {
    plot.append(svg('line', { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value), class: 'grid' }),
      svg('text', { x: LEFT - 4, y: y(value) + 3, 'text-anchor': 'end' }, value.toFixed(rise < 0.1 ? 2 : 1)));
  }
  const marks = known ? [500, 1000, 1500, 2000].filter((v) => v < high) : order.map(at);
  marks.forEach((v, n) => plot.append(svg('text', { x: x(v), y: HEIGHT - BOTTOM + 12, 'text-anchor': 'middle' }, known ? String(v) : order[n])));
  plot.append(svg('text', { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 4, 'text-anchor': 'middle' }, known ? 'wavelength (nm)' : 'band'),
    ...spectra.flatMap((s, n) => (s.reflectance ? line(s, LINES[n % LINES.length], order, at, x, y) : [])));
  return plot;
}

function line({ name, reflectance }, colour, order, at, x, y) {
  const points = order.map((b) => [x(at(b)), y(reflectance[b])]);
  return [
    svg('polyline', { points: points.map((p) => p.map((v) => v.toFixed(1)).join(',')).join(' '), stroke: colour, class: 'line' }),
    ...order.map((b, n) => svg('circle', { cx: points[n][0].toFixed(1), cy: points[n][1].toFixed(1), r: 3, fill: colour },
      svg('title', {}, `${name}, ${b}${at(b) > 100 ? ` (${at(b)} nm)` : ''}: ${reflectance[b].toFixed(4)}`))),
  ];
}
