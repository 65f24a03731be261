// The name timeline: who each node shows as the owner of one name, and who believes it of themselves.

const LANE = crowded ? 17 : 24;
const GAP = crowded ? 4 : 5;
const TOP = 26;
/** Above and below a bar in an owner's lane: narrow lanes have no room to give away, or their labels would not fit. */
const INSET = crowded ? 2 : 4;

/** One colour per owner of the chosen name, the same in every system. */
let colours = new Map();

function chooseName(name) {
  view.name = name;
  colours = new Map();
  for (const system of data.systems) {
    const lanes = lanesOf(system);
    if (!lanes) continue;
    const owners = [...lanes.owners.map((lane) => lane.owner), ...lanes.shown.map(([owner]) => owner)];
    for (const owner of owners) if (!colours.has(owner)) colours.set(owner, colours.size % 10);
  }
  for (const span of document.querySelectorAll(".chosen")) span.textContent = name ?? "a name";
}

const lanesOf = (system) => system.names.find((lanes) => lanes.name === view.name);
const colourOf = (owner) => `var(--o${colours.get(owner) ?? 7})`;

function timelinePanel() {
  for (const system of data.systems) {
    const ownersTop = () => TOP + system.nodes.length * (LANE + GAP) + 10;
    const height = () => ownersTop() + Math.max(1, lanesOf(system)?.owners.length ?? 0) * (LANE + GAP) + 6;
    const tell = (t, y) => tellLane(system, lanesOf(system), t, y, ownersTop());
    const label = () => {
      const lanes = lanesOf(system);
      if (!lanes) return `${system.name} has nothing on this name`;
      const double = lanes.doubles.reduce((sum, [from, to]) => sum + to - from, 0);
      return `Who owns ${lanes.name} on ${system.name}: ${double ? `two owners at once for ${duration(double)}` : "never two owners at once"}`;
    };
    chart(el("p-names"), system, null, height, (c) => paintLanes(c, system, lanesOf(system), ownersTop()), tell, label);
  }
}

function paintLanes(c, system, lanes, ownersTop) {
  const lane = (at) => TOP + at * (LANE + GAP);
  system.nodes.forEach((id, at) => {
    draw(c.all, "text", { x: c.left - 8, y: lane(at) + LANE - 8 + (crowded ? 3 : 0), "text-anchor": "end" }, `node ${id}`);
    draw(c.area, "rect", { class: "lane", x: 0, y: lane(at), width: c.width, height: LANE, rx: 4 });
    for (const fault of system.faults.filter((f) => f.state !== "skipped")) {
      const cls = fault.nodes.includes(id) ? "lane-stop" : isMinority(fault, system.nodes, id) ? "lane-minority" : null;
      const [from, to] = [c.x(fault.from_ms), c.x(fault.to_ms ?? data.end)];
      if (cls) draw(c.area, "rect", { class: cls, x: from, y: lane(at) - 2, width: Math.max(1, to - from), height: LANE + 4 });
    }
  });
  draw(c.all, "line", { class: "divider", x1: 0, x2: c.left + c.width, y1: ownersTop - 7, y2: ownersTop - 7 });
  if (!lanes) {
    draw(c.area, "text", { x: 8, y: ownersTop + 16 }, "nobody registered this name here, or the page has no room for it");
    return;
  }
  paintDouble(c, lanes);
  const bars = new Bars(c);
  lanes.nodes.forEach((segments, at) => segments.forEach(([from, to, which]) => bars.solid(from, to, lane(at) + 2, LANE - 4, ...lanes.shown[which])));
  lanes.owners.forEach((of, at) => {
    const y = ownersTop + at * (LANE + GAP);
    const text = draw(c.all, "text", { x: c.left - 8, y: y + LANE - 8 + (crowded ? 3 : 0), "text-anchor": "end" }, fitting(of.owner, c.left - 10, 6.6));
    draw(text, "title", {}, of.owner);
    draw(c.area, "rect", { class: "lane", x: 0, y: y + 3, width: c.width, height: LANE - 6, rx: 4 });
    for (const grant of of.grants) {
      if (grant.acked === null) bars.hatched(grant.asked, grant.maybe, y + INSET, LANE - 2 * INSET, of.owner);
      else {
        bars.hatched(grant.asked, grant.acked, y + INSET, LANE - 2 * INSET, of.owner);
        if (grant.maybe !== null) bars.hatched(grant.until, grant.maybe, y + INSET, LANE - 2 * INSET, of.owner);
        bars.solid(grant.acked, grant.until, y + INSET, LANE - 2 * INSET, of.owner, grant.token);
      }
    }
  });
  bars.paint();
  paintCalls(c, lanes, lane);
  paintDue(c, lanes, ownersTop);
  for (const [at, of] of lanes.owners.entries()) for (const grant of of.grants) paintEnd(c, ownersTop + at * (LANE + GAP), grant);
  if (lanes.more_owners) draw(c.all, "text", { class: "legend-text", x: c.left + c.width, y: ownersTop - 11, "text-anchor": "end" }, `and ${many(lanes.more_owners, "owner")} more`);
  frameDouble(c, lanes, ownersTop);
  paintResolutions(c, lanes, ownersTop);
}

