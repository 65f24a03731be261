// Everything around the charts, and the beginning of it all.

const MARKS = { holds: "✓", violated: "✗", unknown: "?" };

function heading() {
  const names = data.systems.map((s) => s.name);
  el("count").textContent = names.length === 1 ? names[0] : `${names.slice(0, -1).join(", ")} and ${names[names.length - 1]}`;
  document.title = `Quorate: ${names.join(" and ")} under the same faults`;
  el("meta").textContent = [data.started_at.replace(/\.\d+/, "").replace("T", " ").replace("Z", " UTC"), `seed ${data.seed}`, `Quorate ${data.version}`].join("  ·  ");
}

function verdicts() {
  for (const system of data.systems) {
    const title = node("h3", {}, system.name, node("small", {}, `${MARKS[system.verdict]} ${system.headline}`));
    const note = system.decides ? null : node("p", { class: "note" }, "A rival: its verdict is shown and decides nothing.");
    el("verdicts").append(node("article", { class: `card ${system.verdict}` }, title, node("p", {}, system.summary), note));
  }
  for (const skipped of data.skipped) {
    el("skipped").append(node("p", { class: "skipped" }, node("b", {}, skipped.system), ` was skipped: ${skipped.why}`));
  }
}

function promiseCell(promise) {
  if (!promise) return node("td", { class: "aside" }, "not asked of it");
  const cls = promise.promised ? promise.verdict : "plain";
  const said = { holds: "kept", violated: "broken", unknown: "cannot tell" }[promise.verdict];
  const mark = node("span", { class: `mark ${cls}`, role: "img", "aria-label": promise.promised ? said : "not promised" }, promise.promised ? MARKS[promise.verdict] : "○");
  const plain = promise.promised ? null : node("span", { class: "aside" }, { holds: " (holds, not promised)", violated: " (not promised)", unknown: " (not promised)" }[promise.verdict]);
  const shown = promise.promised && promise.evidence.length ? node("details", {}, node("summary", {}, `evidence (${promise.evidence.length})`), ...promise.evidence.map((line) => node("div", {}, line))) : null;
  return node("td", {}, mark, ` ${promise.detail}`, plain, shown);
}

function matrix() {
  const head = node("tr", {}, node("th", { scope: "col" }, "Promise"), ...data.systems.map((s) => node("th", { scope: "col" }, s.name)));
  const promises = data.rows.map(([id, title]) =>
    node("tr", {}, node("th", { scope: "row" }, title), ...data.systems.map((s) => promiseCell(s.promises.find((p) => p.id === id)))));
  const figures = data.figures.map(({ title, values }) =>
    node("tr", {}, node("th", { scope: "row" }, title), ...values.map((value) => node("td", {}, value ?? "–"))));
  el("promises").append(node("thead", {}, head), node("tbody", {}, ...promises), node("tbody", { class: "figures" }, ...figures));
}

function anomalies() {
  const all = data.systems.flatMap((system) => system.anomalies.map((anomaly) => ({ system: system.name, ...anomaly })));
  const choice = (select, values, every) => select.append(node("option", { value: "" }, every), ...values.map((value) => node("option", { value }, value)));
  choice(el("of-system"), [...new Set(all.map((a) => a.system))], "all systems");
  choice(el("of-kind"), [...new Set(all.map((a) => a.kind))], "all kinds");
  const show = () => {
    const [system, kind] = [el("of-system").value, el("of-kind").value];
    const list = all.filter((a) => (!system || a.system === system) && (!kind || a.kind === kind));
    const head = node("tr", {}, ...["System", "Kind", "Name or group", "When", "What"].map((text) => node("th", { scope: "col" }, text)));
    const rows = list.map((a) => {
      const when = a.to === 0 ? "" : a.to > a.from ? `${seconds(a.from, 2)} to ${seconds(a.to, 2)}` : seconds(a.from, 2);
      const known = data.names.some(([name]) => name === a.key);
      const row = node("tr", known ? { tabindex: 0, role: "button", "aria-label": `Show ${a.key} in the timeline` } : {},
        node("td", {}, a.system), node("td", { class: a.broken ? "bad" : "" }, a.broken ? `✗ ${a.kind}` : a.kind), node("td", {}, a.key), node("td", {}, when), node("td", {}, a.text));
      const go = () => {
        select(a.key);
        if (a.to > 0) look(a.from - 2000, a.to + 2000);
        el("p-names").scrollIntoView({ block: "start" });
      };
      if (known) {
        row.addEventListener("click", go);
        row.addEventListener("keydown", (event) => { if (event.key === "Enter") go(); });
      }
      return row;
    });
    el("anomalies").replaceChildren(node("thead", {}, head), node("tbody", {}, ...rows));
    el("anomaly-count").textContent = list.length ? many(list.length, "line") : "none";
  };
  for (const id of ["of-system", "of-kind"]) el(id).addEventListener("change", show);
  show();
}

