//! The referee, judged.

mod analysis;
mod checker;
mod corpus;
mod filed;
mod runner;
mod logs;
mod report;
mod synthetic;
mod toys;
