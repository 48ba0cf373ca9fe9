//! Many tunnels and names: lists come page by page, a restart has them all, and how long and how large it
//! is, is printed. `ADIT_SCALE=10000 cargo test -p adit-edge --test edge -- --nocapture api_scale`.

use std::time::Instant;

use adit_edge::TokenRequest;
use futures_util::StreamExt;
use http::Method;
use serde_json::json;

use crate::office::Office;

#[tokio::test]
async fn many_tunnels_are_listed_in_pages_and_are_there_after_a_restart() {
    let count: usize = std::env::var("ADIT_SCALE").ok().and_then(|count| count.parse().ok()).unwrap_or(300);
    let mut office = Office::open().await;
    // What one token may do is limited.
    let mut tokens = vec![office.token.clone()];
    while tokens.len() * 500 < count {
        tokens.push(office.token(TokenRequest::default()).await);
    }
    let start = Instant::now();
    let (list, routes) = (office.tunnels(), format!("/zones/{}/tunnels", office.zone));
    let make = async |number: usize| {
        let token = &tokens[number % tokens.len()];
        let body = json!({ "name": format!("tunnel-{number:05}") });
        let made = office.ask_as(token, Method::POST, &list, Some(body)).await.result();
        let body = json!({ "type": "dns", "user_hostname": format!("name-{number:05}.example.com") });
        let path = format!("{routes}/{}/routes", made["id"].as_str().unwrap());
        office.ask_as(token, Method::PUT, &path, Some(body)).await.result();
    };
    futures_util::stream::iter(0..count).map(make).buffer_unordered(64).collect::<Vec<_>>().await;
    println!("{count} tunnels and {count} routes made in {:?}", start.elapsed());

    let start = Instant::now();
    let (mut seen, mut page, mut slowest) = (0, 1, start.elapsed());
    loop {
        let asked = Instant::now();
        let some = office.get(&format!("{list}?per_page=100&page={page}")).await;
        slowest = slowest.max(asked.elapsed());
        seen += some.as_array().unwrap().len();
        page += 1;
        if some.as_array().unwrap().len() < 100 {
            break;
        }
    }
    assert_eq!(seen, count);
    println!("listed in {:?}, the slowest of {} pages in {slowest:?}", start.elapsed(), page - 1);

    office.edge.stop.cancel();
    (&mut office.edge.running).await.unwrap().unwrap();
    let start = Instant::now();
    office.reopen();
    let last = office.get(&format!("{list}?name=tunnel-{:05}", count - 1)).await;
    assert_eq!(last.as_array().unwrap().len(), 1);
    let memory = std::fs::read_to_string("/proc/self/status").unwrap();
    let memory = memory.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    println!("started again in {:?}; {memory} (with this test)", start.elapsed());
    assert_eq!(office.visit(&format!("name-{:05}.example.com", count - 1)).await, 530);
}
