//! sockwatch turns the socket table of a Linux machine into exact events, over
//! netlink `sock_diag` alone. This page is the guide for whoever carries on: the
//! words, the layers, and the way of an event. How to use the program stands in
//! the README.
//!
//! # The idea
//!
//! Two things can be had from the kernel without privilege. A **dump** lists the
//! sockets that exist; the multicast groups of `sock_diag` tell of each socket
//! that has just been destroyed: a **notice**. Dumps alone miss what lives
//! between two of them, and guess at ends from absence, which under churn is
//! wrong often enough. Notices alone know nothing of what is open. Joined by the
//! socket **cookie**, an identity that the kernel never hands out twice, they
//! say of every socket that it opened once and closed once, with proof. Each
//! event names its **evidence**, and what could not be known is told as such.
//!
//! # Words
//!
//! * **row**: one socket in a dump, [`model::Row`]; **notice**: one destroyed
//!   socket, [`model::Notice`].
//! * **tick**: the fixed interval at which a sensor's dump is due.
//! * **table**: every socket read and not ended, in a view or not
//!   ([`table::Table`]); keyed by [`model::SocketKey`], namespace and cookie.
//! * **view**: the sockets that are open as one sensor sees them. A socket enters
//!   when its tuple passes the sensor's filter, and leaves when it ends, whatever
//!   happens to its state in between. One bit a sensor in each table entry.
//! * **tuple**: the text that patterns match:
//!   `<proto> <local> <remote> <remote-host> <state>`.
//! * **minisocket**: a handshake that is not done (SYN_RECV) or what remains of a
//!   connection (TIME_WAIT, FIN_WAIT2). It may bear its full socket's cookie, and
//!   no notice tells of its end; so it opens nothing unless a pattern asks for it.
//! * **tombstone**: the cookie of a socket that has ended, kept while a row of it
//!   may still be unread ([`table::Tombstones`]).
//! * **gap**: a stretch in which something was lost: notices because the receive
//!   buffer was full, or events because a sink lagged behind. Written as a record
//!   of its own when everything in it is accounted for.
//! * **who**: everything known of a socket's owner: who called connect(), who has it
//!   open, its cgroup ([`model::Who`]); shared by all sockets of which it is the same.
//! * **sought**: the TCP sockets that some pattern could want by their ends
//!   ([`model::Sought`]); the kernel is asked for no others.
//! * **place**: one network namespace that is watched, with its sensor and what it
//!   takes to dump it (`daemon::place`); **scout**: the thread that goes into other
//!   namespaces (`source::netns`).
//! * **coverage**: what a dump asked for. Only a completed dump counts, and only
//!   for what it covers ([`model::Coverage`]).
//!
//! # Layers
//!
//! Data moves from the top of this list to the bottom of the program and out; a
//! `use` points only to a lower level, and modules of one level know nothing of
//! each other (but for the log, which writes through `sys`).
//!
//! | level | module | job |
//! | --- | --- | --- |
//! | 0 | [`sys`] | file descriptors and system calls; the only `unsafe` |
//! | 0 | [`stats`], [`log`](mod@log) | counters; the log, and how often it may speak |
//! | 0 | [`aging`] | a bounded table, oldest out |
//! | 0 | [`order`] | one sort for all |
//! | 1 | [`model`] | plain data |
//! | 2 | [`wire`] | bytes to model and back; pure |
//! | 3 | [`source`] | descriptors to observations: a scope's dumps, queries, notices |
//! | 3 | [`table`] | sockets by identity |
//! | 3 | [`filter`] | compiled globs; what can be asked of the kernel |
//! | 3 | [`enrich`] | reverse and resolved names, processes, users, cgroups; what blocks has threads of its own |
//! | 3 | [`lock`] | event ids that are muted |
//! | 3 | [`state`] | what survives a restart: a base and a journal |
//! | 3 | [`emit`] | JSON, text, and sinks that never wait |
//! | 4 | [`sensor`] | observations to changes; pure |
//! | 4 | [`pipeline`] | changes to records; pure but for its sinks and the pool |
//! | 5 | [`config`] | YAML to settings, every mistake at once |
//! | 6 | [`reactor`] | the one loop |
//! | 6 | [`control`] | the Unix socket: what is asked of a running daemon |
//! | 6 | [`handlers`] | programs and files that take events, and release locks |
//! | 7 | [`daemon`], [`dump`] | the two modes, wired from all of the above |
//! | 7 | [`ctl`] | the client of the control socket |
//! | 8 | [`cli`] | flags, modes, exit codes |
//!
//! The rule has one seam that is worth knowing. A sensor must learn whether a
//! socket passed its filter, which the pipeline decides, perhaps seconds later
//! when a name has come. Neither imports the other: the sensor speaks to a
//! [`model::Judge`], which the pipeline implements, and a late decision comes
//! back as a [`model::Settled`] that the daemon carries over.
//!
//! # The way of an event
//!
//! 1. The [`reactor`] wakes because a notice socket is readable, or a tick is due
//!    and a dump has been asked for. Notices come first in every turn: a full
//!    receive buffer loses them, while a dump waits in the kernel. A dump is read
//!    one datagram a turn.
//! 2. [`source`] checks the sender, the length and the sequence number, and
//!    [`wire::sock_diag`] reads rows and notices by offset.
//! 3. [`sensor::NetSocket`] finds the socket in the table. A row that says
//!    nothing new costs one look-up. A new one is *staged*: entered, but told to
//!    nobody until its dump completes. A notice ends the entry, or, for a cookie
//!    never read, makes an `opened` and its `closed` at once.
//! 4. Each sensor that does not have the socket in view is offered it; each that
//!    has it in view is told of its end. That is a [`model::Change`].
//! 5. The [`pipeline`] filters it. If a name can still decide it, or is to be
//!    shown, the change stands in line for it, and whatever happens to the same
//!    socket queues up behind; every other socket passes.
//!    So does an opening that waits for who has the socket, or for the path of its
//!    cgroup: not the view, only the event waits. A `closed` event carries what was
//!    known while the socket was open.
//! 6. A locked event id that has been emitted is muted and counted.
//! 7. Every sink is offered the [`model::Event`]. A sink that has no room drops
//!    whole events, counts them, and owns up with a gap record in the stream.
//!
//! # When things go wrong
//!
//! * **The receive buffer was full** (ENOBUFS): from here on absence counts. A
//!   reconciling dump runs at once. A connected TCP socket that is missing from it
//!   is asked about by exact query; a listener, a bound socket or a UDP socket
//!   must be missing from a second dump as well, because the exact query says
//!   "gone" of live ones. What is found is closed as `verified`, then the gap
//!   record is written (`sensor::absence`).
//! * **A group cannot be joined, or stays silent**: the daemon proves each group
//!   at start with a socket of its own. Where that fails the family and protocol
//!   are *blind*: absence counts at every tick, and a `degraded` record says what
//!   that costs.
//! * **A namespace ends**: the announcement (RTM_DELNSID) comes behind all its notices;
//!   what is left in its table is closed as `verified`.
//! * **A narrowed dump misses a socket of the table**: it was connected anew to where
//!   nobody looks, or its notice is late; a whole dump follows at once. What that
//!   misses too is looked for now and then.
//! * **A dump fails**: it changes nothing, is counted, and is tried again.
//! * **The resolver is dead**: events go on without a name after `dns-timeout`;
//!   nothing else waits for it.
//!
//! # Where to begin
//!
//! `sensor/tests/machine.rs` is a simulated kernel that plays every race against the
//! sensor; a change of semantics starts there. `tests/kernel/` does the same with
//! the real one, in namespaces that it makes itself.

pub mod aging;
pub mod cli;
pub mod config;
pub mod control;
pub mod ctl;
pub mod daemon;
pub mod dump;
pub mod emit;
pub mod enrich;
pub mod filter;
pub mod handlers;
pub mod lock;
pub mod log;
pub mod model;
pub mod order;
pub mod pipeline;
pub mod reactor;
pub mod sensor;
pub mod source;
pub mod state;
pub mod stats;
pub mod sys;
pub mod table;
pub mod wire;
