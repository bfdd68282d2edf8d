"use strict";
// The page is whole without this script. It adds: zooming the timeline, one suggestion shown large, filters, contours, keys.
// Files are joined in this order: page, timeline, contour, viewer, events, keys. Each defines one object that the later ones use.
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const byId = (id) => document.getElementById(id);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

document.documentElement.classList.add("js");

// Arrays come as base64: exact, and a tenth of what numbers in text would take.
function decode(text, Type) {
  const bytes = Uint8Array.from(atob(text || ""), (letter) => letter.charCodeAt(0));
  return new Type(bytes.buffer);
}

// hh:mm:ss, cut and not rounded, as players show it.
function clock(seconds, tenths) {
  const deci = Math.floor(Math.round(seconds * 1e6) / 1e5);
  const two = (value) => String(Math.floor(value)).padStart(2, "0");
  const text = `${two(deci / 36000)}:${two(deci / 600 % 60)}:${two(deci / 10 % 60)}`;
  return tenths ? `${text}.${deci % 10}` : text;
}
