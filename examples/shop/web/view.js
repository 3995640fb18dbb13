// Small helpers to build the page. Text always goes in as text, never as markup.

export const $ = (id) => document.getElementById(id);

/** An element with properties and children; strings become text. */
export function el(tag, properties = {}, ...children) {
  const { dataset, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, dataset ?? {});
  element.append(...children);
  return element;
}

export const money = (cents) => (cents / 100).toLocaleString(undefined, { style: "currency", currency: "EUR" });

/** Shows what went wrong where the data would be; without a failure hides it. */
export function trouble(element, failure) {
  element.hidden = failure === undefined;
  if (failure !== undefined) element.replaceChildren(el("code", {}, failure.reason), ` ${failure.message ?? ""}`);
}

/** One hue for one instance, the same everywhere on the page. */
export function hue(instance) {
  let hash = 7;
  for (const letter of instance) hash = (hash * 31 + letter.charCodeAt(0)) % 9973;
  return Math.round((hash * 137.5) % 360); // steps of the golden angle keep neighbours such as users-1 and users-2 apart
}

/** The name of an instance as a coloured chip. */
export function chip(instance) {
  const element = el("span", { className: "chip" }, instance.replace(/@.*$/, ""));
  element.style.setProperty("--hue", hue(instance));
  element.title = instance;
  return element;
}
