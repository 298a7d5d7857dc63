//! The transship binary.

fn main() {}