function counterExamples() {
  const host = el("counter-examples");
  for (const system of data.systems) {
    system.counter_examples.forEach((example, at) => {
      const head = node("tr", {}, ...["Process", "Node", "From", "To", "Call"].map((text) => node("th", { scope: "col" }, text)));
      const rows = example.calls.map((call) => node("tr", call.culprit ? { class: "culprit" } : {}, node("td", {}, String(call.process)), node("td", {}, call.node === null ? "" : String(call.node)),
        node("td", {}, seconds(call.from_ms, 3)), node("td", {}, call.to_ms === null ? "never" : seconds(call.to_ms, 3)), node("td", {}, call.culprit ? `▸ ${call.call}` : call.call)));
      const table = node("div", { class: "scroll" }, node("table", {}, node("thead", {}, head), node("tbody", {}, ...rows)));
      const promised = system.promises.some((p) => p.id.startsWith("linearizable") && p.promised);
      const title = `${system.name}: ${example.key} at ${seconds(example.at_ms, 2)}${promised ? "" : " (not promised)"}`;
      host.append(node("details", at === 0 ? { class: "example", open: "" } : { class: "example" }, node("summary", {}, title), node("p", {}, example.reason), table));
    });
  }
  if (!host.children.length) host.append(node("p", {}, "None: every answer of every system can be explained."));
}

function facts() {
  el("command").textContent = data.command;
  el("copy").addEventListener("click", () => navigator.clipboard?.writeText(data.command).then(() => { el("copy").textContent = "Copied"; }, () => {}));
  const block = (title, list) => {
    const rows = list.map(({ what, value }) => node("tr", {}, node("th", { scope: "row" }, what), node("td", {}, value)));
    if (rows.length) el("facts").append(node("div", {}, node("h3", {}, title), node("table", {}, node("tbody", {}, ...rows))));
  };
  block("All systems", data.facts);
  for (const system of data.systems) block(system.name, system.facts);
}

function select(name) {
  el("name").value = name;
  chooseName(name);
  render();
}

function controls() {
  const group = (label, names) => names.length ? node("optgroup", { label }, ...names.map(([name]) => node("option", { value: name }, name))) : null;
  const [contested, quiet] = [data.names.filter(([, c]) => c), data.names.filter(([, c]) => !c)];
  el("name").append(...[group("contested", contested), group("others", quiet)].filter(Boolean));
  el("name").addEventListener("change", () => select(el("name").value));
  el("zoom-in").addEventListener("click", () => zoom(0.5));
  el("zoom-out").addEventListener("click", () => zoom(2));
  el("zoom-all").addEventListener("click", () => look(0, data.end));
  const dark = () => (document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  const name = () => { el("theme").textContent = dark() ? "Light" : "Dark"; el("theme").setAttribute("aria-pressed", String(dark())); };
  el("theme").addEventListener("click", () => { document.documentElement.dataset.theme = dark() ? "light" : "dark"; name(); });
  name();
}

heading();
verdicts();
matrix();
controls();
faultsPanel();
timelinePanel();
availabilityPanel();
latencyPanel();
divergencePanel();
chooseName(data.names.length ? data.names[0][0] : null);
render();
listen();
anomalies();
counterExamples();
facts();
let resized = null;
window.addEventListener("resize", () => { cancelAnimationFrame(resized); resized = requestAnimationFrame(render); });
