// Faults, availability, latency, divergence: one chart per system each.

/** The nodes by who still reaches whom, both ways: `1 2 | 3 4 5`. Null where reaching is no partition into parts. */
function parts(fault, nodes) {
  const cut = new Set(fault.cut.map(([a, b]) => `${a}-${b}`));
  const reach = (a) => nodes.filter((b) => a === b || (!cut.has(`${a}-${b}`) && !cut.has(`${b}-${a}`)));
  const texts = new Map(nodes.map((n) => [n, reach(n).join(" ")]));
  const distinct = [...new Set(texts.values())];
  const total = distinct.reduce((sum, text) => sum + text.split(" ").length, 0);
  return total === nodes.length ? distinct : null;
}

function isMinority(fault, nodes, of) {
  const blocked = (peer) => fault.cut.some(([a, b]) => (a === of && b === peer) || (a === peer && b === of));
  return fault.cut.length > 0 && nodes.filter((peer) => peer === of || !blocked(peer)).length * 2 <= nodes.length;
}

function faultTitle(fault) {
  const state = fault.state === "installed" ? "" : ` (${fault.state})`;
  const whom = fault.nodes.length ? ` node ${fault.nodes.join(", ")}` : "";
  return `${fault.kind}${whom}${state}`;
}

/** Systems by what was done to them: under one schedule that is one row for all. */
function alike() {
  const groups = new Map();
  for (const system of data.systems) {
    const met = JSON.stringify([system.nodes, system.faults.map((f) => [f.kind, f.state, f.cut, f.nodes, Math.round(f.from_ms / 500)])]);
    groups.set(met, [...(groups.get(met) || []), system]);
  }
  return [...groups.values()];
}

function faultsPanel() {
  for (const met of alike()) {
    const system = met[0];
    const title = met.length === 1 ? system.name : met.length === data.systems.length ? "all systems" : met.map((s) => s.name).join(", ");
    // Overlapping faults stand one below the other.
    const lanes = [];
    const lane = new Map();
    for (const fault of system.faults) {
      let at = lanes.findIndex((until) => until <= fault.from_ms);
      if (at < 0) at = lanes.length;
      lanes[at] = fault.to_ms ?? data.end;
      lane.set(fault, at);
    }
    const paint = (c) => {
      for (const fault of system.faults) {
        const [from, to] = [c.x(fault.from_ms), c.x(fault.to_ms ?? data.end)];
        const y = 4 + lane.get(fault) * 44;
        const kind = fault.state !== "installed" ? fault.state : fault.nodes.length ? "stop" : "cut";
        const g = draw(c.area, "g", { class: `fault ${kind}` });
        draw(g, "rect", { x: from, y, width: Math.max(2, to - from), height: 38, rx: 5 });
        if (kind === "stop") draw(g, "rect", { class: "hatch", x: from, y, width: Math.max(2, to - from), height: 38, rx: 5 });
        const left = Math.max(0, from) + 7;
        const room = to - left - 5;
        const sides = fault.cut.length ? parts(fault, system.nodes) : null;
        const state = fault.state === "installed" ? "" : ` (${fault.state})`;
        const small = fault.nodes.length ? `node ${fault.nodes.join(", ")}` : sides ? sides.join(" | ") : fault.detail;
        draw(g, "text", { x: left, y: y + 16 }, fitting(fault.kind + state, room, 6.6));
        draw(g, "text", { x: left, y: y + 31, class: "small" }, fitting(small, room, 6));
      }
    };
    const tell = (t) => system.faults.filter((f) => f.from_ms <= t && t <= (f.to_ms ?? data.end)).flatMap((f) => {
      const sides = f.cut.length ? parts(f, system.nodes) : null;
      return [sides ? `sides: ${sides.join(" | ")}` : null, f.cut.length && !sides ? `${f.cut.length} links cut` : null, f.detail || null].filter(Boolean);
    });
    const label = () => `Faults of ${system.name}: ${system.faults.map((f) => `${faultTitle(f)} from ${seconds(f.from_ms)}`).join("; ") || "none"}`;
    const made = chart(el("p-faults"), system, many(system.nodes.length, "node"), Math.max(1, lanes.length) * 44 + 4, paint, tell, label, title);
    made.always = met.length > 1;
  }
}

