//! What is kept of a socket: how it begins, and `SOCKETS`.

use trustrun_common::{STAGE_DONE, SocketState, counter};

use crate::{
    decide::NO_RULE,
    emit::{NOWHERE, Owner},
    maps::{SOCKETS, count},
};

/// A socket of which nothing is known but whose it is: nothing was decided, and nothing is to be read.
#[inline(always)]
pub fn known(protocol: u8, owner: Owner) -> SocketState {
    SocketState {
        peer: NOWHERE,
        local: NOWHERE,
        tgid: owner.tgid,
        tid: owner.tid,
        uid: owner.uid,
        sequence: 0,
        rule: NO_RULE,
        next: 0,
        looked: 0,
        base: 0,
        pad2: 0,
        port: 0,
        protocol,
        direction: 0,
        action: 0,
        reason: 0,
        stage: STAGE_DONE,
        flags: 0,
        local_port: 0,
        class: owner.class,
        pad: 0,
        sent: 0,
        received: 0,
    }
}

/// Keeps it; false if there was no room, which is counted.
#[inline(always)]
pub fn keep(cookie: u64, st: &SocketState) -> bool {
    let kept = SOCKETS.insert(&cookie, st, 0).is_ok();
    if !kept {
        count(counter::SOCKETS_FULL);
    }
    kept
}