/** Solid bars for what is certain, hatched ones for what is not; one drawing per colour, and the labels that fit. */
class Bars {
  constructor(c) {
    Object.assign(this, { c, certain: new Map(), perhaps: new Map(), labels: [] });
  }

  add(to, from, until, y, tall, owner) {
    const [a, b] = [Math.max(-4, this.c.x(from)), Math.min(this.c.width + 4, this.c.x(until))];
    if (b < 0 || a > this.c.width) return null;
    const wide = Math.max(1.5, b - a);
    to.set(owner, (to.get(owner) ?? "") + box(a, y, wide, tall));
    return [a, b];
  }

  solid(from, until, y, tall, owner, token) {
    const drawn = this.add(this.certain, from, until, y, tall, owner);
    if (!drawn) return;
    const left = Math.max(drawn[0], 0);
    const room = Math.min(drawn[1], this.c.width) - left - 12;
    // The long tokens of gossip are told under the pointer.
    const long = token && token.length <= 10 ? `${owner} · ${token}` : owner;
    const text = long.length * 6.9 <= room ? long : fitting(owner, room, 7.1);
    if (text) this.labels.push([left + 6, y + tall / 2 + 4.2, text]);
  }

  hatched(from, until, y, tall, owner) {
    if (until > from) this.add(this.perhaps, from, until, y, tall, owner);
  }

  paint() {
    for (const [owner, d] of this.perhaps) {
      draw(this.c.area, "path", { class: "perhaps", d, fill: colourOf(owner), stroke: colourOf(owner) });
      draw(this.c.area, "path", { d, fill: "url(#hatch-page)" });
    }
    for (const [owner, d] of this.certain) draw(this.c.area, "path", { class: "certain", d, fill: colourOf(owner) });
    for (const [x, y, text] of this.labels) draw(this.c.area, "text", { class: "seg-text", x, y }, text);
  }
}

/** The calls made at each node, along the lower edge of its lane; one drawing per kind. */
function paintCalls(c, lanes, lane) {
  const shapes = [
    (x, y) => `M${x} ${y}h1`, (x, y) => `M${x - 2} ${y - 2}l4 4m0 -4l-4 4`, (x, y) => `M${x} ${y - 3}l3 3l-3 3l-3 -3Z`,
    (x, y) => `M${x} ${y - 3}v6`, (x, y) => `M${x - 2} ${y - 2}l4 4m0 -4l-4 4`, (x, y) => `M${x} ${y - 3}l3 3l-3 3l-3 -3Z`,
  ];
  const paths = ["", "", "", "", "", ""];
  for (const [at, row, kind] of lanes.calls) {
    const x = c.x(at);
    if (x >= 0 && x <= c.width) paths[kind] += shapes[kind](Math.round(x * 10) / 10, lane(row) + LANE - 1);
  }
  paths.forEach((d, kind) => { if (d) draw(c.area, "path", { class: `call call-${["ok", "fail", "info"][kind % 3]}`, d }); });
}

/** When each grant's lease runs out by its last answered keep-alive: one drawing for all. */
function paintDue(c, lanes, ownersTop) {
  let d = "";
  lanes.owners.forEach((of, at) => {
    for (const { due } of of.grants) {
      const [x, y] = [c.x(due), ownersTop + at * (LANE + GAP) + 1];
      if (due !== null && x >= 0 && x <= c.width) d += `M${x.toFixed(1)} ${y}v${LANE - 2}M${(x - 4).toFixed(1)} ${y}h8`;
    }
  });
  if (d) draw(c.area, "path", { class: "due", d });
}

/** Where a grant was taken from its owner, or vanished. */
function paintEnd(c, y, grant) {
  if (grant.end !== "lost" && grant.end !== "gone") return;
  const [x, middle] = [c.x(grant.until), y + LANE / 2];
  draw(c.area, "circle", { class: "end-lost", cx: x, cy: middle, r: 7 });
  draw(c.area, "path", { class: "end-lost-x", d: `M${x - 3} ${middle - 3}l6 6m0 -6l-6 6` });
}

/** Behind the lanes, so that they stay readable; the frame goes on top. */
function paintDouble(c, lanes) {
  for (const [from, to] of lanes.doubles) {
    draw(c.area, "rect", { class: "double", x: c.x(from), y: 17, width: Math.max(3, c.x(to) - c.x(from)), height: c.drawn - 19 });
  }
}

