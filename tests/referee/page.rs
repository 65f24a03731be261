//! The page, as a reader has it before them: in Chromium, with nothing but the file.

use std::collections::HashMap;
use std::path::PathBuf;

use fantoccini::Locator;
use fantoccini::key::Key;
use fantoccini::wd::PrintConfiguration;
use quorate::referee::analysis::verdict::Verdict;
use quorate::referee::history::Side::Whole;
use quorate::referee::history::{Event, What};
use quorate::referee::report::data::{Run, RunSet};
use quorate::referee::report::{self, Judged};
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::logs::{Log, alive, claim, create_lease, whereis};
use crate::synthetic::comparison;

/// A page on disk, and what `report.json` beside it says.
struct Written {
    _dir: tempfile::TempDir,
    index: PathBuf,
    json: Value,
}

fn written(judged: &Judged) -> Written {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let index = report::write(judged, dir.path()).expect("it is written");
    let json = std::fs::read_to_string(dir.path().join("report.json")).expect("it is there");
    Written { _dir: dir, index, json: serde_json::from_str(&json).expect("it is JSON") }
}

fn ordinary() -> Written {
    written(&report::judge(comparison(42)))
}

/// With other words for the names that begin so.
fn renamed(run: &mut Run, from: &str, to: &str) {
    let (from, to) = (json!(from).to_string(), json!(to).to_string());
    let (from, to) = (from.trim_matches('"'), &to[1..to.len() - 1]);
    for event in &mut run.events {
        let text = serde_json::to_string(event).expect("it is JSON").replace(from, to);
        *event = serde_json::from_str(&text).expect("it is still an event");
    }
}

#[tokio::test]
async fn the_page_loads_without_an_error_and_asks_nobody_for_anything() {
    let written = ordinary();
    let Some(browser) = Browser::open(&written.index, &[]).await else { return };
    browser.until("document.querySelectorAll('#panels svg').length > 8").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    // The control: both kinds of complaint would have been seen.
    browser
        .eval("console.error('a planted complaint'), fetch('http://127.0.0.1:9/planted').catch(() => {}), true")
        .await;
    browser.eval("new Image().src = 'file:///planted.png', true").await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let complaints = browser.complaints().await.join("\n");
    assert!(complaints.contains("a planted complaint"), "{complaints}");
    assert!(complaints.contains("planted.png") || complaints.contains("9/planted"), "{complaints}");
    browser.close().await;
}

#[tokio::test]
async fn the_verdicts_shown_are_those_of_the_report() {
    let mut set = comparison(42);
    // A system that breaks something, so that not all verdicts are the same.
    let ap = set.runs.iter_mut().find(|run| run.header.system == "ap").expect("it ran");
    ap.promises.one_order = true;
    let judged = report::judge(set);
    assert!(judged.findings.iter().any(|found| found.verdict == Verdict::Violated));
    let written = written(&judged);
    let Some(browser) = Browser::open(&written.index, &[]).await else { return };
    let shown = browser
        .eval(
            "[...document.querySelectorAll('#strip [data-verdict]')].map((e) => [e.dataset.system, e.dataset.verdict])",
        )
        .await;
    let systems = written.json["systems"].as_array().expect("a list");
    let mut told: Vec<Value> = systems.iter().map(|s| json!([s["system"], s["verdict"]])).collect();
    told.push(json!(["etcd", "skipped"]));
    assert_eq!(shown, Value::Array(told));
    for system in systems {
        for promise in system["promises"].as_array().expect("a list") {
            let (name, id) = (system["system"].as_str().unwrap(), promise["id"].as_str().unwrap());
            let cell = format!("document.querySelector('td[data-system=\"{name}\"][data-promise=\"{id}\"]')");
            assert_eq!(browser.eval(&format!("{cell}.dataset.verdict")).await, promise["verdict"], "{name}: {id}");
            let mark = browser.eval(&format!("{cell}.querySelector('.mark').textContent")).await;
            if promise["promised"] == true {
                let expected = match promise["verdict"].as_str() {
                    Some("holds") => "✓",
                    Some("violated") => "✗",
                    _ => "?",
                };
                assert_eq!(mark, expected, "{name}: {id}");
            } else {
                assert_ne!(mark, "✓", "{name}: {id} is not promised, and so not kept");
            }
        }
    }
    browser.close().await;
}

