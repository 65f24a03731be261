//! The referee, judged.

mod checker;
mod corpus;
mod filed;
mod runner;
mod toys;
