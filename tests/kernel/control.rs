//! The control socket of the real binary: what it answers, whom, and what it
//! makes of clients that mean it no good.

pub mod client;
mod ctl;
mod hostile;
mod load;
mod place;
mod requests;
