// Stepping through the suspects of an audit; each verdict is written into the GeoPackage at once.
import { ask, byId, el, icon, tell } from './dom.js';
import { fit, map } from './map.js';
import { swatch } from './panels.js';
import { classOf } from './point.js';
import { change, on, state } from './state.js';

const L = window.L;
const WORDS = { accept: ['Accept', 'label wrong, or ground changed', 'a'], reject: ['Reject', 'label is right', 'r'], unsure: ['Unsure', 'cannot be told', 'u'] };
const COLOURS = { accept: '#d6006e', reject: '#1a8f4a', unsure: '#e0a100', open: '#ffffff' };
const MOST_MARKERS = 5000;

let rows = [];
let at = -1;
let outline = null;
let open = () => {}; // shows the panel
const markers = L.layerGroup();
const canvas = L.canvas({ padding: 0.3 });

/** Show the audit that the state names, if there is one. */
export async function startAudit(opened) {
  if (!state.audit) return;
  open = opened;
  byId('panel-audit').hidden = false;
  const choice = byId('audits');
  choice.hidden = state.scene.audits.length < 2;
  choice.replaceChildren(...state.scene.audits.map((a) => el('option', { value: a.id, selected: a.id === state.audit }, a.name)));
  choice.addEventListener('change', () => { Object.assign(state, { audit: choice.value, rank: null }); load(); });
  markers.addTo(map);
  map.on('zoomend', mark);
  on('suspect', draw);
  await load();
}

async function load() {
  try {
    rows = await ask(`api/audits/${state.audit}`);
  } catch (error) {
    tell(error.message, true);
    return;
  }
  const wanted = rows.findIndex((row) => row.rank === state.rank);
  mark();
  if (wanted >= 0) await select(wanted, false);
  else { at = -1; outline?.remove(); draw(); }
}

/** A dot for each suspect, in the colour of its verdict. */
function mark() {
  markers.clearLayers();
  const radius = map.getZoom() < 13 ? 3 : 5;
  rows.slice(0, MOST_MARKERS).forEach((row, number) => {
    const [west, south, east, north] = row.bounds;
    const dot = L.circleMarker([(south + north) / 2, (west + east) / 2], {
      renderer: canvas, radius, weight: 1.5, color: '#222', fillColor: COLOURS[row.verdict ?? 'open'], fillOpacity: 0.9, bubblingMouseEvents: false,
    });
    dot.on('click', () => { open(); select(number); });
    markers.addLayer(dot);
  });
}

/** Go to a suspect. */
async function select(number, move = true) {
  at = number;
  const row = rows[at];
  state.rank = row.rank;
  change('suspect');
  if (move) focusOn();
  try {
    const geometry = await ask(`api/audits/${state.audit}/${row.fid}`);
    if (rows[at] !== row) return; // gone on meanwhile
    outline?.remove();
    outline = L.layerGroup(['suspect-halo', 'suspect'].map((className) => L.geoJSON(geometry, { interactive: false, style: { className, fill: false } }))).addTo(map);
  } catch (error) {
    tell(error.message, true);
  }
}

/** Bring the suspect into view, with some ground around it. */
export function focusOn() {
  if (at < 0) return;
  const [west, south, east, north] = rows[at].bounds;
  fit(L.latLngBounds([south, west], [north, east]).pad(1.2), 17);
}

/** The next or previous suspect, or the next without a verdict. */
export function go(steps, onlyOpen = false) {
  if (!rows.length) return;
  if (!onlyOpen) {
    select((Math.max(at, steps > 0 ? -1 : 0) + steps + rows.length) % rows.length);
    return;
  }
  const order = rows.map((_, n) => (at + 1 + n) % rows.length);
  const next = order.find((n) => !rows[n].verdict);
  if (next === undefined) tell('Every suspect has a verdict.');
  else select(next);
}

/** Write a verdict (null takes it back) and go on. */
export async function judge(verdict, remark) {
  if (at < 0) { go(1); return; }
  const row = rows[at];
  try {
    const body = JSON.stringify(remark === undefined ? { verdict } : { verdict, remark });
    await ask(`api/audits/${state.audit}/${row.fid}`, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body });
  } catch (error) {
    tell(error.message, true);
    return;
  }
  Object.assign(row, { verdict }, remark === undefined ? {} : { remark });
  mark();
  draw();
  if (remark !== undefined) tell('Remark saved.');
  else if (verdict) { tell(`${WORDS[verdict][0]}ed`.replace('Unsureed', 'Unsure') + ': saved.'); if (rows[at] === row) go(1, true); }
  else tell('Verdict taken back.');
}

function draw() {
  const decided = rows.filter((row) => row.verdict).length;
  const parts = [
    el('div', { class: 'progress', title: `${decided} of ${rows.length} judged` }, el('i', { style: { width: `${(100 * decided) / Math.max(rows.length, 1)}%` } })),
    el('p', { class: 'count' }, `${decided} of ${rows.length} judged`),
  ];
  if (at < 0) parts.push(el('button', { class: 'primary', onclick: () => go(1, true) }, 'Start'));
  else parts.push(...suspect(rows[at]), steps());
  byId('audit').replaceChildren(...parts);
}

function suspect(row) {
  const facts = [
    row.confidence == null ? null : `confidence ${Math.round(row.confidence * (row.confidence <= 1 ? 100 : 1))} %`,
    row.area_m2 == null ? null : `${(row.area_m2 / 10000).toFixed(2)} ha`,
    row.score == null ? null : `score ${Number(row.score).toLocaleString('en', { maximumSignificantDigits: 3 })}`,
  ].filter(Boolean);
  return [
    el('h3', { class: 'rank', 'data-rank': row.rank }, `Suspect ${row.rank}`, el('span', { class: `badge ${row.verdict ?? 'open'}` }, row.verdict ?? 'open')),
    el('table', { class: 'facts' }, side('label', row.label, row.label_name), side('model', row.predicted, row.predicted_name)),
    el('p', { class: 'count' }, facts.join(' · ')),
    el('div', { class: 'verdicts' }, Object.entries(WORDS).map(([verdict, [word, meaning, key]]) => el('button', {
      class: verdict, 'data-verdict': verdict, 'aria-pressed': String(row.verdict === verdict), title: `${meaning} (${key})`, onclick: () => judge(verdict),
    }, el('b', {}, word), el('small', {}, meaning)))),
    ...('remark' in row ? [remark(row)] : []),
  ];
}

function side(name, code, words) {
  const c = classOf(code);
  return el('tr', {}, el('th', {}, name), el('td', { class: 'class' }, c ? swatch(c.colour) : '', words ?? c?.name ?? String(code ?? '?')));
}

function remark(row) {
  const field = el('input', { type: 'text', maxlength: 2000, placeholder: 'remark', 'aria-label': 'remark', value: row.remark ?? '' });
  field.addEventListener('change', () => judge(row.verdict ?? null, field.value));
  return field;
}

function steps() {
  return el('div', { class: 'steps' },
    el('button', { onclick: () => go(-1), title: 'previous (p)' }, '‹ Previous'), el('button', { onclick: () => focusOn(), title: 'zoom to it (z)', 'aria-label': 'zoom to it' }, icon('target')),
    el('button', { onclick: () => go(1), title: 'next (n)' }, 'Next ›'), el('button', { onclick: () => go(1, true), title: 'next without a verdict (o)' }, 'Next open'),
    el('button', { onclick: () => judge(null), title: 'take the verdict back (x)' }, 'Undo'));
}
