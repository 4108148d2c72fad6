//! sockwatch: the socket table of a Linux machine as exact events.

pub mod cli;
pub mod config;
pub mod daemon;
pub mod dump;
pub mod emit;
pub mod enrich;
pub mod filter;
pub mod lock;
pub mod log;
pub mod model;
pub mod pipeline;
pub mod reactor;
pub mod sensor;
pub mod source;
pub mod stats;
pub mod sys;
pub mod table;
pub mod wire;
