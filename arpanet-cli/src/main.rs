//! arpanet2: one cluster of separate docker hosts.

fn main() {}
