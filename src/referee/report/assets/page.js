// What the reader chooses, the facts of the run, and the beginning of it all.

function facts() {
  el("command").textContent = data.command;
  el("command").after(copyButton(data.command));
  const block = (title, list) => {
    const rows = list.map(({ what, value }) => node("tr", {}, node("th", { scope: "row" }, what), node("td", {}, value)));
    if (rows.length) el("facts").append(node("div", {}, node("h3", {}, title), node("table", {}, node("tbody", {}, ...rows))));
  };
  block("All systems", data.facts);
  for (const system of data.systems) block(system.name, system.facts);
  block("Not run", data.skipped.map(({ system, why }) => ({ what: system, value: why })));
}

function select(name) {
  el("name").value = name;
  chooseName(name);
  render();
}

/** Which systems have charts. One stays in any case. */
function systemChips() {
  if (data.systems.length < 2) return;
  el("systems").replaceChildren(...data.systems.map((system) => {
    const shown = !view.hidden.has(system.name);
    const chip = node("button", { type: "button", class: "chip", "aria-pressed": String(shown) }, `${shown ? "✓ " : ""}${system.name}`);
    chip.addEventListener("click", () => {
      if (!view.hidden.delete(system.name) && view.hidden.size + 1 < data.systems.length) view.hidden.add(system.name);
      const at = data.systems.indexOf(system);
      systemChips();
      el("systems").children[at].focus();
      unpoint();
      render();
    });
    return chip;
  }));
}

function controls() {
  const group = (label, names) => names.length ? node("optgroup", { label }, ...names.map(([name]) => node("option", { value: name }, name))) : null;
  const [contested, quiet] = [data.names.filter(([, c]) => c), data.names.filter(([, c]) => !c)];
  el("name").append(...[group("contested", contested), group("others", quiet)].filter(Boolean));
  el("name").addEventListener("change", () => select(el("name").value));
  el("zoom-in").addEventListener("click", () => zoom(0.5));
  el("zoom-out").addEventListener("click", () => zoom(2));
  el("zoom-all").addEventListener("click", () => look(0, data.end));
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : system.matches);
  const name = () => { el("theme").textContent = dark() ? "Light" : "Dark"; el("theme").setAttribute("aria-label", `Change to ${dark() ? "light" : "dark"} colours`); };
  el("theme").addEventListener("click", () => { document.documentElement.dataset.theme = dark() ? "light" : "dark"; name(); });
  system.addEventListener("change", name);
  systemChips();
  name();
}

heading();
strip();
matrix();
cards();
controls();
faultsPanel();
leadersPanel();
timelinePanel();
groupsPanel();
availabilityPanel();
latencyPanel();
divergencePanel();
chooseName(data.names.length ? data.names[0][0] : null);
render();
listen();
anomalies();
facts();
let resized = null;
window.addEventListener("resize", () => { cancelAnimationFrame(resized); resized = requestAnimationFrame(render); });
