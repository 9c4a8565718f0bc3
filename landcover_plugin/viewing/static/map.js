// The map: a pane for each layer, so that each can be clipped by the divider and faded.
import { byId, tell } from './dom.js';
import { change, hashOf, on, state } from './state.js';

const L = window.L;
export const map = L.map('map', {
  attributionControl: false, zoomControl: false, maxZoom: 22, minZoom: 2, keyboard: true,
});
L.control.zoom({ position: 'bottomleft' }).addTo(map);
L.control.scale({ imperial: false, position: 'bottomleft' }).addTo(map);

const shown = new Map(); // id -> {url, tiles}

/** The bounds of everything. */
export const everything = () => {
  const [west, south, east, north] = state.scene.bounds;
  return L.latLngBounds([south, west], [north, east]);
};

/** The address of a layer's tiles in the present look. */
function urlOf(layer) {
  const look = new URLSearchParams({ v: layer.version });
  if (layer.kind === 'image') look.set('bands', state.bands.join(','));
  if (['labels', 'map', 'disagreement'].includes(layer.kind) && state.hidden.size) {
    look.set('hide', [...state.hidden].sort((a, b) => a - b).join(','));
  }
  if (layer.kind === 'probabilities') look.set('class', state.code);
  return `api/tiles/${layer.id}/{z}/{x}/{y}.png?${look}`;
}

function tilesOf(layer, url) {
  const [west, south, east, north] = layer.bounds;
  const tiles = L.tileLayer(url, {
    pane: layer.id, minZoom: layer.min_zoom, maxZoom: 22, maxNativeZoom: layer.max_zoom, keepBuffer: 3,
    bounds: [[south, west], [north, east]], className: 'crisp', updateWhenZooming: false,
  });
  tiles.on('tileerror', (event) => explain(event.tile.src));
  return tiles;
}

/** Tell why a tile did not come. */
async function explain(src) {
  if (!src.includes('/api/tiles/')) return; // given up by Leaflet
  try {
    const answer = await fetch(src);
    if (!answer.ok) tell(await answer.text(), true);
  } catch {
    tell('landcover view does not answer any more: was it stopped?', true);
  }
}

/** Bring the layers of the map in line with the state. */
function update() {
  for (const layer of state.scene.layers) {
    const { on: isOn, opacity } = state.layers.get(layer.id);
    const url = urlOf(layer);
    const before = shown.get(layer.id);
    map.getPane(layer.id).style.opacity = peeking && layer.kind !== 'image' ? 0 : opacity / 100;
    if (isOn && before?.url !== url) {
      const tiles = tilesOf(layer, url).addTo(map);
      shown.set(layer.id, { url, tiles });
      if (before) { // the old tiles stay until the new ones are there: no flicker
        const drop = () => before.tiles.remove();
        tiles.once('load', drop);
        setTimeout(drop, 1500);
      }
    } else if (!isOn && before) {
      before.tiles.remove();
      shown.delete(layer.id);
    }
  }
  clip();
}

let peeking = false;
/** Look at the image alone, or no longer. */
export function peek() {
  peeking = !peeking;
  if (peeking) tell('Only the image is shown; i brings the others back.');
  update();
}

/** Cut the panes at the divider. */
function clip() {
  const { x: width, y: height } = map.getSize();
  const [nw, se] = [map.containerPointToLayerPoint([0, 0]), map.containerPointToLayerPoint([width, height])];
  const at = nw.x + width * (state.swipe ?? 1);
  for (const [id, { side }] of state.layers) {
    const [left, right] = [side === 'right' ? at : nw.x, side === 'left' ? at : se.x];
    map.getPane(id).style.clip = state.swipe === null || side === 'both' ? '' : `rect(${nw.y}px,${right}px,${se.y}px,${left}px)`;
  }
  const divider = byId('divider');
  divider.hidden = state.swipe === null;
  divider.style.left = `${(state.swipe ?? 0) * width}px`;
  divider.setAttribute('aria-valuenow', Math.round((state.swipe ?? 0) * 100));
}

function makeDraggable(divider) {
  const move = (event) => {
    const { left, width } = byId('map').getBoundingClientRect();
    state.swipe = Math.min(Math.max((event.clientX - left) / width, 0), 1);
    change('swipe');
  };
  divider.addEventListener('pointerdown', (event) => {
    event.preventDefault();
    divider.setPointerCapture(event.pointerId);
    divider.addEventListener('pointermove', move);
  });
  for (const end of ['pointerup', 'pointercancel']) {
    divider.addEventListener(end, () => divider.removeEventListener('pointermove', move));
  }
}

const lent = new Set(); // layers that swiping switched on, and will switch off

/** Begin or end swiping: at first two layers of classes beside each other, or the topmost over what is below. */
export function toggleSwipe() {
  state.swipe = state.swipe === null ? 0.5 : null;
  if (state.swipe === null) {
    for (const layer of state.layers.values()) Object.assign(layer, { side: 'both', on: layer.on && !lent.has(layer) });
    lent.clear();
  }
  const layers = [...state.layers.values()];
  if (state.swipe !== null && layers.every((l) => !l.on || l.side === 'both')) {
    const kinds = (kind) => state.scene.layers.filter((l) => l.kind === kind).map((l) => state.layers.get(l.id));
    const [left, right] = kinds('map').length && kinds('labels').length ? [kinds('labels')[0], kinds('map')[0]] : pair(layers);
    for (const [side, layer] of Object.entries({ left, right })) {
      if (layer && !layer.on) lent.add(layer);
      if (layer) Object.assign(layer, { side, on: true });
    }
  }
  change('layers');
  change('swipe');
}

/** Two images beside each other, or the topmost layer on the right. */
function pair(layers) {
  const images = state.scene.layers.filter((l) => l.kind === 'image').map((l) => state.layers.get(l.id));
  const top = layers.findLast((l) => l.on);
  return images.includes(top) && images.length > 1 ? images.slice(0, 2) : [null, top];
}

/** Draw the layers and follow the state. */
export function show(view) {
  state.scene.layers.forEach((layer, number) => {
    map.createPane(layer.id).style.zIndex = 210 + number;
  });
  if (view) map.setView([view.lat, view.lng], view.zoom);
  else fit();
  for (const name of ['layers', 'bands', 'classes']) on(name, update);
  on('swipe', clip);
  map.on('move zoom resize zoomend', clip);
  map.on('moveend', () => change('view'));
  makeDraggable(byId('divider'));
  let waiting;
  on('any', () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => history.replaceState(null, '', hashOf(map)), 150);
  });
  update();
}

/** Show everything beside the panels. */
export function fit(bounds = everything(), maxZoom = 18) {
  const wide = window.innerWidth > 800;
  const right = wide && document.querySelector('.side.right .panel:not([hidden])') ? 350 : 20;
  map.fitBounds(bounds, {
    paddingTopLeft: [wide ? 320 : 20, 60], paddingBottomRight: [right, wide ? 30 : document.body.dataset.tab ? window.innerHeight / 2 : 80], maxZoom,
  });
}
