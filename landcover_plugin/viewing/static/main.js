// The page: asks what there is, then shows it.
import { startAudit } from './audit.js';
import { ask, byId, tell } from './dom.js';
import { followKeys } from './keys.js';
import { map, show } from './map.js';
import { makePanels } from './panels.js';
import { followClicks } from './point.js';
import { begin, change, on, readHash, state } from './state.js';

/** Tabs of narrow screens: one panel at a time. */
function followTabs() {
  const { body } = document;
  const open = (tab) => {
    body.dataset.tab = tab;
    for (const button of document.querySelectorAll('#tabs button')) button.setAttribute('aria-pressed', String(button.dataset.tab === tab));
  };
  for (const button of document.querySelectorAll('#tabs button')) {
    button.addEventListener('click', () => {
      if (button.dataset.tab === 'point' && byId('panel-point').hidden) tell('Tap the map to ask for a point.');
      else open(body.dataset.tab === button.dataset.tab ? '' : button.dataset.tab);
    });
  }
  document.querySelector('#tabs [data-tab=audit]').hidden = !state.audit;
  return open;
}

function followSwipe() {
  const button = document.querySelector('[data-do=swipe]');
  const update = () => button.setAttribute('aria-pressed', String(state.swipe !== null));
  on('swipe', update);
  update();
}

async function main() {
  begin(await ask('api/scene'));
  byId('version').textContent = state.scene.version;
  const view = readHash(window.location.hash);
  const open = followTabs();
  if (state.audit) byId('panel-audit').hidden = false;
  show(view);
  makePanels();
  followClicks(() => open('point'));
  followKeys();
  followSwipe();
  window.addEventListener('hashchange', () => { // an address pasted into the open page
    const there = readHash(window.location.hash);
    if (there) map.setView([there.lat, there.lng], there.zoom);
    for (const name of ['layers', 'bands', 'classes', 'swipe']) change(name);
  });
  await startAudit(() => open('audit'));
  document.body.dataset.ready = 'yes';
}

main().catch((error) => tell(error.message, true));
