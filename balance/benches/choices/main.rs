//! What a choice costs, and what it is worth: `cargo xtask bench choices`.

mod price;
mod simulation;

use std::process::ExitCode;

fn main() -> ExitCode {
    // As `cargo test --benches` starts it; there it is only looked whether it is built.
    if std::env::args().any(|word| word == "--test") {
        return ExitCode::SUCCESS;
    }
    let is_cheap = price::print();
    let is_in_order = simulation::print();
    if is_cheap && is_in_order { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
