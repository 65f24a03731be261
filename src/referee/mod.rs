//! The referee: one workload through one schedule of faults on several systems, and a verdict on what each promised.
//!
//! [`client`] is all that it knows of a system; [`history`] what happened, as it is kept ([`watched`]: what watchers were told), and
//! [`leases`] what it says of each lease. [`checker`] decides whether a history of calls can be explained by one machine taking them
//! one at a time, [`formats`] reads histories from files, ours and others', and [`check`] is the library side of `quorate check`.
//!
//! [`runner`] makes one run: [`workload`] calls (what [`generator`], [`contest`] and [`holders`] think of, who write to [`resource`]s too),
//! [`nemesis`] carries a [`plan`] of the [`kinds`] of fault out ([`targets`] says to whom; [`acts`], [`probes`]), keeps the [`situation`]
//! and leaves a [`schedule`]; [`observer`] looks at every node, [`watching`] follows what changes, [`recorder`] writes down; they share
//! a [`scene`]. [`compare`] has several systems run under one schedule ([`environment`] tells on what machine), for [`analysis`] and
//! [`report`]; a [`campaign`] is many of them.

pub mod acts;
pub mod analysis;
pub mod campaign;
pub mod check;
pub mod checker;
pub mod client;
pub mod compare;
pub mod contest;
pub mod environment;
pub mod formats;
pub mod generator;
pub mod history;
pub mod holders;
pub mod kinds;
pub mod leases;
pub mod nemesis;
pub mod observer;
pub mod plan;
pub mod probes;
pub mod recorder;
pub mod report;
pub mod resource;
pub mod runner;
pub mod scene;
pub mod schedule;
pub mod situation;
pub mod targets;
pub mod watched;
pub mod watching;
pub mod workload;
