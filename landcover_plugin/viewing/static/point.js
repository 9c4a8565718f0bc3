// A click: coordinates, spectra, classes and probabilities of the pixel there.
import { ask, byId, el, icon, tell } from './dom.js';
import { map } from './map.js';
import { swatch } from './panels.js';
import { LINES, spectraPlot } from './spectra.js';
import { state } from './state.js';

const L = window.L;
let outline = null;
let asked = 0;

/** Ask for what lies at each click. */
export function followClicks(opened) {
  map.on('click', (event) => show(event.latlng.wrap(), opened));
}

async function show({ lat, lng }, opened) {
  const number = ++asked;
  try {
    const point = await ask(`api/point?lon=${lng}&lat=${lat}`);
    if (number !== asked) return; // a later click was faster
    draw(point);
    opened();
  } catch (error) {
    tell(error.message, true);
  }
}

/** Take the point away. */
export function closePoint() {
  outline?.remove();
  outline = null;
  byId('panel-point').hidden = true;
}

function draw(point) {
  outline?.remove();
  outline = L.polygon(point.place.outline, { className: 'pixel', interactive: false, fill: false }).addTo(map);
  byId('panel-point').hidden = false;
  byId('point').replaceChildren(coordinates(point), ...classes(point), ...spectra(point), ...probabilities(point));
  if (window.innerWidth <= 800) map.panInside([point.lat, point.lon], { paddingTopLeft: [20, 70], paddingBottomRight: [20, window.innerHeight / 2 + 40] });
}

function coordinates({ lon, lat, place }) {
  const digits = place.units === 'degrees' ? 7 : 2;
  const own = `${place.x.toFixed(digits)}, ${place.y.toFixed(digits)}`;
  const geographic = `${lat.toFixed(6)}, ${lon.toFixed(6)}`;
  return el('table', { class: 'facts' },
    fact(place.crs, own, copy(own)), fact('lat, lon', geographic, copy(geographic)),
    fact('pixel', place.inside ? `row ${place.row}, column ${place.col}` : 'beside the raster', null));
}

const fact = (name, value, button) => el('tr', {}, el('th', {}, name), el('td', {}, value), el('td', {}, button ?? ''));

function copy(text) {
  return el('button', { class: 'small', title: 'copy', 'aria-label': `copy ${text}`, onclick: () => copyText(text) }, icon('link'));
}

/** Put text on the clipboard, where the browser allows it. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    tell('Copied.');
  } catch {
    tell(`Copy it yourself: ${text}`);
  }
}

/** Name and colour of a code. */
export const classOf = (code) => state.scene.legend.find((c) => c.code === code);

function classes({ classes: found }) {
  const rows = found.map(({ name, code }) => {
    const c = classOf(code);
    return el('tr', {}, el('th', {}, name), el('td', { class: 'class' }, ...(c ? [swatch(c.colour), c.name] : ['no data'])));
  });
  const codes = new Set(found.map((c) => c.code).filter(Boolean));
  const verdict = codes.size > 1 ? [el('p', { class: 'differs' }, '≠ they differ here')] : [];
  return rows.length ? [el('h3', {}, 'Class'), el('table', { class: 'facts' }, rows), ...verdict] : [];
}

function probabilities({ percents }) {
  const parts = [];
  for (const { kind, name, values, by_code: byCode } of percents) {
    if (!values.length) continue;
    if (kind === 'probabilities') parts.push(el('h3', {}, name), bars(byCode));
    else parts.push(el('p', { class: 'percent' }, `${name}: `, el('b', {}, `${values[0]} %`)));
  }
  return parts;
}

function bars(byCode) {
  const sorted = Object.entries(byCode).map(([code, percent]) => [Number(code), percent]).filter(([, percent]) => percent > 0).sort((a, b) => b[1] - a[1]);
  return el('ul', { class: 'bars' }, sorted.slice(0, 6).map(([code, percent]) => {
    const c = classOf(code);
    return el('li', {}, el('span', { class: 'name' }, c.name), el('span', { class: 'bar' }, el('i', { style: { width: `${percent}%`, background: c.colour } })), el('b', {}, `${percent} %`));
  }));
}

function spectra({ spectra: found }) {
  if (!found.length) return [];
  if (found.every((s) => !s.reflectance)) return [el('h3', {}, 'Reflectance'), el('p', { class: 'count' }, 'nothing was measured here')];
  const months = found.map((s, n) => el('span', {}, el('i', { class: 'dash', style: { background: LINES[n % LINES.length] } }), s.name, s.reflectance ? '' : ' (no data)'));
  return [el('h3', {}, 'Reflectance'), spectraPlot(found, state.scene.wavelengths, state.scene.bands), el('div', { class: 'months' }, months)];
}
