// The panels of layers, bands and classes.
import { byId, el } from './dom.js';
import { map } from './map.js';
import { change, on, state } from './state.js';

const SIDES = { both: ['◼', 'both sides'], left: ['◧', 'left of the divider'], right: ['◨', 'right of the divider'] };
const KINDS = { image: 'image', labels: 'labels', map: 'prediction' };

/** Make the panels and follow the state. */
export function makePanels() {
  for (const name of ['layers', 'swipe', 'view', 'bands', 'classes']) on(name, drawLayers);
  on('bands', drawBands);
  on('layers', drawBands);
  on('classes', drawLegend);
  drawLayers();
  drawBands();
  drawLegend();
}

/** Show or hide a layer. */
export function toggleLayer(id) {
  const layer = state.layers.get(id);
  layer.on = !layer.on;
  change('layers');
}

/** The layers in the order of the list: the topmost first. */
export const listed = () => [...state.scene.layers].reverse();

/** What a layer row needs anew; rows are kept while a slider is held. */
const rows = new Map();
function drawLayers() {
  const list = byId('layers');
  if (!rows.size) {
    listed().forEach((layer, number) => {
      rows.set(layer.id, layerRow(layer, number + 1));
      list.append(rows.get(layer.id).row);
    });
  }
  for (const layer of state.scene.layers) refresh(layer, rows.get(layer.id));
}

function layerRow(layer, number) {
  const now = state.layers.get(layer.id);
  const box = el('input', { type: 'checkbox', id: `on-${layer.id}`, onchange: () => toggleLayer(layer.id) });
  const slider = el('input', {
    type: 'range', min: 0, max: 100, 'aria-label': `opacity of ${layer.name}`,
    oninput: () => { now.opacity = Number(slider.value); change('layers'); },
  });
  const percent = el('output');
  const side = el('button', {
    class: 'side-of small',
    onclick: () => { now.side = { both: 'left', left: 'right', right: 'both' }[now.side]; change('layers'); },
  });
  const notice = el('p', { class: 'notice' });
  const row = el('li', { class: 'layer', 'data-layer': layer.id },
    el('div', { class: 'line' }, box,
      el('label', { for: box.id, title: layer.files.join(', ') }, layer.name, el('small', {}, KINDS[layer.kind] ?? '')),
      side, number < 10 ? el('kbd', {}, String(number)) : null),
    el('div', { class: 'details' }, el('div', { class: 'line' }, slider, percent), extras(layer), notice));
  return { row, box, slider, percent, side, notice };
}

/** A ramp or colours that a layer has of its own. */
function extras(layer) {
  const { ramps, colours, legend } = state.scene;
  if (layer.kind === 'disagreement') {
    return el('div', { class: 'keys' }, swatch(colours.differs), 'differ ', swatch(colours.agrees), 'agree');
  }
  if (!ramps[layer.kind]) return null;
  const bar = el('div', { class: 'ramp' }, el('span', {}, '0'), el('i', { style: { background: `linear-gradient(90deg, ${ramps[layer.kind].join(', ')})` } }), el('span', {}, '100 %'));
  if (layer.kind !== 'probabilities') return bar;
  const choice = el('select', { 'aria-label': 'class', onchange: () => { state.code = Number(choice.value); change('classes'); } },
    legend.map((c) => el('option', { value: c.code, selected: c.code === state.code }, `of ${c.name}`)));
  return el('div', {}, choice, bar);
}

function refresh(layer, { row, box, slider, percent, side, notice }) {
  const now = state.layers.get(layer.id);
  box.checked = now.on;
  row.classList.toggle('on', now.on);
  slider.value = now.opacity;
  percent.textContent = `${now.opacity} %`;
  side.hidden = state.swipe === null || !now.on;
  [side.textContent] = SIDES[now.side];
  side.title = `shown on ${SIDES[now.side][1]}`;
  const far = now.on && map.getZoom() < layer.min_zoom;
  notice.hidden = !far;
  notice.textContent = far ? `Zoom in to see it. ${layer.notice}` : '';
}

function drawBands() {
  const { bands, combinations } = state.scene;
  const block = byId('bands');
  block.hidden = bands.length === 0;
  if (block.hidden) return;
  const known = combinations.findIndex((c) => c.bands.join() === state.bands.join());
  const choice = el('select', {
    id: 'combination', 'aria-label': 'combination of bands',
    onchange: () => { if (choice.value >= 0) { state.bands = [...combinations[choice.value].bands]; change('bands'); } },
  }, combinations.map((c, n) => el('option', { value: n, selected: n === known }, c.name)),
  el('option', { value: -1, selected: known < 0, hidden: known >= 0 }, 'own choice'));
  const channels = ['red', 'green', 'blue'].map((colour, n) => {
    const band = el('select', {
      class: `channel ${colour}`, 'aria-label': `band shown as ${colour}`,
      onchange: () => { state.bands[n] = band.value; change('bands'); },
    }, bands.map((b) => el('option', { selected: b === state.bands[n] }, b)));
    return band;
  });
  block.replaceChildren(el('h3', {}, 'Image bands'), choice, el('div', { class: 'channels' }, channels));
}

/** Show the next combination of bands. */
export function nextCombination() {
  const { combinations } = state.scene;
  if (!combinations.length) return;
  const known = combinations.findIndex((c) => c.bands.join() === state.bands.join());
  state.bands = [...combinations[(known + 1) % combinations.length].bands];
  change('bands');
}

/** A small square of a colour. */
export const swatch = (colour) => el('i', { class: 'swatch', style: { background: colour } });

function drawLegend() {
  const { legend } = state.scene;
  byId('legend').replaceChildren(...legend.map((c) => el('li', {},
    el('button', {
      'aria-pressed': String(!state.hidden.has(c.code)), 'data-code': c.code, title: `${c.name_ca} (${c.code})`,
      onclick: (event) => (event.detail === 2 ? showAlone(c.code) : toggleClass(c.code)),
    }, swatch(c.colour), el('span', {}, c.name)))));
}

function toggleClass(code) {
  if (!state.hidden.delete(code)) state.hidden.add(code);
  change('classes');
}

function showAlone(code) {
  state.hidden = new Set(state.scene.legend.map((c) => c.code).filter((c) => c !== code));
  change('classes');
}

/** Show all classes, or none. */
export function showClasses(all) {
  state.hidden = new Set(all ? [] : state.scene.legend.map((c) => c.code));
  change('classes');
}
