// The name timeline: who each node shows as the owner of one name, and who believes it of themselves.

const LANE = 24;
const GAP = 5;
const TOP = 26;

/** One colour per owner of the chosen name, the same in every system. */
let colours = new Map();

function chooseName(name) {
  view.name = name;
  colours = new Map();
  for (const system of data.systems) {
    const lanes = lanesOf(system);
    if (!lanes) continue;
    const owners = [...lanes.owners.map((lane) => lane.owner), ...lanes.nodes.flat().map((segment) => segment[2])];
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
      const double = lanes.duplicates.reduce((sum, [from, to]) => sum + to - from, 0);
      return `Who owns ${lanes.name} on ${system.name}: ${double ? `two owners at once for ${duration(double)}` : "never two owners at once"}`;
    };
    chart(el("p-names"), system, null, height, (c) => paintLanes(c, system, lanesOf(system), ownersTop()), tell, label);
    charts[charts.length - 1].panel = "p-names";
  }
}

function paintLanes(c, system, lanes, ownersTop) {
  const lane = (at) => TOP + at * (LANE + GAP);
  system.nodes.forEach((id, at) => {
    draw(c.all, "text", { x: c.left - 8, y: lane(at) + 16, "text-anchor": "end" }, `node ${id}`);
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
  lanes.nodes.forEach((segments, at) => segments.forEach((segment) => bar(c, lane(at) + 2, LANE - 4, ...segment)));
  lanes.owners.forEach((of, at) => {
    const y = ownersTop + at * (LANE + GAP);
    const text = draw(c.all, "text", { x: c.left - 8, y: y + 16, "text-anchor": "end" }, fitting(of.owner, c.left - 10, 6.6));
    draw(text, "title", {}, of.owner);
    draw(c.area, "rect", { class: "lane", x: 0, y: y + 5, width: c.width, height: LANE - 10, rx: 4 });
    for (const grant of of.grants) paintGrant(c, y, of.owner, grant);
  });
  if (lanes.more_owners) draw(c.all, "text", { class: "legend-text", x: c.left + c.width, y: ownersTop - 11, "text-anchor": "end" }, `and ${many(lanes.more_owners, "owner")} more`);
  frameDouble(c, lanes);
  paintResolutions(c, lanes, ownersTop);
}

function bar(c, y, tall, from, to, owner) {
  const [a, b] = [c.x(from), c.x(to)];
  if (b < 0 || a > c.width) return;
  const wide = Math.max(2, b - a);
  draw(c.area, "rect", { x: a, y, width: wide, height: tall, rx: Math.min(4, wide / 2), fill: colourOf(owner) });
  const shown = Math.min(b, c.width) - Math.max(a, 0) - 12;
  const text = fitting(owner, shown, 7.1);
  if (text) draw(c.area, "text", { class: "seg-text", x: Math.max(a, 0) + 6, y: y + tall / 2 + 4.5 }, text);
}

/** Dashed from the asking to the answer, solid from the answer to the end of the belief. */
function paintGrant(c, y, owner, grant) {
  const [asked, acked, until] = [grant.asked, grant.acked, grant.until].map(c.x);
  draw(c.area, "rect", { class: "asked", x: asked, y: y + 6, width: Math.max(1, acked - asked), height: LANE - 12, stroke: colourOf(owner) });
  draw(c.area, "rect", { x: acked, y: y + 5, width: Math.max(2, until - acked), height: LANE - 10, rx: 3, fill: colourOf(owner) });
  if (grant.end === "lost" || grant.end === "gone") {
    const [x, middle] = [until, y + LANE / 2];
    draw(c.area, "circle", { class: "end-lost", cx: x, cy: middle, r: 7.5 });
    draw(c.area, "path", { class: "end-lost-x", d: `M${x - 3} ${middle - 3}l6 6m0 -6l-6 6` });
  }
}

/** Behind the lanes, so that they stay readable; the frame goes on top. */
function paintDouble(c, lanes) {
  for (const [from, to] of lanes.duplicates) {
    draw(c.area, "rect", { class: "double", x: c.x(from), y: 17, width: Math.max(3, c.x(to) - c.x(from)), height: c.drawn - 19 });
  }
}

function frameDouble(c, lanes) {
  c.taken = [];
  lanes.duplicates.forEach(([from, to], at) => {
    const [a, b] = [c.x(from), c.x(to)];
    const wide = Math.max(3, b - a);
    draw(c.area, "rect", { class: "double-frame", x: a, y: 18, width: wide, height: c.drawn - 20 });
    draw(c.area, "rect", { class: "double-edge", x: a, y: 16, width: wide, height: 4 });
    const start = Math.max(a, 0);
    if (b <= 0 || a >= c.width || c.taken.some((end) => start < end)) return;
    const room = Math.min(c.width, lanes.duplicates[at + 1] ? c.x(lanes.duplicates[at + 1][0]) : c.width) - start;
    const long = `two owners · ${duration(to - from)}`;
    const text = long.length * 7.2 <= room ? long : duration(to - from);
    draw(c.area, "text", { class: "double-text", x: start, y: 11 }, text);
    c.taken.push(start + text.length * 7.2 + 8);
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
      draw(c.area, "circle", { class: "end-won", cx: x, cy: middle, r: 7.5 });
      draw(c.area, "path", { class: "end-won-v", d: `M${x - 3.4} ${middle}l2.4 3l4.4 -5.6` });
    }
  }
  // One label for all losers that were told at about the same time.
  let last = -1e9;
  // Labels of double ownership stand in the same line, and came first.
  const clear = (x) => Math.max(x, ...c.taken.filter((end) => end > x && end - x < 140));
  for (const { at, winner } of [...lanes.resolutions].sort((a, b) => a.at - b.at)) {
    const x = c.x(at);
    if (x - last < 120 || x < 0 || x > c.width) continue;
    last = x;
    const text = `✓ ${winner} keeps it`;
    const flip = c.width - x < text.length * 7 + 10;
    draw(c.area, "text", { class: "settled-text", x: flip ? x - 6 : clear(x) + 6, y: 11, "text-anchor": flip ? "end" : "start" }, text);
  }
}

function tellLane(system, lanes, t, y, ownersTop) {
  if (!lanes) return [];
  const lines = [];
  const double = lanes.duplicates.find(([from, to]) => from <= t && t <= to);
  if (y < ownersTop - 6) {
    const at = Math.floor((y - TOP) / (LANE + GAP));
    const of = (segments) => segments.find(([from, to]) => from <= t && t <= to)?.[2] ?? "nobody";
    if (at >= 0 && at < system.nodes.length) lines.push(`node ${system.nodes[at]} shows: ${of(lanes.nodes[at])}`);
    else system.nodes.forEach((id, n) => lines.push(`node ${id}: ${of(lanes.nodes[n])}`));
  } else {
    const lane = lanes.owners[Math.floor((y - ownersTop) / (LANE + GAP))];
    const grant = lane?.grants.find((g) => g.asked <= t && t <= g.until);
    if (grant) {
      const where = grant.node === null ? "" : ` by node ${grant.node}`;
      lines.push(`${lane.owner}: ${t < grant.acked ? "asked for it" : `was granted it${where} at ${seconds(grant.acked, 2)}`}`, `token ${grant.token}`);
      if (grant.end) lines.push(`${grant.end} at ${seconds(grant.until, 2)}`);
    } else if (lane) lines.push(`${lane.owner} does not hold it`);
  }
  if (double) lines.push(`two owners at once, ${seconds(double[0], 2)} to ${seconds(double[1], 2)}`);
  const near = lanes.resolutions.find((r) => Math.abs(r.at - t) < (view.to - view.from) / 80);
  if (near) lines.push(`settled: ${near.winner} keeps it, ${near.loser} is told (record ${near.id})`);
  return lines;
}
