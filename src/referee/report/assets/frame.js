"use strict";
// The frame that all charts share: one time axis, one line under the pointer, one tooltip.

const data = JSON.parse(document.getElementById("data").textContent);
const el = (id) => document.getElementById(id);
const SVG = document.querySelector("svg").namespaceURI;

/** What is looked at: a stretch of time in milliseconds, a name, and the systems whose charts are hidden. */
const view = { from: 0, to: data.end, name: null, hidden: new Set() };
const charts = [];
/** With more systems than this side by side everything is drawn smaller. */
const MANY = 4;
const crowded = data.systems.length + data.skipped.length > MANY;
const scaled = (height) => (crowded ? Math.round(height * 0.62) : height);

/** Left of the plot lie the labels of lanes and axes; the same width everywhere, or the axes would not line up. */
const margins = () => ({ left: window.innerWidth < 720 ? 58 : 84, right: 10 });

function node(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function draw(parent, tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

const seconds = (ms, digits = 1) => `${(ms / 1000).toFixed(digits)} s`;
const duration = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : seconds(ms));
const many = (n, noun, nouns = `${noun}s`) => `${n} ${n === 1 ? noun : nouns}`;

/** Steps of 1, 2 or 5 times a power of ten, about `wanted` of them. */
function ticks(from, to, wanted) {
  const raw = (to - from) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= raw);
  const list = [];
  for (let t = Math.ceil(from / step) * step; t <= to + 1e-9; t += step) list.push(Math.round(t * 1000) / 1000);
  return list;
}

/**
 * One chart in one row: `paint(c)` draws, `tell(t, y, c)` says what is under the pointer, as lines of text.
 * `c` holds the clipped plot area `area`, what lies behind it `back`, the whole drawing `all`, `x(t)`, `width`, `drawn` (the plot's height) and `left`.
 */
function chart(panel, system, note, height, paint, tell, label, title = system.name) {
  const plot = node("div", { class: "plot" });
  const who = node("div", { class: "who" }, title, note ? node("small", {}, note) : null);
  const row = node("div", { class: "row", "data-system": system.name }, who, plot);
  panel.querySelector(".rows").append(row);
  const made = { plot, row, system, height, paint, tell, label, panel: panel.id };
  charts.push(made);
  return made;
}

/** One drawing for all marks of a kind: a thousand of them are still one element. */
const box = (x, y, wide, tall) => `M${x.toFixed(1)} ${y.toFixed(1)}h${wide.toFixed(1)}v${tall.toFixed(1)}h${(-wide).toFixed(1)}z`;

function render() {
  const { left, right } = margins();
  for (const it of charts) {
    it.plot.replaceChildren();
    it.row.hidden = it.always ? false : view.hidden.has(it.system.name);
    if (it.row.hidden) continue;
    const full = it.plot.clientWidth;
    const width = Math.max(60, full - left - right);
    const height = typeof it.height === "function" ? it.height() : it.height;
    const svg = draw(it.plot, "svg", { width: full, height: height + 24, viewBox: `0 0 ${full} ${height + 24}`, role: "img", "aria-label": it.label() });
    const x = (t) => ((t - view.from) / (view.to - view.from)) * width;
    for (const t of ticks(view.from, view.to, width / 90)) {
      draw(svg, "line", { class: "grid", x1: left + x(t), x2: left + x(t), y1: 0, y2: height });
      draw(svg, "text", { class: "tick", x: left + x(t), y: height + 16, "text-anchor": "middle" }, `${t / 1000} s`);
    }
    const back = draw(svg, "g", {});
    const area = draw(svg, "svg", { x: left, y: 0, width, height });
    Object.assign(it, { x, width, left, drawn: height, area, back, all: svg });
    bands(it);
    it.paint(it);
    it.cross = draw(area, "line", { class: "cross", y1: 0, y2: height, visibility: "hidden" });
    it.dragged = draw(area, "rect", { class: "drag", y: 0, height, visibility: "hidden" });
  }
  el("range").textContent = view.from === 0 && view.to === data.end ? "" : `${seconds(view.from)} to ${seconds(view.to)}`;
}

/** The faults behind every chart. */
function bands(c) {
  for (const fault of c.system.faults) {
    if (fault.state === "skipped") continue;
    const from = c.x(fault.from_ms);
    const to = c.x(fault.to_ms ?? data.end);
    draw(c.area, "rect", { class: "band", x: from, y: 0, width: Math.max(1, to - from), height: c.drawn });
    if (fault.nodes.length) draw(c.area, "rect", { class: "band-stop", x: from, y: 0, width: Math.max(1, to - from), height: c.drawn });
    for (const x of [from, to]) draw(c.area, "line", { class: "band-edge", x1: x, x2: x, y1: 0, y2: c.drawn });
  }
}

