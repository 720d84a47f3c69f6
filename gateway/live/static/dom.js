// The few helpers that take the place of a framework. Text goes in as text, never as markup.

export const byId = (id) => document.getElementById(id);

/** An element with properties (`class`, `text`, aria and other attributes) and children. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value;
    else if (name === "class") element.className = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Set a text only if it is another one: a write that changes nothing still costs a layout. */
export function setText(element, text) {
  const wanted = String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

export function setAttribute(element, name, value) {
  const wanted = String(value);
  if (element.getAttribute(name) !== wanted) element.setAttribute(name, wanted);
}

export function show(element, visible) {
  if (element.hidden === visible) element.hidden = !visible;
}

/** The value of a CSS variable of the theme. */
export const themed = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Make `parent` have exactly so many children, made by `create`; gives them. */
export function children(parent, wanted, create) {
  while (parent.children.length > wanted) parent.lastElementChild.remove();
  while (parent.children.length < wanted) parent.append(create(parent.children.length));
  return parent.children;
}

/** Give a <select> these options, keeping the choice. */
export function options(select, values, words) {
  const same = select.options.length === values.length && values.every((value, at) => select.options[at].value === value);
  if (same) return;
  const chosen = select.value;
  select.replaceChildren(...values.map((value) => make("option", { value, text: words(value) })));
  if (values.includes(chosen)) select.value = chosen;
}
