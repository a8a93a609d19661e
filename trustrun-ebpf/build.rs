//! How the kernel programs are linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Without this, LLVM calls a function of ours, a loop over bytes, wherever 16 zeroes are written: slow when it runs,
    // slow to verify, and a call where a tail call is, which arm64 refuses before Linux 6.0.
    println!("cargo::rustc-link-arg-bins=--disable-expand-memcpy-in-order");
}
