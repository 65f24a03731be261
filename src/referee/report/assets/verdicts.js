// Who kept what: the strip, the table of promises and figures, and a paragraph on each system.

const MARKS = { holds: "✓", violated: "✗", unknown: "?" };
const SAID = { holds: "kept", violated: "broken", unknown: "cannot tell" };

function heading() {
  const names = data.systems.map((s) => s.name);
  const list = names.length > MANY ? `${names.length} systems` : names.length > 1 ? `${names.slice(0, -1).join(", ")} and ${names[names.length - 1]}` : names[0] || "Nothing";
  el("count").textContent = list;
  document.title = `Quorate: ${list} under the same faults`;
  el("meta").textContent = [data.started_at.replace(/\.\d+/, "").replace("T", " ").replace("Z", " UTC"), `seed ${data.seed}`, `Quorate ${data.version}`].join("  ·  ");
  if (crowded) document.documentElement.classList.add("crowded");
}

function strip() {
  for (const system of data.systems) {
    const mark = node("span", { class: `mark ${system.verdict}`, "aria-hidden": "true" }, MARKS[system.verdict]);
    const says = { holds: "every promise kept", violated: "broke a promise", unknown: "cannot tell" }[system.verdict];
    const link = node("a", { href: `#card-${data.systems.indexOf(system)}`, class: system.verdict, "data-system": system.name, "data-verdict": system.verdict }, mark, node("b", {}, system.name), node("small", {}, says));
    el("strip").append(node("li", {}, link));
  }
  for (const skipped of data.skipped) {
    el("strip").append(node("li", {}, node("span", { class: "grey", "data-system": skipped.system, "data-verdict": "skipped" }, node("span", { class: "mark plain", "aria-hidden": "true" }, "–"), node("b", {}, skipped.system), node("small", {}, "not run"))));
  }
}

function cards() {
  data.systems.forEach((system, at) => {
    const title = node("h3", {}, system.name, node("small", {}, `${MARKS[system.verdict]} ${system.headline}`));
    const note = system.decides ? null : node("p", { class: "note" }, "A rival: its verdict is shown and decides nothing.");
    const found = system.anomalies.list.length;
    const more = found ? node("button", { type: "button", class: "quiet" }, `${many(found, "anomaly", "anomalies")} below`) : null;
    more?.addEventListener("click", () => filterAnomalies(system.name, ""));
    el("verdicts").append(node("article", { class: `card ${system.verdict}`, id: `card-${at}` }, title, node("p", {}, system.summary), note, more));
  });
  for (const skipped of data.skipped) {
    el("verdicts").append(node("article", { class: "card grey" }, node("h3", {}, skipped.system, node("small", {}, "– not run")), node("p", {}, skipped.why)));
  }
}

/** What a cell says when there is no room for it in the cell. */
function showDetail(title, system, promise) {
  const host = el("detail");
  const mark = promise.promised ? `${MARKS[promise.verdict]} ${SAID[promise.verdict]}` : `not promised; ${{ holds: "it holds", violated: "it does not hold", unknown: "cannot tell" }[promise.verdict]}`;
  const lines = promise.evidence.map((line) => node("li", {}, line));
  const go = node("button", { type: "button", class: "quiet" }, `Anomalies of ${system.name}`);
  go.addEventListener("click", () => filterAnomalies(system.name, ""));
  const close = node("button", { type: "button", class: "quiet" }, "Close");
  close.addEventListener("click", () => { host.hidden = true; });
  host.replaceChildren(node("h3", {}, `${system.name}: ${title}`), node("p", {}, node("b", {}, mark), `: ${promise.detail}`), lines.length ? node("ul", {}, ...lines) : "", system.anomalies.list.length ? go : "", close);
  host.hidden = false;
  host.scrollIntoView({ block: "nearest" });
}

function promiseCell(title, system, promise) {
  if (!promise) return node("td", { class: "grey" }, node("span", { class: "aside" }, crowded ? "" : "not asked of it"));
  const cls = promise.promised ? promise.verdict : "plain";
  const sign = promise.promised ? MARKS[promise.verdict] : { holds: "○", violated: "●", unknown: "?" }[promise.verdict];
  const label = promise.promised ? SAID[promise.verdict] : `not promised; ${{ holds: "holds", violated: "does not hold", unknown: "cannot tell" }[promise.verdict]}`;
  const attributes = { "data-system": system.name, "data-promise": promise.id, "data-verdict": promise.verdict, "data-promised": String(promise.promised) };
  if (crowded) {
    const button = node("button", { type: "button", class: `mark ${cls}`, title: promise.detail, "aria-label": `${system.name}: ${title}: ${label}` }, sign);
    button.addEventListener("click", () => showDetail(title, system, promise));
    return node("td", attributes, button);
  }
  const mark = node("span", { class: `mark ${cls}`, role: "img", "aria-label": label }, sign);
  const plain = promise.promised ? null : node("span", { class: "aside" }, { holds: " (holds, not promised)", violated: " (not promised)", unknown: " (not promised)" }[promise.verdict]);
  const shown = promise.evidence.length ? node("details", {}, node("summary", {}, `evidence (${promise.evidence.length})`), ...promise.evidence.map((line) => node("div", {}, line))) : null;
  return node("td", attributes, mark, ` ${promise.detail}`, plain, shown);
}

function matrix() {
  const grey = () => data.skipped.map(() => node("td", { class: "grey" }));
  // Names break at their hyphens, not within a word.
  const broken = (name) => name.split(/(?<=-)/).flatMap((part, at) => (at ? [node("wbr"), part] : [part]));
  const title = (name) => node("th", { scope: "col" }, node("span", {}, ...broken(name)));
  const head = node("tr", {}, node("th", { scope: "col" }, "Promise"), ...data.systems.map((s) => title(s.name)), ...data.skipped.map((s) => node("th", { scope: "col", class: "aside", title: s.why }, node("span", {}, ...broken(s.system)))));
  const promises = data.rows.map(([id, title]) =>
    node("tr", {}, node("th", { scope: "row" }, title), ...data.systems.map((s) => promiseCell(title, s, s.promises.find((p) => p.id === id))), ...grey()));
  const figures = data.figures.map(({ title, values }) =>
    node("tr", {}, node("th", { scope: "row" }, title), ...values.map((value) => (value === null ? node("td", { class: "grey" }) : node("td", {}, value))), ...grey()));
  el("promises").append(node("thead", {}, head), node("tbody", {}, ...promises), node("tbody", { class: "figures" }, ...figures));
}
