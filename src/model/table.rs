//! The replicated table of `cp`.
