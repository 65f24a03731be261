//! The referee, judged.

mod analysis;
mod checker;
mod comparison;
mod corpus;
mod filed;
mod logs;
mod processes;
mod report;
mod runner;
mod sides;
mod synthetic;
mod toys;