#[tokio::test]
async fn an_anomaly_opens_to_the_calls_that_show_it() {
    let written = ordinary();
    let Some(browser) = Browser::open(&written.index, &[]).await else { return };
    let row = "#anomalies tr.case[data-kind='not linearizable']";
    browser.click(&format!("{row} button")).await;
    let below = format!("document.querySelector(\"{row}\").nextElementSibling");
    browser.until(&format!("!{below}.hidden")).await;
    let text = browser.eval(&format!("{below}.innerText")).await;
    let text = text.as_str().expect("a text");
    let key = browser.eval(&format!("document.querySelector(\"{row}\").dataset.key")).await;
    let key = key.as_str().expect("a name");
    assert!(text.contains("Why: ") && text.contains("▸ "), "{text}");
    assert!(text.contains(&format!("quorate check --explain --key={key} ap/history.ndjson")), "{text}");
    let edn = browser.eval(&format!("{below}.querySelector('.edn').textContent")).await;
    let edn = edn.as_str().expect("a text");
    for line in edn.lines() {
        assert!(line.starts_with("{:index ") && line.ends_with('}'), "{line}");
        let read = quorate::referee::formats::edn::Reader::new(line).next_element();
        assert!(matches!(read, Ok(Some(_))), "{line}");
    }
    assert!(edn.contains(":type :invoke") && edn.contains(":type :ok"), "{edn}");
    // Two owners have the number that the timeline shows.
    browser.eval("document.getElementById('of-kind').value = 'two owners', true").await;
    browser.eval("document.getElementById('of-kind').dispatchEvent(new Event('change')), true").await;
    browser.until("[...document.querySelectorAll('tr.case')].every((r) => r.dataset.kind === 'two owners')").await;
    browser.click("#anomalies tr.case button").await;
    browser.click("#anomalies tr.below:not([hidden]) button.quiet").await;
    let number =
        browser.eval("document.querySelector('#anomalies tr.case button').textContent.match(/#\\d+/)[0]").await;
    let number = number.as_str().expect("a number");
    browser
        .until(&format!(
            "[...document.querySelectorAll('#p-names .double-text')].some((t) => t.textContent.includes('{number}'))"
        ))
        .await;
    browser.close().await;
}

#[tokio::test]
async fn choosing_a_name_moves_the_timeline() {
    let written = ordinary();
    let Some(browser) = Browser::open(&written.index, &[]).await else { return };
    let first = browser.eval("document.querySelector('.chosen').textContent").await;
    let other = browser.eval("[...document.getElementById('name').options].map((o) => o.value).pop()").await;
    assert_ne!(first, other);
    let drawn = "document.querySelector('#p-names .row[data-system=\"ap\"] svg').outerHTML";
    let before = browser.eval(drawn).await;
    let select = browser.client.find(Locator::Id("name")).await.expect("the choice");
    select.select_by_value(other.as_str().expect("a name")).await.expect("it is there");
    browser.until(&format!("document.querySelector('.chosen').textContent === {other}")).await;
    assert_ne!(browser.eval(drawn).await, before);
    let label = browser.eval("document.querySelector('#p-names .row[data-system=\"ap\"] svg').ariaLabel").await;
    assert!(label.as_str().expect("a label").contains(other.as_str().unwrap()), "{label}");
    browser.close().await;
}

