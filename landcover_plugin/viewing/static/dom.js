// Elements without HTML text: names of files and remarks are data, never markup.

/** An element with attributes and children; `on…` attributes are listeners, `style` is an object. */
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for SVG. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else if (key === 'style') Object.entries(value).forEach(([k, v]) => node.style.setProperty(k, v));
    else if (value === true) node.setAttribute(key, '');
    else if (value !== false && value != null) node.setAttribute(key, value);
  }
  node.append(...children.flat().filter((child) => child != null));
  return node;
}

const ICONS = {
  swipe: 'M3 4h14v12H3z M10 2v16 M10 4h7v12h-7z',
  fit: 'M3 8V3h5 M12 3h5v5 M17 12v5h-5 M8 17H3v-5',
  link: 'M7 7V3h10v10h-4 M3 7h10v10H3z',
  target: 'M10 2v5 M10 13v5 M2 10h5 M13 10h5 M10 10h.01',
};

/** A small drawing: fonts lack many signs. */
export const icon = (name) => svg('svg', { viewBox: '0 0 20 20', class: 'icon', 'aria-hidden': 'true' }, svg('path', { d: ICONS[name] }));

export const byId = (id) => document.getElementById(id);

let fading;
/** Tell something for a few seconds. */
export function tell(text, isError = false) {
  const toast = byId('toast');
  toast.textContent = text;
  toast.className = isError ? 'shown error' : 'shown';
  clearTimeout(fading);
  fading = setTimeout(() => { toast.className = ''; }, isError ? 9000 : 2500);
}

/** JSON of the server; an Error with its sentence if it refuses. */
export async function ask(url, options) {
  let answer;
  try {
    answer = await fetch(url, options);
  } catch {
    throw new Error('landcover view does not answer any more: was it stopped?');
  }
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}
