//! The capabilities that the command keeps.

use caps::{CapSet, Capability};

/// What a container keeps by default, without CAP_NET_RAW, CAP_SYS_CHROOT and CAP_MKNOD, which are ways out.
const KEPT: [Capability; 11] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FSETID,
    Capability::CAP_FOWNER,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
    Capability::CAP_SETFCAP,
    Capability::CAP_SETPCAP,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_KILL,
    Capability::CAP_AUDIT_WRITE,
];

/// Drops every capability that is not kept, while still root.
pub(super) fn drop_the_rest() -> Result<(), String> {
    for cap in caps::all().into_iter().filter(|c| !KEPT.contains(c)) {
        // EINVAL: a capability that this kernel does not know.
        let _ = caps::drop(None, CapSet::Bounding, cap);
        let _ = caps::drop(None, CapSet::Inheritable, cap);
    }
    let kept = KEPT.into_iter().collect();
    // Effective first: it may never exceed what is permitted.
    caps::set(None, CapSet::Effective, &kept)
        .and_then(|()| caps::set(None, CapSet::Permitted, &kept))
        .map_err(|e| e.to_string())
}
