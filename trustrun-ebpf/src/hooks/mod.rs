//! One file per hook. Each says why this hook, from which kernel, and what it cannot see.

mod connect;
mod egress;
mod ingress;
mod packet_sent;
mod post_bind;
mod process_exec;
mod process_exit;
mod process_fork;
mod process_moved;
mod sendmsg;
mod sock_create;
mod sock_release;
mod sockops;
mod unix_border;
mod unix_peer;
