//! Several edges of one state: what becomes of orders where one of them is killed, and how long a name waits for its
//! certificate at all of them.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use adit_edge::{Edge, Settings};
use tokio_util::sync::CancellationToken;

use crate::authority::{Authority, Planned};
use crate::harness::{Fixture, LocalSet, start_told};
use crate::issuance::is_shown;
use crate::office::{API, Office};
use crate::shown_certificates::until;

const YEARS: u64 = 5 * 365 * 24 * 60 * 60;
const READY: &str = "killable.ready";
const FOLDER: &str = "ADIT_EDGE_OF_A_TEST";

/// An edge in a process of its own, so that it can be killed.
pub(crate) struct Killable(Child);

impl Killable {
    /// With the document of an edge in this folder, and its state.
    pub(crate) async fn start(folder: &Path) -> Self {
        fs::copy(folder.join("edge.toml"), folder.join("killable.toml")).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "killed::is_killed", "--nocapture"]);
        command.env(FOLDER, folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let ready = folder.join(READY);
        until(async || ready.exists().then_some(())).await;
        Self(child)
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Where it serves visitors, and hosts.
    pub(crate) fn addresses(folder: &Path) -> [SocketAddr; 2] {
        let text = fs::read_to_string(folder.join(READY)).unwrap();
        let addresses: Vec<SocketAddr> = text.lines().map(|line| line.parse().unwrap()).collect();
        addresses.try_into().unwrap()
    }

    /// At once, as by the system.
    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[ignore = "is the process that others kill"]
#[tokio::test]
async fn is_killed() {
    let Some(folder) = std::env::var_os(FOLDER).map(std::path::PathBuf::from) else { return };
    let edge = Edge::build(Settings::load(&folder.join("killable.toml")).unwrap()).unwrap();
    let addresses = format!("{}\n{}\n", edge.visitors_http().unwrap(), edge.servers()[0].address);
    // Whole at once, for those who look for it.
    fs::write(folder.join("killable.begun"), addresses).unwrap();
    fs::rename(folder.join("killable.begun"), folder.join(READY)).unwrap();
    edge.run(CancellationToken::new()).await.unwrap();
}

async fn route_all(office: &Office, count: usize) -> Vec<String> {
    let tunnel = office.create("one").await["id"].as_str().unwrap().to_owned();
    let names: Vec<String> = (0..count).map(|number| format!("n{number}.example.com")).collect();
    for name in &names {
        office.route(&tunnel, name, false).await.result();
    }
    names
}

/// Names that are issued, and those that somebody has claimed and not ordered to the end.
async fn progress(edge: &Fixture) -> (usize, usize) {
    let (_, page) = edge.admin("/certificates").await;
    let claimed = |one: &&serde_json::Value| one["is_under_way"] == true;
    (
        page["issued"].as_array().unwrap().len(),
        page["orders"].as_array().unwrap().iter().filter(claimed).count(),
    )
}

/// Two edges order so many names; one of them is killed when the authority has seen half of the orders.
async fn kill_one(count: usize) -> Option<(Office, Authority, Vec<String>, usize)> {
    let planned = Planned::new()?;
    let limits = "orders-per-zone = 10000\norders-per-account = 10000\nchallenges = [\"http-01\"]";
    let office = Office::open_with(&planned.section(limits)).await;
    let mut other = Killable::start(office.edge.folder.path()).await;
    let authority = planned.start(office.edge.http, office.edge.https, YEARS).await;
    let names = route_all(&office, count).await;
    until(async || (authority.orders() >= count / 2).then_some(())).await;
    other.kill();
    // Whoever is left orders all but what the other one had claimed.
    let left = until(async || {
        let (issued, claimed) = progress(&office.edge).await;
        (issued + claimed == count && claimed <= AT_ONCE && authority.orders() >= issued).then_some(claimed)
    });
    let left = left.await;
    Some((office, authority, names, left))
}

#[tokio::test]
async fn what_a_killed_edge_had_claimed_is_ordered_by_nobody_else_meanwhile() {
    LocalSet::new()
        .run_until(async {
            let Some((office, authority, names, left)) = kill_one(12).await else { return };
            assert!(authority.orders() <= names.len(), "{} orders", authority.orders());
            // The rest is shown by the one that is left.
            let mut shown = 0;
            for name in &names {
                shown += usize::from(is_shown(&office.edge, name, name).await.is_some());
            }
            assert_eq!(shown + left, names.len());
        })
        .await;
}

/// `cargo test -p adit-edge --test edge -- --ignored --nocapture killed::a_killed_edge`
#[ignore = "a claim lasts ten minutes"]
#[tokio::test]
async fn a_killed_edges_names_are_ordered_once_more_when_its_claims_have_ended() {
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let Some((office, authority, names, left)) = kill_one(60).await else { return };
            let before = authority.orders();
            println!(
                "{} names, {before} orders when one of two edges was killed; {left} were claimed by it",
                names.len()
            );
            until(async || (progress(&office.edge).await.0 == names.len()).then_some(())).await;
            let repeated = authority.orders() - names.len();
            println!("{} orders in all for {} names: {repeated} repeated", authority.orders(), names.len());
            assert!(repeated <= left);
        })
        .await;
}

/// `cargo test -p adit-edge --test edge -- --ignored --nocapture killed::from_a_route`
#[ignore = "measures, and wants a machine for itself"]
#[tokio::test(flavor = "multi_thread")]
async fn from_a_route_to_the_first_valid_answer_at_every_edge() {
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let Some(planned) = Planned::new() else { return };
            let planned = planned.slow(Duration::from_millis(100));
            let limits = "orders-per-zone = 10000\norders-per-account = 10000\nchallenges = [\"http-01\"]";
            let section = planned.section(limits);
            let office = Office::open_with(&section).await;
            let other = start_told(office.edge.folder.clone(), "", &format!("{API}{section}"));
            let authority = planned.start(office.edge.http, office.edge.https, YEARS).await;
            let tunnel = office.create("one").await["id"].as_str().unwrap().to_owned();
            let mut all = Vec::new();
            for number in 0..40 {
                let (name, began) = (format!("n{number}.example.com"), Instant::now());
                office.route(&tunnel, &name, false).await.result();
                for edge in [&office.edge, &other] {
                    until(async || is_shown(edge, &name, &name).await).await;
                }
                all.push(began.elapsed());
            }
            all.sort();
            let at = |part: usize| all[(all.len() * part / 100).min(all.len() - 1)];
            println!("{} names: median {:?}, p95 {:?}, longest {:?}", all.len(), at(50), at(95), at(100));
            assert_eq!(authority.orders(), all.len());
            assert!(at(95) < Duration::from_secs(5));
        })
        .await;
}

/// Orders of one edge under way.
const AT_ONCE: usize = 4;
