//! The referee, judged.

mod corpus;
