//! The referee, judged.

mod checker;
mod corpus;
mod toys;
