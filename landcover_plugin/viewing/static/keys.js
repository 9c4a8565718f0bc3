// The keys, and the overlay that tells them.
import { focusOn, go, judge } from './audit.js';
import { byId, el, icon } from './dom.js';
import { fit, peek, toggleSwipe } from './map.js';
import { listed, nextCombination, showClasses, toggleLayer } from './panels.js';
import { closePoint, copyText } from './point.js';
import { change, state } from './state.js';

export const ACTIONS = {
  swipe: toggleSwipe,
  fit: () => fit(),
  link: () => copyText(window.location.href),
  help: () => (byId('help').open ? byId('help').close() : byId('help').showModal()),
  all: () => showClasses(true),
  none: () => showClasses(false),
  'close-point': closePoint,
};

function moveDivider(by) {
  if (state.swipe === null) return;
  state.swipe = Math.min(Math.max(state.swipe + by, 0), 1);
  change('swipe');
}

function fade(by) {
  const top = listed().map((l) => state.layers.get(l.id)).find((l) => l.on);
  if (!top) return;
  top.opacity = Math.min(Math.max(top.opacity + by, 0), 100);
  change('layers');
}

const audited = (action) => () => { if (state.audit) action(); };

/** What the overlay names, what it says, and what each key does; the map itself follows + - and arrows. */
const KEYS = [
  ['1 … 9', 'layers on and off', {}],
  ['[ ]', 'topmost layer fainter, stronger', { '[': () => fade(-10), ']': () => fade(10) }],
  ['i', 'image alone, and back', { i: peek }],
  ['b', 'next combination of bands', { b: nextCombination }],
  ['s', 'swipe on and off', { s: ACTIONS.swipe }],
  [', .', 'divider to the left, right', { ',': () => moveDivider(-0.05), '.': () => moveDivider(0.05) }],
  ['f', 'show everything', { f: ACTIONS.fit }],
  ['+ - arrows', 'zoom and move', {}],
  ['c', 'copy the address of this view', { c: ACTIONS.link }],
  ['Esc', 'close the point', { Escape: closePoint }],
  ['n p', 'next, previous suspect', { n: audited(() => go(1)), p: audited(() => go(-1)) }],
  ['o', 'next suspect without a verdict', { o: audited(() => go(1, true)) }],
  ['z', 'zoom to the suspect', { z: audited(focusOn) }],
  ['a', 'accept: the label is wrong, or the ground has changed', { a: audited(() => judge('accept')) }],
  ['r', 'reject: the label is right', { r: audited(() => judge('reject')) }],
  ['u', 'unsure: cannot be told', { u: audited(() => judge('unsure')) }],
  ['x', 'take the verdict back', { x: audited(() => judge(null)) }],
  ['?', 'these keys', { '?': ACTIONS.help }],
];

/** Listen to keys and buttons. */
export function followKeys() {
  byId('keys').append(...KEYS.flatMap(([key, words]) => [el('dt', {}, el('kbd', {}, key)), el('dd', {}, words)]));
  const actions = Object.assign({}, ...KEYS.map(([, , doing]) => doing));
  document.addEventListener('keydown', (event) => {
    const typing = event.target.matches('input[type=text], select, textarea');
    if (typing || event.ctrlKey || event.metaKey || event.altKey || (byId('help').open && event.key !== '?')) return;
    const layer = /^[1-9]$/.test(event.key) ? listed()[Number(event.key) - 1] : null;
    if (layer) toggleLayer(layer.id);
    else if (actions[event.key]) actions[event.key]();
    else if (event.target.id === 'divider' && event.key.startsWith('Arrow')) moveDivider(event.key === 'ArrowLeft' ? -0.02 : 0.02);
    else return;
    event.preventDefault();
  });
  for (const place of document.querySelectorAll('[data-icon]')) place.replaceWith(icon(place.dataset.icon));
  for (const button of document.querySelectorAll('[data-do]')) {
    button.addEventListener('click', () => ACTIONS[button.dataset.do]());
  }
}
