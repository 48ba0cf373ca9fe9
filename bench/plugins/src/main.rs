//! What a plugin costs, in CPU time of the calling thread: first every shape in which a head could
//! cross into a guest, then the filter of the product, without bodies and with them, and services of
//! both releases of WASI. Prints four tables; judges nothing.
//!
//! `cargo xtask bench-plugins` builds this optimised and runs it.

mod bodies;
mod product;
mod services;
mod shapes;
mod timing;

use anyhow::Result;

/// Headers as a browser sends them.
const HEADERS: [(&str, &str); 15] = [
    ("host", "app.example.com"),
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36",
    ),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
    ("accept-language", "en-GB,en;q=0.9,de;q=0.8"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("cookie", "session=0f3c9a7b5e1d4826a4c1f00dba5eba11; theme=dark; consent=yes"),
    ("referer", "https://app.example.com/overview"),
    ("cache-control", "no-cache"),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-site", "same-origin"),
    ("x-forwarded-for", "192.0.2.17"),
    ("x-forwarded-proto", "https"),
    ("cf-ray", "8d2f1c7e9a0b1c2d-TST"),
    ("authorization", "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl"),
];

fn main() -> Result<()> {
    println!("CPU time of one call, nanoseconds, least and median of {} rounds\n", timing::ROUNDS);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(shapes::measure())?;
    println!();
    runtime.block_on(product::measure())?;
    println!();
    runtime.block_on(bodies::measure())?;
    println!();
    runtime.block_on(services::measure())
}