#[tokio::test]
async fn one_line_crosses_all_charts_under_the_pointer_and_by_the_keys() {
    let written = ordinary();
    let Some(browser) = Browser::open(&written.index, &[]).await else { return };
    let lines =
        "[...document.querySelectorAll('.cross')].map((l) => l.getAttribute('visibility') + l.getAttribute('x1'))";
    browser.hover("#p-latency .plot").await;
    browser.until("!document.getElementById('tip').hidden").await;
    browser.until(&format!("{lines}.length > 8 && new Set({lines}).size === 1")).await;
    let at = browser.eval(lines).await;
    assert!(at[0].as_str().expect("a line").starts_with("visible"), "{at}");
    browser.eval("document.getElementById('panels').focus(), true").await;
    browser.press(&[Key::Right, Key::Right, Key::Right]).await;
    browser.until(&format!("{lines}[0] !== {}", at[0])).await;
    browser.until(&format!("new Set({lines}).size === 1")).await;
    assert!(browser.eval("document.getElementById('tip').textContent").await.as_str().unwrap().contains(" s · "));
    browser.press(&[Key::Escape]).await;
    browser.until("document.getElementById('tip').hidden").await;
    // Zooming by the keys changes the axis of every chart.
    let ticks = "document.querySelector('#p-latency svg .tick:nth-of-type(2)').textContent";
    let before = browser.eval("document.getElementById('range').textContent").await;
    client_type(&browser, "+").await;
    browser.until(&format!("document.getElementById('range').textContent !== {before}")).await;
    assert!(browser.eval(ticks).await.is_string());
    browser.close().await;
}

async fn client_type(browser: &Browser, text: &str) {
    let active = browser.client.active_element().await.expect("the charts have the focus");
    active.send_keys(text).await.expect("a key");
}

#[tokio::test]
async fn everything_that_can_be_pressed_can_be_reached_by_the_tab_key() {
    let written = ordinary();
    let Some(browser) = Browser::open(&written.index, &[]).await else { return };
    browser.eval("document.activeElement.blur(), window.scrollTo(0, 0), true").await;
    let mut reached = Vec::new();
    for _ in 0..60 {
        browser.press(&[Key::Tab]).await;
        let at = browser
            .eval("document.activeElement.id || document.activeElement.className || document.activeElement.tagName")
            .await;
        reached.push(at.as_str().unwrap_or_default().to_owned());
    }
    for id in ["theme", "name", "zoom-in", "panels", "of-system", "of-name", "open"] {
        assert!(reached.iter().any(|at| at == id), "{id} is not among {reached:?}");
    }
    // A case opens by the keys alone.
    browser.eval("document.querySelector('#anomalies button.open').focus(), true").await;
    browser.press(&[Key::Enter]).await;
    browser.until("document.querySelector('#anomalies button.open').getAttribute('aria-expanded') === 'true'").await;
    browser.close().await;
}

#[tokio::test]
async fn dark_is_dark_by_the_system_and_by_the_button() {
    let written = ordinary();
    let light = "(() => { const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/\\d+/g); return +r + +g + +b > 382; })()";
    for (arguments, is_light) in [(&[][..], true), (&["--force-dark-mode"][..], false)] {
        let Some(browser) = Browser::open(&written.index, arguments).await else { return };
        assert_eq!(browser.eval(light).await, is_light, "{arguments:?}");
        browser.click("#theme").await;
        browser.until(&format!("{light} === {}", !is_light)).await;
        browser.close().await;
    }
}

