/** How the page is put together: elements whose texts are texts, and amounts as people read them. */

export const byId = (id) => document.getElementById(id);

/** An element with properties and children; texts are texts, never HTML. */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  const { dataset = {}, ...others } = properties;
  Object.assign(made, others);
  Object.assign(made.dataset, dataset);
  made.append(...children.filter((child) => child !== null && child !== ''));
  return made;
}

export const seconds = (value, digits = 1) => `${value.toFixed(digits)} s`;
export const plural = (count, noun) => `${count} ${noun}${count === 1 ? '' : 's'}`;
export const fileSize = (bytes) =>
  bytes < 999_500 ? `${Math.max(1, Math.round(bytes / 1000))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;

/** US dollars with two to four decimals. */
export function dollars(value) {
  if (typeof value !== 'number') return 'not known';
  if (value > 0 && value < 0.0001) return 'under $0.0001';
  return `$${value.toFixed(4).replace(/0{1,2}$/, '')}`;
}

/** A button that copies `text`, or selects `shown` where the browser does not let the page copy. */
export function copyButton(text, what, shown, announce) {
  const button = element('button', { type: 'button', className: 'link' }, 'Copy');
  button.setAttribute('aria-label', `Copy: ${what}`);
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = 'Copied';
      announce(`Copied: ${what}.`);
    } catch {
      // Browsers allow it on safe sites only, and not when the visitor has refused it.
      getSelection().selectAllChildren(shown);
      button.textContent = 'Selected: copy it from there';
      announce(`The browser does not let the page copy. Selected instead: ${what}.`);
    }
  });
  return button;
}
