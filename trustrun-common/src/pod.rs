//! What aya may copy to and from the kernel.

use crate::{
    Binding, BoundName, Classing, Config, DatagramKey, DatagramState, FileKey, ListenKey, NameValue, NetValue,
    PendingKey, PendingValue, PortValue, SearchName, SocketState,
};

macro_rules! pod {
    ($($t:ty),+) => { $(
        // SAFETY: repr(C), fixed-width integer fields and explicit padding only (asserted where they are declared), so every bit
        // pattern is a value and no byte is uninitialised.
        unsafe impl aya::Pod for $t {}
    )+ };
}
pod!(
    NameValue,
    NetValue,
    SearchName,
    PortValue,
    Binding,
    BoundName,
    ListenKey,
    PendingKey,
    PendingValue,
    SocketState,
    DatagramKey,
    DatagramState,
    Config,
    Classing,
    FileKey
);
