// The document: elements made and kept without ever reading text as HTML.

import { formatAge, formatDate, formatId, NOTHING, readTime, shortenId } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** An element; strings among the children become text, functions listen to events. */
export function make(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function makeSvg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

/** Text is only set where it changed, so that a selection in it survives an update. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setAttribute(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

export function setHidden(node, isHidden) {
  if (node.hidden !== isHidden) node.hidden = isHidden;
}

/** Show an image id in an element: short, and whole on hovering. */
export function setId(node, id) {
  setText(node, shortenId(id));
  setAttribute(node, "title", formatId(id));
}

/** Show how long ago something was, and when on hovering. */
export function setAge(node, value, now) {
  const time = readTime(value);
  setText(node, time ? formatAge(time, now) : NOTHING);
  setAttribute(node, "title", time ? formatDate(time) : null);
}

/**
 * Make a parent's children match a list, keeping those that are there already, and
 * with them the focus.
 *
 * @param keyOf gives what makes an item the same from one update to the next.
 * @param makeRow makes an element for an item; it may keep parts of it as properties.
 * @param fillRow shows an item in its element.
 */
export function keepRows(parent, items, keyOf, makeRow, fillRow) {
  const old = parent.keptRows ?? new Map();
  const kept = new Map();
  for (const item of items) {
    let key = keyOf(item);
    while (kept.has(key)) key += " again"; // variants of an image share its id
    const row = old.get(key) ?? makeRow(item);
    kept.set(key, row);
    fillRow(row, item);
  }
  for (const [key, row] of old) if (!kept.has(key)) row.remove();
  let place = parent.firstElementChild;
  for (const row of kept.values()) {
    if (row === place) place = place.nextElementSibling;
    else parent.insertBefore(row, place);
  }
  parent.keptRows = kept;
}

/** A table cell that is kept as a property of its row. */
export function addCell(row, name, attributes = {}, tag = "td") {
  row[name] = make(tag, attributes);
  row.append(row[name]);
  return row[name];
}

/** Say something once to those who do not see the page change. */
export function announce(text) {
  const region = byId("announcement");
  region.textContent = "";
  // A reader speaks what changes after the region was seen empty.
  setTimeout(() => {
    region.textContent = text;
  }, 50);
}

/** Say how an action ended, on the page too. */
export function notify(text, isBad = false) {
  const note = byId("note");
  note.classList.toggle("bad", isBad);
  setText(byId("note-text"), text);
  setHidden(note, false);
  announce(text);
  clearTimeout(note.timer);
  if (!isBad) note.timer = setTimeout(() => setHidden(note, true), 8000);
}
