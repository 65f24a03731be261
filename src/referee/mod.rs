//! The referee: one workload through one schedule of faults on several systems, and a verdict on what each promised.
//!
//! [`client`] is all that it knows of a system; [`history`] what happened, as it is kept. [`checker`] decides whether a history of
//! calls can be explained by one machine taking them one at a time, [`formats`] reads histories from files, ours and others', and
//! [`check`] is the library side of `quorate check`.

pub mod check;
pub mod checker;
pub mod client;
pub mod formats;
pub mod history;
pub mod report;