/** The stretch itself is framed; the certain bars within it, whose overlap it is, have a red edge. */
function frameDouble(c, lanes, ownersTop) {
  c.taken = [];
  lanes.doubles.forEach(([from, to, number, believed], at) => {
    const [a, b] = [c.x(from), c.x(to)];
    const wide = Math.max(3, b - a);
    draw(c.area, "rect", { class: "double-frame", x: a, y: 18, width: wide, height: c.drawn - 20 });
    draw(c.area, "rect", { class: "double-edge", x: a, y: 16, width: wide, height: 4 });
    lanes.owners.forEach((of, row) => {
      for (const grant of of.grants.filter((g) => g.acked !== null && g.acked < to && g.until > from)) {
        const [left, right] = [c.x(Math.max(from, grant.acked)), c.x(Math.min(to, grant.until))];
        draw(c.area, "rect", { class: "double-bar", x: left, y: ownersTop + row * (LANE + GAP) + 3, width: Math.max(2, right - left), height: LANE - 6 });
      }
    });
    const start = Math.max(a, 0);
    if (b <= 0 || a >= c.width || c.taken.some(([, end]) => start < end)) return;
    const room = Math.min(c.width, lanes.doubles[at + 1] ? c.x(lanes.doubles[at + 1][0]) : c.width) - start;
    const long = `${believed ? "double grant" : "two owners"} #${number} · ${duration(to - from)}`;
    const text = long.length * 7.2 <= room ? long : `#${number}`;
    draw(c.area, "text", { class: "double-text", x: start, y: 11 }, text);
    c.taken.push([start, start + text.length * 7.6 + 8]);
  });
}

function paintResolutions(c, lanes, ownersTop) {
  for (const { at, winner } of lanes.resolutions) {
    const x = c.x(at);
    if (x < 0 || x > c.width) continue;
    draw(c.area, "line", { class: "settled", x1: x, x2: x, y1: 17, y2: c.drawn });
    const row = lanes.owners.findIndex((of) => of.owner === winner);
    if (row >= 0) {
      const middle = ownersTop + row * (LANE + GAP) + LANE / 2;
      draw(c.area, "circle", { class: "end-won", cx: x, cy: middle, r: 7 });
      draw(c.area, "path", { class: "end-won-v", d: `M${x - 3.4} ${middle}l2.4 3l4.4 -5.6` });
    }
  }
  // One label for all losers that were told at about the same time. Labels of double ownership stand in the same line, and came first.
  let last = -1e9;
  for (const { at, winner } of [...lanes.resolutions].sort((a, b) => a.at - b.at)) {
    const x = c.x(at);
    if (x - last < 120 || x < 0 || x > c.width) continue;
    const text = `✓ ${winner} keeps it`;
    const wide = text.length * 7.2;
    const after = (from) => c.taken.reduce((left, [start, end]) => (left < end && start < left + wide ? end : left), from);
    const right = after(x + 6);
    const before = x - 6 - wide;
    const isFree = before >= 0 && c.taken.every(([start, end]) => end <= before || start >= x - 6);
    // Where there is no room on either side the mark in the winner's lane tells it.
    const left = right + wide <= c.width ? right : isFree ? before : null;
    if (left === null) continue;
    last = left;
    c.taken.push([left, left + wide]);
    draw(c.area, "text", { class: "settled-text", x: left, y: 11 }, text);
  }
}

function tellLane(system, lanes, t, y, ownersTop) {
  if (!lanes) return [];
  const lines = [];
  const double = lanes.doubles.find(([from, to]) => from <= t && t <= to);
  if (y < ownersTop - 6) {
    const at = Math.floor((y - TOP) / (LANE + GAP));
    const of = (segments) => {
      const shown = segments.find(([from, to]) => from <= t && t <= to);
      return shown ? lanes.shown[shown[2]].join(", token ") : "nobody";
    };
    if (at >= 0 && at < system.nodes.length) lines.push(`node ${system.nodes[at]} shows: ${of(lanes.nodes[at])}`);
    else system.nodes.forEach((id, n) => lines.push(`node ${id}: ${of(lanes.nodes[n])}`));
  } else {
    const lane = lanes.owners[Math.floor((y - ownersTop) / (LANE + GAP))];
    const grant = lane?.grants.find((g) => g.asked <= t && t <= (g.maybe ?? g.until));
    if (grant) lines.push(...tellGrant(lane.owner, grant, t));
    else if (lane) lines.push(`${lane.owner} does not hold it`);
  }
  if (double) lines.push(`${double[3] ? "double grant" : "two owners"} #${double[2]}, ${seconds(double[0], 2)} to ${seconds(double[1], 2)}`);
  const near = lanes.resolutions.find((r) => Math.abs(r.at - t) < (view.to - view.from) / 80);
  if (near) lines.push(`settled: ${near.winner} keeps it, ${near.loser} is told (record ${near.id})`);
  return lines;
}

function tellGrant(owner, grant, t) {
  if (grant.acked === null) return [`${owner} asked for it at ${seconds(grant.asked, 2)} and was never answered: perhaps it holds it`];
  if (t < grant.acked) return [`${owner} has asked for it`];
  const where = grant.node === null ? "" : ` by node ${grant.node}`;
  const lines = [`${owner}: was granted it${where} at ${seconds(grant.acked, 2)}`, `token ${grant.token}`];
  if (t > grant.until) lines.push("it is being given up: perhaps it still holds it");
  if (grant.due !== null) lines.push(`its lease runs out at ${seconds(grant.due, 2)}, by the last keep-alive`);
  if (grant.end) lines.push(`${grant.end} at ${seconds(grant.until, 2)}`);
  return lines;
}
