//! Nothing: everything is in the bench target `adit`, which `cargo xtask bench` runs.
