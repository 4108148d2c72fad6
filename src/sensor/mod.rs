//! Observations to changes: pure state machines. Rows, notices and the time go
//! in; openings and ends come out, to a [`Judge`](crate::model::Judge) that says
//! whether a socket is in a sensor's view.

mod absence;
mod calls;
mod carry;
mod cgroups;
mod ends;
mod ledger;
mod listeners;
mod listing;
pub mod net_socket;
mod rows;
#[cfg(test)]
mod tests;
mod verdicts;
mod views;
mod ways;

pub use absence::Suspect;
pub use ledger::Ledger;
pub use listing::{Listing, Reader};
pub use net_socket::NetSocket;
pub use views::View;
