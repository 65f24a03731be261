// The group strip: how many members of one group each node shows, over time.

const stripOf = (system) => system.groups.find((group) => group.name === view.group);
const mostMembers = () => Math.max(1, ...data.systems.flatMap((s) => (stripOf(s)?.nodes ?? []).flat().map(([, , n]) => n)));

function chooseGroup(name) {
  view.group = name;
  el("group").value = name;
}

function groupsPanel() {
  if (!data.groups.length) return el("p-groups").remove();
  el("group").append(...data.groups.map((name) => node("option", { value: name }, name)));
  el("group").addEventListener("change", () => { chooseGroup(el("group").value); render(); });
  chooseGroup(data.groups[0]);
  for (const system of data.systems.filter((s) => s.groups.length)) {
    const lane = (at) => 4 + at * (LANE + GAP);
    const paint = (c) => {
      const strip = stripOf(system);
      const most = mostMembers();
      system.nodes.forEach((id, at) => {
        draw(c.all, "text", { x: c.left - 8, y: lane(at) + LANE - 8 + (crowded ? 3 : 0), "text-anchor": "end" }, `node ${id}`);
        draw(c.area, "rect", { class: "lane", x: 0, y: lane(at), width: c.width, height: LANE, rx: 4 });
      });
      // One drawing per number of members; the number itself is written where there is room, so that colour is not the only sign.
      const paths = new Map();
      const labels = [];
      strip?.nodes.forEach((stretches, at) => stretches.forEach(([from, to, members]) => {
        const [a, b] = [Math.max(0, c.x(from)), Math.min(c.width, c.x(to))];
        if (b <= a) return;
        paths.set(members, (paths.get(members) ?? "") + box(a, lane(at) + 2, b - a, LANE - 4));
        if (b - a > 7 * String(members).length + 6) labels.push([(a + b) / 2, lane(at) + LANE / 2 + 4.2, members]);
      }));
      for (const [members, d] of paths) draw(c.area, "path", { class: "members", d, "fill-opacity": (0.06 + 0.6 * (members / most)).toFixed(3) });
      for (const [x, y, members] of labels) draw(c.area, "text", { class: "members-text", x, y, "text-anchor": "middle" }, String(members));
      if (!strip) draw(c.area, "text", { x: 8, y: lane(0) + LANE - 8 }, "no node showed this group here, or the page has no room for it");
    };
    const tell = (t) => system.nodes.map((id, at) => {
      const found = stripOf(system)?.nodes[at].find(([from, to]) => from <= t && t <= to);
      return `node ${id}: ${found ? many(found[2], "member") : "not looked at"}`;
    });
    const label = () => {
      const last = (stripOf(system)?.nodes ?? []).map((stretches) => stretches[stretches.length - 1]?.[2] ?? 0);
      return `Members of ${view.group} on ${system.name}: in the end ${last.length ? last.join(", ") : "none"}, node by node`;
    };
    chart(el("p-groups"), system, null, lane(system.nodes.length), paint, tell, label);
  }
}
