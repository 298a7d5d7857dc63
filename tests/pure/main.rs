//! What needs nothing but this repository: plans of captured hosts, nodes as people have them, the order of the sources
//! and the language of the documents.

#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is a test")]

#[path = "../hosts/fixtures.rs"]
mod fixtures;
mod lab;
#[path = "../support/fuzz.rs"]
mod variants;

mod architecture;
mod odd_nodes;
mod plain_english;
mod plans;
