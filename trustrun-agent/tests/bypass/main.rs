//! The bypass suite: a program for each known way around an egress monitor, run as an ordinary user inside a strict
//! session and as root inside a blocking one (`--strict` starts nothing as root), with the far end as the judge.
//!
//! `way` says what a way is, `ways/` holds them as data, `programs/` what they run. `judge` watches the lab's only wire,
//! `session` runs programs bare and under TrustRun, `outcome` decides what became of each, `table` tells.
//! A way that works for nobody on this machine is skipped aloud; one that works without TrustRun must be refused
//! (nothing arrived) or told (a gap that names it). `cargo xtask bypass` writes the outcome to docs/bypasses.md.

mod judge;
mod outcome;
mod outside;
mod programs;
mod session;
mod table;
mod way;
mod ways;

use trustrun_lab::{Lab, LabBuilder, skip};
use way::{User, Way};

/// Runs a family as one user, prints what became of each way, and fails if one was neither refused nor told.
fn family(name: &str, ways: &'static [Way], user: User) {
    family_in(Lab::builder(), name, ways, user);
}

fn family_in(builder: LabBuilder, name: &str, ways: &'static [Way], user: User) {
    let Some(programs) = programs::built() else { return };
    let lab = match (0..u8::try_from(ways.len()).expect("few ways")).fold(builder, way::addresses).start() {
        Ok(lab) => lab,
        Err(e) if e.is_permission() => return skip(&e.to_string()),
        Err(e) => panic!("{e}"),
    };
    lab.set_resolv_conf(&ways::names::resolv_conf()).expect("resolv.conf of the lab");
    let rows = outcome::of_all(&lab, programs, ways, user);
    table::tell(name, user, &rows);
    let bad: Vec<String> = rows.iter().filter(|row| row.bad()).map(ToString::to_string).collect();
    assert!(bad.is_empty(), "neither refused nor told, as {}:\n{}", user.name(), bad.join("\n"));
}

#[test]
fn sockets_of_an_ordinary_user() {
    family("Sockets", ways::sockets::ALL, User::Ordinary);
}

#[test]
fn sockets_of_root() {
    family("Sockets", ways::sockets::ALL, User::Root);
}

#[test]
fn escapes_of_an_ordinary_user() {
    family("Escape", ways::escape::ALL, User::Ordinary);
}

#[test]
fn escapes_of_root() {
    family("Escape", ways::escape::ALL, User::Root);
}

#[test]
fn others_who_act_for_an_ordinary_user() {
    family("Others", ways::others::ALL, User::Ordinary);
}

#[test]
fn others_who_act_for_root() {
    family("Others", ways::others::ALL, User::Root);
}

#[test]
fn files_shared_by_an_ordinary_user() {
    family("Shared", ways::others::SHARED, User::Ordinary);
}

#[test]
fn files_shared_by_root() {
    family("Shared", ways::others::SHARED, User::Root);
}

#[test]
fn doors_of_an_ordinary_user() {
    family("Doors", ways::doors::ALL, User::Ordinary);
}

#[test]
fn doors_of_root() {
    family("Doors", ways::doors::ALL, User::Root);
}

#[test]
fn names_of_an_ordinary_user() {
    family_in(ways::names::lab(Lab::builder()), "Names", ways::names::ALL, User::Ordinary);
}

#[test]
fn names_of_root() {
    family_in(ways::names::lab(Lab::builder()), "Names", ways::names::ALL, User::Root);
}

#[test]
fn identities_of_an_ordinary_user() {
    family("Identity", ways::identity::ALL, User::Ordinary);
}

#[test]
fn identities_of_root() {
    family("Identity", ways::identity::ALL, User::Root);
}

#[test]
#[ignore = "where it works the whole machine is without hooks until it boots again: for guests, the last of their tests"]
fn machine_of_an_ordinary_user() {
    family("Machine", ways::escape::MACHINE, User::Ordinary);
}

/// The suite must be able to fail: what is allowed arrives, is found, and is then neither refused nor told.
#[test]
fn what_gets_out_is_found() {
    static OPEN: [Way; 1] = [Way {
        id: "open",
        line: "{bin}/sockets tcp 203.0.113.10 {to6} {token}",
        judge: way::Judge::Token,
        ..way::WAY
    }];
    let Some(programs) = programs::built() else { return };
    let lab = match Lab::start() {
        Ok(lab) => lab,
        Err(e) if e.is_permission() => return skip(&e.to_string()),
        Err(e) => panic!("{e}"),
    };
    let rows = outcome::of_all(&lab, programs, &OPEN, User::Root);
    assert!(matches!(rows[0].outcome, outcome::Outcome::Unseen(_)) && rows[0].bad(), "{}", rows[0]);
}