#[tokio::test]
async fn names_that_are_scripts_are_shown_and_not_run() {
    let hostile = "</script><script>window.ran=1</script><img src=x onerror=window.ran=2>'\"&amp;<!--\u{2028}: it";
    let mut set = comparison(42);
    for run in &mut set.runs {
        renamed(run, "contested/0", hostile);
        renamed(run, "app-3", "<b onclick=window.ran=3>app</b>");
    }
    set.command = format!("quorate compare --out {hostile}");
    set.skipped[0].why = hostile.to_owned();
    let written = written(&report::judge(set));
    let Some(browser) = Browser::open(&written.index, &[]).await else { return };
    browser.until("document.querySelectorAll('#panels svg').length > 8").await;
    browser.eval("select(data.names.find(([name]) => name.includes('onerror'))[0]), true").await;
    assert_eq!(browser.eval("document.querySelector('.chosen').textContent").await, json!(hostile));
    browser.eval("document.querySelectorAll('#anomalies tr.case').forEach((row) => row.click()), true").await;
    browser.until("document.querySelectorAll('.drill').length > 3").await;
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(browser.eval("window.ran ?? 'nothing'").await, json!("nothing"));
    assert_eq!(browser.eval("document.querySelectorAll('img, b[onclick]').length").await, json!(0));
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn eleven_systems_stand_side_by_side() {
    let mut set = comparison(42);
    let names = ["cp", "ap", "cp-stale", "ap-quorum", "etcd-stale", "zookeeper", "erlang-global", "postgresql-2pc"];
    let runs = std::mem::take(&mut set.runs);
    set.runs = names
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let mut run = runs[at % 2].clone();
            run.header.system = (*name).to_owned();
            run
        })
        .collect();
    let skipped = set.skipped[0].clone();
    let more = ["erlang-pg", "postgresql"]
        .map(|system| report::data::Skipped { system: system.to_owned(), ..skipped.clone() });
    set.skipped.extend(more);
    let written = written(&report::judge(set));
    let Some(browser) = Browser::open(&written.index, &[]).await else { return };
    let heads = "[...document.querySelectorAll('#promises thead th')]";
    assert_eq!(browser.eval(&format!("{heads}.length")).await, json!(12));
    // No column is cut off at the width of a common screen, and none is too narrow to read.
    let fits = "(() => { const t = document.getElementById('promises'); return t.scrollWidth <= t.parentElement.clientWidth + 1; })()";
    assert_eq!(browser.eval(fits).await, json!(true));
    assert_eq!(browser.eval("document.documentElement.scrollWidth <= window.innerWidth").await, json!(true));
    assert_eq!(browser.eval(&format!("{heads}.every((h) => h.clientWidth >= 48)")).await, json!(true));
    // What a cell has no room for is one press away.
    browser.click("#promises td[data-system='ap'][data-promise='one-owner'] button").await;
    browser.until("!document.getElementById('detail').hidden").await;
    let detail = browser.eval("document.getElementById('detail').textContent").await;
    assert!(detail.as_str().unwrap().contains("had two owners at once"), "{detail}");
    // Charts of a system can be put away.
    let rows = "[...document.querySelectorAll('#p-latency .row')].filter((r) => !r.hidden).length";
    assert_eq!(browser.eval(rows).await, json!(8));
    browser.click("#systems button:nth-child(2)").await;
    browser.until(&format!("{rows} === 7")).await;
    browser.close().await;
}

#[tokio::test]
async fn a_lease_that_runs_out_has_its_tick_on_the_timeline() {
    for (ttl_ms, ticks) in [(5_000, 1), (60_000, 0)] {
        let mut log = Log::default();
        log.ok(0, 1, Whole, 100.0, 105.0, create_lease("a", ttl_ms));
        log.ok(0, 1, Whole, 200.0, 205.0, claim("x", "a", "1"));
        log.ok(0, 2, Whole, 1_000.0, 1_005.0, alive("a"));
        for at in (10..120).map(|at| f64::from(at) * 100.0) {
            let standing = [("x", "a", "1")];
            log.view(1, at, if at < 6_000.0 { &standing } else { &[] });
        }
        log.ok(1, 2, Whole, 12_000.0, 12_005.0, whereis("x", None));
        let mut set = comparison(42);
        set.runs.truncate(1);
        set.runs[0].events = log.events();
        let written = written(&report::judge(set));
        let Some(browser) = Browser::open(&written.index, &[]).await else { return };
        browser.until("document.querySelectorAll('#p-names svg').length > 0").await;
        let drawn = "[...document.querySelectorAll('#p-names path.due')].map((p) => p.getAttribute('d')).join('')";
        let drawn = browser.eval(drawn).await;
        assert_eq!(drawn.as_str().expect("a path").matches("h8").count(), ticks, "{drawn}");
        browser.close().await;
    }
}

