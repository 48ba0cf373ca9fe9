//! CPU time of a thread, as the kernel counts it.

use anyhow::{Context, Result};

pub(crate) const ROUNDS: usize = 15;

/// Runs `work`, which does something `count` times, in rounds, and prints the least and the median
/// time of one; does nothing if the program was started for other rows.
pub(crate) async fn table_row(
    name: &str,
    count: u64,
    mut work: impl AsyncFnMut() -> Result<()>,
) -> Result<()> {
    let mut wanted = std::env::args().skip(1).peekable();
    if wanted.peek().is_some() && !wanted.any(|part| name.contains(&part)) {
        return Ok(());
    }
    work().await?;
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let before = thread_time()?;
        work().await?;
        times.push((thread_time()? - before) / count);
    }
    times.sort_unstable();
    println!("| {name} | {} | {} |", times[0], times[ROUNDS / 2]);
    Ok(())
}

/// Nanoseconds that this thread has been on a CPU.
fn thread_time() -> Result<u64> {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").context("needs Linux")?;
    let first = schedstat.split(' ').next().context("an empty schedstat")?;
    Ok(first.parse()?)
}