/** Text, cut to what fits; none if hardly anything does. */
function fitting(text, width, per = 6.9) {
  const room = Math.floor(width / per);
  if (text.length <= room) return text;
  return room >= 3 ? `${text.slice(0, room - 1)}…` : "";
}

// --- the line, the tooltip, and zooming

let pointed = null;

function point(c, t, y, at) {
  pointed = t;
  for (const other of charts.filter((it) => !it.row.hidden)) {
    const x = other.x(t);
    other.cross.setAttribute("x1", x);
    other.cross.setAttribute("x2", x);
    other.cross.setAttribute("visibility", "visible");
  }
  const tip = el("tip");
  const faults = c.system.faults.filter((f) => f.state !== "skipped" && f.from_ms <= t && t <= (f.to_ms ?? data.end));
  const lines = c.tell(t, y, c);
  tip.replaceChildren(node("b", {}, `${seconds(t, 2)} · ${c.system.name}`));
  for (const line of [...lines, ...faults.map((f) => `fault: ${faultTitle(f)}`)]) tip.append(node("div", {}, line));
  tip.hidden = false;
  const size = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(8, at.x + 18 + size.width > window.innerWidth ? at.x - 18 - size.width : at.x + 18)}px`;
  tip.style.top = `${Math.max(8, Math.min(at.y + 14, window.innerHeight - size.height - 8))}px`;
}

function unpoint() {
  pointed = null;
  el("tip").hidden = true;
  for (const c of charts) c.cross?.setAttribute("visibility", "hidden");
}

function look(from, to) {
  const least = Math.min(200, data.end);
  const span = Math.max(least, Math.min(data.end, to - from));
  view.from = Math.max(0, Math.min(from, data.end - span));
  view.to = view.from + span;
  unpoint();
  render();
  if (el("of-time").checked) showAnomalies();
}

function zoom(factor, around = (view.from + view.to) / 2) {
  look(around - (around - view.from) * factor, around + (view.to - around) * factor);
}

function listen() {
  let drag = null;
  const place = (event) => {
    const plot = event.target.closest && event.target.closest(".plot");
    const c = charts.find((it) => it.plot === plot && !it.row.hidden);
    if (!c) return null;
    const place = plot.getBoundingClientRect();
    const inside = Math.max(0, Math.min(c.width, event.clientX - place.left - c.left));
    return { c, t: view.from + (inside / c.width) * (view.to - view.from), y: event.clientY - place.top, at: { x: event.clientX, y: event.clientY } };
  };
  const panels = el("panels");
  panels.addEventListener("pointermove", (event) => {
    const p = place(event);
    if (!p) return drag ? undefined : unpoint();
    point(p.c, p.t, p.y, p.at);
    if (!drag) return;
    const [a, b] = [drag.t, p.t].sort((m, n) => m - n);
    for (const c of charts.filter((it) => !it.row.hidden)) {
      c.dragged.setAttribute("x", c.x(a));
      c.dragged.setAttribute("width", c.x(b) - c.x(a));
      c.dragged.setAttribute("visibility", "visible");
    }
  });
  panels.addEventListener("pointerleave", unpoint);
  panels.addEventListener("pointerdown", (event) => { if (event.button === 0 && event.pointerType === "mouse") drag = place(event); });
  window.addEventListener("pointerup", (event) => {
    const p = drag && place(event);
    const began = drag;
    drag = null;
    for (const c of charts) c.dragged?.setAttribute("visibility", "hidden");
    if (p && Math.abs(p.at.x - began.at.x) > 8) look(Math.min(began.t, p.t), Math.max(began.t, p.t));
  });
  panels.addEventListener("dblclick", () => look(0, data.end));
  panels.addEventListener("keydown", (event) => {
    if (event.target !== panels) return;
    const step = (view.to - view.from) / 100;
    const open = charts.filter((c) => !c.row.hidden);
    const chosen = open.find((c) => c.panel === "p-names") || open[0];
    const moves = { ArrowLeft: -step, ArrowRight: step, Home: -data.end, End: data.end };
    if (event.key in moves) {
      const t = Math.max(view.from, Math.min(view.to, (pointed ?? (view.from + view.to) / 2) + moves[event.key]));
      const place = chosen.plot.getBoundingClientRect();
      point(chosen, t, 30, { x: place.left + chosen.left + chosen.x(t), y: Math.max(60, place.top + 20) });
    } else if (event.key === "+" || event.key === "=") zoom(0.5, pointed ?? undefined);
    else if (event.key === "-") zoom(2, pointed ?? undefined);
    else if (event.key === "0") look(0, data.end);
    else if (event.key === "Escape") unpoint();
    else return;
    event.preventDefault();
  });
}