/** Who said of itself that it leads. Two at once: an old one has not noticed yet. */
function leadersPanel() {
  const led = data.systems.filter((s) => s.leaders.length);
  if (!led.length) return el("p-leaders").remove();
  for (const system of led) {
    const lanes = [];
    const lane = system.leaders.map(([, from, to]) => {
      let at = lanes.findIndex((until) => until <= from);
      if (at < 0) at = lanes.length;
      lanes[at] = to;
      return at;
    });
    const paint = (c) => system.leaders.forEach(([id, from, to], n) => {
      const [a, b] = [c.x(from), c.x(to)];
      draw(c.area, "rect", { class: "leads", x: a, y: 3 + lane[n] * 22, width: Math.max(2, b - a), height: 18, rx: 4 });
      const left = Math.max(0, a) + 6;
      draw(c.area, "text", { class: "leads-text", x: left, y: 16 + lane[n] * 22 }, fitting(`node ${id}`, Math.min(b, c.width) - left));
    });
    const tell = (t) => system.leaders.filter(([, from, to]) => from <= t && t <= to).map(([id]) => `node ${id} says that it leads`);
    chart(el("p-leaders"), system, null, lanes.length * 22 + 4, paint, tell, () => `Leaders of ${system.name}: ${system.leaders.map(([id, from]) => `node ${id} from ${seconds(from)}`).join("; ")}`);
  }
}

function availabilityPanel() {
  const tallest = (sides) => Math.max(1, ...data.systems.flatMap((s) => s.availability.map((second) => sides(second).reduce((a, b) => a + b, 0))));
  const upper = ([whole, majority]) => whole.map((n, i) => n + majority[i]);
  const lower = ([, , minority]) => minority;
  const [up, down] = [tallest(upper), tallest(lower)];
  const height = scaled(132);
  for (const system of data.systems) {
    const paint = (c) => {
      const scale = (height - 8) / (up + down);
      const base = 4 + up * scale;
      const paths = { ok: "", fail: "", info: "" };
      system.availability.forEach((second, at) => {
        const [x, next] = [c.x(at * 1000), c.x((at + 1) * 1000)];
        if (next < 0 || x > c.width) return;
        const gap = next - x > 4 ? 1 : 0;
        const column = (counts, sign) => {
          let y = base;
          ["ok", "fail", "info"].forEach((kind, i) => {
            const tall = counts[i] * scale;
            if (!tall) return;
            paths[kind] += box(x + gap, sign > 0 ? y - tall : y, Math.max(1, next - x - 2 * gap), tall);
            y -= sign * tall;
          });
        };
        column(upper(second), 1);
        column(lower(second), -1);
      });
      for (const kind of ["ok", "fail", "info"]) if (paths[kind]) draw(c.area, "path", { class: kind, d: paths[kind] });
      draw(c.all, "line", { class: "base", x1: c.left, x2: c.left + c.width, y1: base, y2: base });
      draw(c.all, "text", { x: c.left - 8, y: 14, "text-anchor": "end", class: "tick" }, `${up}/s`);
      draw(c.all, "text", { x: c.left - 8, y: base - 5, "text-anchor": "end", class: "legend-text" }, "majority");
      draw(c.all, "text", { x: c.left - 8, y: base + 13, "text-anchor": "end", class: "legend-text" }, "minority");
    };
    const tell = (t) => {
      const second = system.availability[Math.floor(t / 1000)];
      if (!second) return [];
      const line = (title, [ok, fail, info]) => (ok + fail + info ? `${title}: ${ok} answered, ${fail} refused, ${info} unknown` : null);
      return [line("whole cluster", second[0]), line("majority side", second[1]), line("minority side", second[2])].filter(Boolean);
    };
    const label = () => {
      const sum = (side) => system.availability.reduce((all, second) => all.map((n, i) => n + second[side][i]), [0, 0, 0]);
      return `Availability of ${system.name}: majority side ${sum(1).join(", ")}, minority side ${sum(2).join(", ")} (answered, refused, unknown)`;
    };
    chart(el("p-availability"), system, null, height, paint, tell, label);
  }
}

