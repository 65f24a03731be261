//! One file that opens offline: the page's parts and its data, put together.

use std::io;

use super::{Judged, page};

const PAGE: &str = include_str!("assets/page.html");
const STYLE: &str = include_str!("assets/page.css");
const SCRIPTS: [&str; 7] = [
    include_str!("assets/frame.js"),
    include_str!("assets/charts.js"),
    include_str!("assets/timeline.js"),
    include_str!("assets/groups.js"),
    include_str!("assets/verdicts.js"),
    include_str!("assets/anomalies.js"),
    include_str!("assets/page.js"),
];

pub(super) fn page(judged: &Judged) -> io::Result<String> {
    // Inside a script element only `</script` and `<!--` could end the data early; names are the users' own.
    let data = serde_json::to_string(&page::page(judged))?.replace('<', "\\u003c");
    // The data comes last: what is put in is not looked at again.
    let frame = PAGE.replacen("/*STYLE*/", STYLE, 1).replacen("/*SCRIPT*/", &SCRIPTS.join("\n"), 1);
    let (before, after) =
        frame.split_once("/*DATA*/").ok_or_else(|| io::Error::other("the page has no place for data"))?;
    Ok([before, &data, after].concat())
}