#[tokio::test]
async fn what_is_printed_is_whole_and_fits_the_sheet() {
    let written = ordinary();
    let Some(browser) = Browser::open(&written.index, &[]).await else { return };
    let shown = |css: &str| format!("getComputedStyle(document.querySelector('{css}')).display !== 'none'");
    assert_eq!(browser.eval(&shown(".printed")).await, json!(false));
    let pdf = browser.client.print(PrintConfiguration::default()).await.expect("it prints");
    assert!(pdf.starts_with(b"%PDF") && pdf.len() > 20_000, "{}", pdf.len());
    browser.as_printed().await;
    for (css, is) in
        [(".printed", true), ("#promises", true), ("#p-names", true), ("#bar", false), (".anomalies", false)]
    {
        assert_eq!(browser.eval(&shown(css)).await, is, "{css}");
    }
    // A sheet has no scroll bars: what would need one is cut off.
    let cut = "[...document.querySelectorAll('.scroll')].filter((e) => e.scrollHeight > e.clientHeight + 1 && getComputedStyle(e).overflow !== 'visible').length";
    assert_eq!(browser.eval(cut).await, json!(0));
    browser.close().await;
}

/// The same again and again, one after the other, each time with names and faults of its own.
fn repeated(set: &mut RunSet, times: u64) {
    for run in &mut set.runs {
        // The last word on conflicts comes at the end; four of five looks are left out, which are most of the events.
        let looks = |event: &Event| matches!(event.what, What::View(_)) && !event.index.is_multiple_of(5);
        let once: Vec<Event> = std::mem::take(&mut run.events).into_iter().filter(|event| !looks(event)).collect();
        let length = once.iter().map(|event| event.time).max().unwrap_or(0) + 1_000_000;
        let places: HashMap<u64, u64> = once.iter().zip(0..).map(|(event, at)| (event.index, at)).collect();
        // As text once: names are most of it.
        let texts: Vec<String> = once.iter().map(|event| serde_json::to_string(event).expect("it is JSON")).collect();
        for round in 0..times {
            let names = [("service/", format!("service-{round}/")), ("contested/", format!("contested-{round}/"))];
            let first = run.events.len() as u64;
            run.events.extend(texts.iter().map(|text| {
                let text = names.iter().fold(text.clone(), |text, (from, to)| text.replace(from, to));
                let mut event: Event = serde_json::from_str(&text).expect("it is still an event");
                event.index = first + places[&event.index];
                event.time += round * length;
                event.end_of = event.end_of.and_then(|index| places.get(&index)).map(|at| first + at);
                if let What::Fault(fault) = &mut event.what {
                    fault.id += round * 100;
                }
                event
            }));
        }
    }
}

#[tokio::test]
async fn a_hundred_thousand_calls_make_a_page_of_less_than_5_mb() {
    let mut set = comparison(42);
    let once = report::judge(set.clone()).findings.iter().map(|found| found.operations).sum::<usize>();
    repeated(&mut set, (100_000 / once + 1) as u64);
    let judged = report::judge(set);
    let calls: usize = judged.findings.iter().map(|found| found.operations).sum();
    assert!(calls >= 100_000, "{calls} calls");
    let written = written(&judged);
    let size = std::fs::metadata(&written.index).expect("it is there").len();
    assert!(size < 5 * 1024 * 1024, "{size} bytes");
    let Some(browser) = Browser::open(&written.index, &[]).await else { return };
    browser.until("document.querySelectorAll('#panels svg').length > 8").await;
    browser.click("#anomalies tr.case button").await;
    browser.until("document.querySelectorAll('.drill').length === 1").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
}
