//! (in the making)

pub mod output;
