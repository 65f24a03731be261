//! What a comparison shows: a table in the terminal, `report.json`, and one page that opens offline.
//!
//! [`data`] is what comes in.

pub mod data;
