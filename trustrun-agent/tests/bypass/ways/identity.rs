//! Hiding who it was, or that it happened. A refusal is not enough here: it must also be in the report.

use crate::way::{WAY, Way};

macro_rules! hides {
    ($id:literal, $title:literal) => {
        Way {
            id: $id,
            title: $title,
            line: concat!("{bin}/identity ", $id, " {to} {token} {many}"),
            in_report: true,
            ..WAY
        }
    };
}

pub(crate) const ALL: &[Way] = &[
    hides!("thread", "a worker thread"),
    hides!("after_leader", "a thread that outlives the first one"),
    hides!("renamed", "another name and other arguments than it was started with"),
    hides!("short_lived", "processes that live only to connect"),
    hides!("pid_reused", "a process after thousands of others, whose id may come again"),
    Way {
        alone: true,
        told: &["events-dropped"],
        ..hides!("flood_sockets", "refused sockets by the hundred thousand around the one that matters")
    },
    Way {
        alone: true,
        told: &["events-dropped", "datagrams-not-kept"],
        ..hides!("flood_peers", "refused peers of one socket by the hundred thousand around the one that matters")
    },
];
