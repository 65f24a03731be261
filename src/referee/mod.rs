//! The referee: one workload through one schedule of faults on several systems, and a verdict on what each promised.
//!
//! [`client`] is all that it knows of a system; [`history`] what happened, as it is kept.

pub mod client;
pub mod history;
pub mod report;