function latencyPanel() {
  const all = data.systems.flatMap((s) => s.latency.filter(Boolean).flat()).filter((ms) => ms > 0);
  const low = Math.floor(Math.log10(Math.min(1, ...all)));
  const high = Math.ceil(Math.log10(Math.max(10, ...all)));
  const height = scaled(110);
  const y = (ms) => 6 + (height - 12) * (1 - (Math.log10(Math.max(ms, 10 ** low)) - low) / (high - low));
  for (const system of data.systems) {
    const paint = (c) => {
      for (let power = low; power <= high; power += 1) {
        const ms = 10 ** power;
        const named = !crowded || (power - low) % 2 === 0;
        draw(c.back, "line", { class: "grid", x1: c.left, x2: c.left + c.width, y1: y(ms), y2: y(ms) });
        if (named) draw(c.all, "text", { class: "tick", x: c.left - 8, y: y(ms) + 4, "text-anchor": "end" }, ms < 1 ? `${ms * 1000} µs` : ms < 1000 ? `${ms} ms` : `${ms / 1000} s`);
      }
      const runs = [[]];
      system.latency.forEach((pair, at) => (pair ? runs[runs.length - 1].push([c.x(at * 1000 + 500), ...pair]) : runs.push([])));
      for (const run of runs.filter((points) => points.length)) {
        const path = (i, points = run) => points.map((p, n) => `${n ? "L" : "M"}${p[0].toFixed(1)} ${y(p[i]).toFixed(1)}`).join("");
        draw(c.area, "path", { class: "spread", d: `${path(2)}${path(1, [...run].reverse()).replace("M", "L")}Z` });
        draw(c.area, "path", { class: "p99", d: path(2) });
        draw(c.area, "path", { class: "p50", d: path(1) });
        if (run.length === 1) draw(c.area, "circle", { class: "p50", cx: run[0][0], cy: y(run[0][1]), r: 3 });
        const crosses = run.map(([x, , , slowest]) => `M${(x - 2.5).toFixed(1)} ${(y(slowest) - 2.5).toFixed(1)}l5 5m0 -5l-5 5`);
        draw(c.area, "path", { class: "slowest", d: crosses.join("") });
      }
    };
    const tell = (t) => {
      const pair = system.latency[Math.floor(t / 1000)];
      const text = (ms) => (ms < 1000 ? `${ms < 10 ? ms.toFixed(2) : ms.toFixed(0)} ms` : seconds(ms, 2));
      return pair ? [`median ${text(pair[0])}, 99th percentile ${text(pair[1])}, slowest ${text(pair[2])}`] : ["no call was answered"];
    };
    chart(el("p-latency"), system, null, height, paint, tell, () => `Latency of ${system.name} per second, median and 99th percentile`);
  }
}

function divergencePanel() {
  const most = Math.max(2, ...data.systems.map((s) => s.nodes.length));
  const height = scaled(96);
  const y = (n) => 18 + (height - 26) * (1 - (n - 1) / (most - 1));
  for (const system of data.systems) {
    const paint = (c) => {
      for (let n = 1; n <= most; n += 1) {
        draw(c.back, "line", { class: "grid", x1: c.left, x2: c.left + c.width, y1: y(n), y2: y(n) });
        if (n === 1 || n === most) draw(c.all, "text", { class: "tick", x: c.left - 8, y: y(n) + 4, "text-anchor": "end" }, n === 1 ? "1 view" : `${n} views`);
      }
      let path = "";
      let before = null;
      for (const [t, views] of system.divergence) {
        path += before === null ? `M${c.x(t)} ${y(views)}` : `L${c.x(t)} ${y(before)}L${c.x(t)} ${y(views)}`;
        before = views;
      }
      if (!path) return;
      const [first, last] = [system.divergence[0][0], system.divergence[system.divergence.length - 1][0]];
      draw(c.area, "path", { class: "views-area", d: `${path}L${c.x(last)} ${y(1)}L${c.x(first)} ${y(1)}Z` });
      draw(c.area, "path", { class: "views", d: path });
      let free = -1e9;
      for (const [at, after] of system.heals) {
        if (after === null) continue;
        const x = c.x(at + after);
        draw(c.area, "path", { class: "agreed", d: `M${x} ${y(1) - 6}l6 6l-6 6l-6 -6Z` });
        if (x < free) continue;
        draw(c.area, "text", { class: "agreed-text", x: x + 9, y: y(1) - 6 }, duration(after));
        free = x + 60;
      }
    };
    const tell = (t) => {
      const at = system.divergence.findLast(([from]) => from <= t);
      return at ? [at[1] === 1 ? "all nodes show the same" : `${at[1]} different views; they differ on ${many(at[2], "name or group")}`] : [];
    };
    chart(el("p-divergence"), system, null, height, paint, tell, () => `Different views among the nodes of ${system.name}, over time; at most ${Math.max(1, ...system.divergence.map((d) => d[1]))}`);
  }
}
