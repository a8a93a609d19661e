//! What happens to the process that `trustrun run` starts: its exit, signals, pipes, terminal, user and locks, and
//! that nothing of a session is left behind.

#[path = "../harness/mod.rs"]
mod harness;

mod border;
mod doctor;
mod doors;
mod ends;
mod identity;
mod listeners;
mod locks;
mod root;
mod sessions;
mod terminal;
