// The list of anomalies; each opens to the calls that show it.

const ANOMALIES = data.systems.flatMap((system) => system.anomalies.list.map((anomaly) => ({ system, ...anomaly })));
const kindOf = (a) => (a.number === null ? a.kind : `${a.kind} #${a.number}`);

/** A value of JSON in EDN: objects become maps with keywords, and what no keyword can be stays a text. */
function edn(value) {
  if (value === null) return "nil";
  if (Array.isArray(value)) return `[${value.map(edn).join(" ")}]`;
  if (typeof value !== "object") return JSON.stringify(value);
  const key = (text) => (/^[A-Za-z][A-Za-z0-9_-]*$/.test(text) ? `:${text.replaceAll("_", "-")}` : JSON.stringify(text));
  return `{${Object.entries(value).map(([name, inner]) => `${key(name)} ${edn(inner)}`).join(", ")}}`;
}

/** An event as Jepsen's history has it: its kind, its function and a client's or watcher's word are keywords. */
function ednEvent(event) {
  const word = (name) => (["type", "f"].includes(name) || (name === "process" && typeof event.process === "string"));
  return `{${Object.entries(event).map(([name, value]) => `:${name.replaceAll("_", "-")} ${word(name) ? `:${value}` : edn(value)}`).join(", ")}}`;
}

function copyButton(text, label = "Copy") {
  const button = node("button", { type: "button", class: "quiet" }, label);
  button.addEventListener("click", () => navigator.clipboard?.writeText(text).then(() => { button.textContent = "Copied"; }, () => {}));
  return button;
}

/** One line a call, with a bar that shows when it ran: what ends left of another's beginning came before it. */
function callTable(anomaly) {
  const calls = anomaly.calls.map((at) => ({ at, ...anomaly.system.anomalies.calls[at] }));
  const ends = calls.map((call) => call.to ?? call.from);
  const [first, last] = [Math.min(...calls.map((call) => call.from)), Math.max(...ends)];
  const span = Math.max(1, last - first);
  const row = (call) => {
    const left = ((call.from - first) / span) * 100;
    const wide = (((call.to ?? last) - call.from) / span) * 100;
    const bar = node("span", { class: call.to === null ? "run open" : "run", style: `left:${left.toFixed(2)}%;width:${Math.max(0, wide).toFixed(2)}%` });
    const culprit = call.at === anomaly.culprit;
    return node("tr", culprit ? { class: "culprit" } : {}, node("td", {}, String(call.process)), node("td", {}, call.node === null ? "" : String(call.node)),
      node("td", {}, seconds(call.from, 3)), node("td", {}, call.to === null ? "unknown" : seconds(call.to, 3)), node("td", { class: "gantt" }, bar), node("td", {}, culprit ? `▸ ${call.told}` : call.told));
  };
  const head = node("tr", {}, ...["Process", "Node", "From", "To", "When", "Call"].map((text) => node("th", { scope: "col" }, text)));
  return node("div", { class: "scroll" }, node("table", { class: "calls" }, node("thead", {}, head), node("tbody", {}, ...calls.map(row))));
}

function drill(anomaly) {
  const parts = [node("p", {}, node("b", {}, "Why: "), anomaly.why)];
  const known = data.names.some(([name]) => name === anomaly.key);
  if (known) {
    const go = node("button", { type: "button", class: "quiet" }, "Show in the timeline");
    go.addEventListener("click", () => {
      select(anomaly.key);
      if (view.hidden.delete(anomaly.system.name)) systemChips();
      if (anomaly.to > 0) look(anomaly.from - 2000, anomaly.to + 2000);
      el("p-names").scrollIntoView({ block: "start" });
    });
    parts.push(node("p", {}, go));
  }
  if (anomaly.calls.length) {
    const events = anomaly.calls.flatMap((at) => anomaly.system.anomalies.calls[at].events).sort((a, b) => a.index - b.index);
    const text = events.map(ednEvent).join("\n");
    parts.push(callTable(anomaly), node("details", {}, node("summary", {}, "The same as Jepsen's EDN"), node("pre", { class: "edn" }, text), copyButton(text)));
  }
  if (anomaly.cut) parts.push(node("p", { class: "aside" }, `Not all calls are told here; they are in ${anomaly.system.name}/history.ndjson.`));
  const again = anomaly.check ?? data.command;
  const how = anomaly.check ? "To check it again, where this page lies:" : "No single history convicts this; to run it again:";
  parts.push(node("p", {}, how), node("div", { class: "command" }, node("code", {}, again), copyButton(again)));
  return node("div", { class: "drill" }, ...parts);
}

function anomalyRows(a) {
  const when = a.to === 0 ? "" : a.to > a.from ? `${seconds(a.from, 2)} to ${seconds(a.to, 2)}` : seconds(a.from, 2);
  const button = node("button", { type: "button", class: "open", "aria-expanded": "false" }, a.broken ? `✗ ${kindOf(a)}` : kindOf(a));
  const row = node("tr", { class: a.broken ? "case bad" : "case", "data-kind": a.kind, "data-system": a.system.name, "data-key": a.key },
    node("td", {}, button), node("td", {}, a.system.name), node("td", {}, a.key), node("td", {}, when), node("td", {}, a.text));
  const inside = node("td", { colspan: 5 });
  const below = node("tr", { class: "below", hidden: "" }, inside);
  row.addEventListener("click", () => {
    if (!inside.children.length) inside.append(drill(a));
    below.hidden = !below.hidden;
    button.setAttribute("aria-expanded", String(!below.hidden));
  });
  return [row, below];
}

function showAnomalies() {
  const [system, kind, name] = [el("of-system").value, el("of-kind").value, el("of-name").value];
  const seen = (a) => a.to === 0 || (a.from <= view.to && a.to >= view.from);
  const list = ANOMALIES.filter((a) => (!system || a.system.name === system) && (!kind || a.kind === kind) && a.key.includes(name)
    && (!el("of-broken").checked || a.broken) && (!el("of-time").checked || seen(a)));
  const head = node("tr", {}, ...["Kind", "System", "Name or group", "When", "What"].map((text) => node("th", { scope: "col" }, text)));
  el("anomalies").replaceChildren(node("thead", {}, head), node("tbody", {}, ...list.flatMap(anomalyRows)));
  el("anomaly-count").textContent = list.length ? many(list.length, "line") : "none";
}

function filterAnomalies(system, kind) {
  [el("of-system").value, el("of-kind").value, el("of-name").value] = [system, kind, ""];
  [el("of-broken").checked, el("of-time").checked] = [false, false];
  showAnomalies();
  el("anomalies-title").scrollIntoView({ block: "start" });
}

function anomalies() {
  const choice = (select, values, every) => select.append(node("option", { value: "" }, every), ...values.map((value) => node("option", { value }, value)));
  choice(el("of-system"), [...new Set(ANOMALIES.map((a) => a.system.name))], "all systems");
  choice(el("of-kind"), [...new Set(ANOMALIES.map((a) => a.kind))], "all kinds");
  for (const id of ["of-system", "of-kind", "of-broken", "of-time"]) el(id).addEventListener("change", showAnomalies);
  el("of-name").addEventListener("input", showAnomalies);
  showAnomalies();
}
