// What is shown, kept in the address of the page.

const changed = new EventTarget();

export const state = {
  scene: null,        // what the server told
  layers: new Map(),  // id -> {on, opacity (0-100), side ('both', 'left', 'right')}
  bands: [],          // red, green, blue
  swipe: null,        // share of the width left of the divider, or null
  hidden: new Set(),  // codes of classes
  code: 1,            // whose probability is shown
  audit: null,        // id
  rank: null,         // of the suspect
};

/** Call a function when something of this name has changed. */
export const on = (name, listener) => changed.addEventListener(name, listener);

/** Say that something has changed. */
export function change(name) {
  changed.dispatchEvent(new Event(name));
  changed.dispatchEvent(new Event('any'));
}

/** What the page shows when the address says nothing. */
export function begin(scene) {
  state.scene = scene;
  const kinds = scene.layers.map((layer) => layer.kind);
  const top = ['map', 'labels', 'confidence', 'entropy', 'probabilities'].find((kind) => kinds.includes(kind));
  const first = new Set([kinds.indexOf('image'), kinds.indexOf(top)]);
  scene.layers.forEach((layer, number) => {
    const opacity = layer.kind === 'image' || !kinds.includes('image') ? 100 : 75;
    state.layers.set(layer.id, { on: first.has(number), opacity, side: 'both' });
  });
  state.bands = scene.combinations[0]?.bands ?? [0, 1, 2].map((n) => scene.bands[Math.min(n, scene.bands.length - 1)]);
  state.audit = scene.audits[0]?.id ?? null;
}

/** Take over what an address says; what does not fit the files is left out. Returns the view of the map, if any. */
export function readHash(hash) {
  const said = new URLSearchParams(hash.replace(/^#/, ''));
  if (said.has('layers')) {
    for (const layer of state.layers.values()) layer.on = false;
    for (const text of said.get('layers').split(',')) readLayer(text);
  }
  const bands = (said.get('bands') ?? '').split(',');
  if (bands.length === 3 && bands.every((band) => state.scene.bands.includes(band))) state.bands = bands;
  const swipe = Number.parseFloat(said.get('swipe'));
  state.swipe = swipe >= 0 && swipe <= 1 ? swipe : null;
  const codes = state.scene.legend.map((c) => c.code);
  state.hidden = new Set((said.get('hide') ?? '').split(',').map(Number).filter((c) => codes.includes(c)));
  if (codes.includes(Number(said.get('class')))) state.code = Number(said.get('class'));
  const [audit, rank] = (said.get('suspect') ?? '').split(':');
  if (state.scene.audits.some((a) => a.id === audit)) Object.assign(state, { audit, rank: Number(rank) || null });
  const [lat, lng, zoom] = (said.get('at') ?? '').split(',').map(Number);
  return [lat, lng, zoom].every(Number.isFinite) && Math.abs(lat) < 90 ? { lat, lng, zoom } : null;
}

function readLayer(text) {
  const [id, opacity, side] = text.split('~');
  const layer = state.layers.get(id);
  if (!layer) return;
  layer.on = true;
  const percent = Number.parseInt(opacity, 10);
  if (percent >= 0 && percent <= 100) layer.opacity = percent;
  layer.side = { l: 'left', r: 'right' }[side] ?? 'both';
}

/** The address of what is shown. */
export function hashOf(map) {
  const { lat, lng } = map.getCenter();
  const layers = [...state.layers].filter(([, layer]) => layer.on);
  const parts = {
    at: [lat.toFixed(6), lng.toFixed(6), map.getZoom()].join(','),
    layers: layers.map(([id, { opacity, side }]) => [id, opacity, side === 'both' ? null : side[0]].filter((v) => v != null).join('~')).join(','),
    bands: state.bands.join(','),
    swipe: state.swipe?.toFixed(3),
    hide: [...state.hidden].sort((a, b) => a - b).join(','),
    class: state.scene.layers.some((l) => l.kind === 'probabilities') ? state.code : '',
    suspect: state.rank ? `${state.audit}:${state.rank}` : '',
  };
  const said = Object.entries(parts).filter(([, value]) => value !== undefined && value !== '');
  return `#${said.map(([key, value]) => `${key}=${value}`).join('&')}`;
}
