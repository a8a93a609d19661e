//! What aya may copy to and from the kernel.

use crate::{
    Binding, BoundName, Config, DatagramKey, DatagramState, ListenKey, NameValue, PendingKey, PendingValue, PortValue,
    SearchName, SocketState,
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
    Config
);
