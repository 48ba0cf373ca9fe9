//! Another program's component tests with our program in its place: what passes there passes here. The tests are
//! not ours and stay where they are; the edge that they reach is our own, on this machine.
//!
//! Knows what those tests need: an edge with a tunnel and a name, a way to `https://NAME` without DNS, and where
//! all of that is. Those that ask the public edge itself for something are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::child;
use crate::progress::{Progress, note};
use crate::tree::Tree;

/// `arguments`: the folder of the tests, and the program that they were written for. Without the program they
/// have to pass with ours; with it, those have to that pass with the program itself.
pub(crate) fn run(tree: &Tree, arguments: &[String]) -> Result<()> {
    let (tests, theirs) = match arguments {
        [tests] => (tests, None),
        [tests, theirs] => (tests, Some(theirs)),
        _ => bail!("give the folder of the tests, and the program that they were written for if it is here"),
    };
    let tests = std::fs::canonicalize(tests).with_context(|| format!("reading {tests}"))?;
    let theirs = theirs.map(std::fs::canonicalize).transpose().context("the program")?;
    let mut progress = Progress::of(STEPS + usize::from(theirs.is_some()));
    progress
        .step("building adit", || child::stream(tree.cargo().args(["build", "--package", "adit"]), ""))?;
    let adit = tree.target("debug/adit");
    let python = progress.step("finding what the tests need", || provide(tree, &tests))?;
    let mut try_with = |title, program: &Path, name| {
        let folder = tree.target("tmp/component-tests").join(name);
        progress.step(title, || outcomes(&adit, program, &python, &tests, &folder))
    };
    let theirs = theirs.map(|program| try_with("with the program itself", &program, "theirs")).transpose()?;
    let ours = try_with("with ours in its place", &adit, "ours")?;
    let missing = compare(theirs.as_ref(), &ours);
    ensure!(missing.is_empty(), "not passed with ours: {}", missing.join(", "));
    progress.finish("what has to pass does");
    Ok(())
}

/// Prints a table of both and hands back what has to pass with ours and does not.
fn compare(theirs: Option<&Outcomes>, ours: &Outcomes) -> Vec<String> {
    let names: BTreeSet<_> = theirs.into_iter().flatten().chain(ours).map(|(name, _)| name).collect();
    let mut missing = Vec::new();
    println!("{:>8} {:>8}", "theirs", "ours");
    for name in names {
        let own = theirs.map(|theirs| theirs.get(name).map_or(ABSENT, String::as_str));
        let in_place = ours.get(name).map_or(ABSENT, String::as_str);
        println!("{:>8} {in_place:>8}  {name}", own.unwrap_or(ABSENT));
        if in_place != PASSED && own.is_none_or(|own| own == PASSED) {
            missing.push(name.clone());
        }
    }
    missing
}

/// Runs all tests with `program` at an edge of its own.
fn outcomes(adit: &Path, program: &Path, python: &Path, tests: &Path, folder: &Path) -> Result<Outcomes> {
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let edge = Edge::start(adit, program, folder)?;
    let report = folder.join("report.xml");
    let mut pytest = Command::new(python);
    pytest.args(["-m", "pytest", "-p", "no:cacheprovider", "-v", "-rfE", "--tb=short"]);
    // Some ask 7 s later if they were too early, and must not take so long: on a busy machine either program fails.
    pytest.args(["--force-flaky", "--max-runs=3"]);
    pytest.arg(format!("--junitxml={}", report.display()));
    for public in OF_THE_PUBLIC_EDGE {
        pytest.arg(format!("--ignore={public}"));
    }
    let ca = folder.join("edge-data/ca.pem");
    let servers = [edge.servers.clone(), edge.servers.clone()].concat().join(",");
    pytest
        .current_dir(tests)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("COMPONENT_TESTS_CONFIG", folder.join("tests.yaml"))
        .env("HTTPS_PROXY", format!("http://{}", proxy(edge.visitors)?))
        .env("NO_PROXY", "localhost,127.0.0.1")
        .env("REQUESTS_CA_BUNDLE", &ca)
        .env("TUNNEL_EDGE", servers)
        .env("TUNNEL_CACERT", &ca)
        .env("TUNNEL_API_URL", format!("http://{}", edge.api))
        .env("TUNNEL_QUICK_SERVICE", format!("http://{}", edge.api));
    // That some fail is for the caller to judge; a report is there whenever they ran.
    if let Err(error) = child::stream(&mut pytest, "") {
        note(error.to_string());
    }
    let report = std::fs::read_to_string(&report).context("reading how the tests went")?;
    let outcomes: Outcomes = report.split("<testcase ").skip(1).filter_map(outcome).collect();
    ensure!(!outcomes.is_empty(), "no test ran");
    Ok(outcomes)
}

/// How each test went, by its name.
type Outcomes = BTreeMap<String, String>;

/// Reads one case of a report. What the test printed is escaped there.
fn outcome(case: &str) -> Option<(String, String)> {
    let text = |name: &str| case.split_once(&format!("{name}=\""))?.1.split('"').next();
    let failed = [("<failure", "failed"), ("<error", "error"), ("<skipped", "skipped")];
    let outcome = failed.iter().find(|(mark, _)| case.contains(mark)).map_or(PASSED, |(_, word)| word);
    Some((format!("{}::{}", text("classname")?, text(" name")?), outcome.to_owned()))
}

/// A Python with the packages that the tests name themselves.
fn provide(tree: &Tree, tests: &Path) -> Result<PathBuf> {
    let folder = tree.target("tools/component-tests");
    let python = folder.join("bin/python");
    if !python.is_file() {
        child::capture(
            Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder),
            FETCH_LIMIT,
            "install python3 with its venv module",
        )?;
    }
    let wanted = tests.join("requirements.txt");
    let mut pip = Command::new(&python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "setuptools",
        "--requirement",
    ]);
    child::capture(pip.arg(&wanted), FETCH_LIMIT, "")
        .with_context(|| format!("installing what {} lists", wanted.display()))?;
    note(format!("Python in {}", tree.short(&folder)));
    Ok(python)
}

/// Ends when it is dropped.
struct Edge {
    process: Child,
    servers: Vec<String>,
    visitors: SocketAddr,
    api: String,
}

impl Edge {
    fn start(adit: &Path, program: &Path, folder: &Path) -> Result<Self> {
        std::fs::write(folder.join("edge.toml"), DOCUMENT).context("writing the edge's document")?;
        let here = |arguments: &[&str]| {
            let mut command = Command::new(adit);
            command.current_dir(folder).args(arguments);
            command
        };
        child::capture(&mut here(&["edge", "init", "--zone", ZONE]), child::SHORT, "")?;
        let mut command =
            here(&["--log-format", "json", "--stop-with-stdin", "edge", "run", "--config", "edge.toml"]);
        let mut process =
            command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().context("starting the edge")?;
        let mut lines = BufReader::new(process.stderr.take().context("its log")?).lines();
        let (mut servers, mut visitors, mut api) = (Vec::new(), None, None);
        while servers.len() < 2 || visitors.is_none() || api.is_none() {
            let line = lines.next().context("the edge ended")?.context("reading its log")?;
            let Some(address) = field(&line, "address").filter(|_| line.contains("\"listening\"")) else {
                continue;
            };
            match field(&line, "kind") {
                Some("server") => servers.push(address.to_owned()),
                Some("visitors-https") => visitors = address.parse().ok(),
                Some("api") => api = Some(address.to_owned()),
                _ => {}
            }
        }
        // Read on, so that it can write on.
        thread::spawn(move || lines.for_each(drop));
        let (visitors, api) = (visitors.context("its visitors")?, api.context("its API")?);
        let edge = Self { process, servers, visitors, api };
        let api = format!("http://{}", edge.api);
        let flags = ["tunnel", "--api-url", &api, "--origincert", "cert.pem"];
        let tunnel = |arguments: &[&str]| {
            child::capture(&mut here(&[&flags[..], arguments].concat()), child::SHORT, "")
        };
        let made = tunnel(&["create", "--output", "json", "--credentials-file", "demo.json", "demo"])?;
        let id = field(&made, "id").context("the tunnel has no id")?.to_owned();
        tunnel(&["route", "dns", "demo", NAME])?;
        let shown = |name: &str| folder.join(name).display().to_string();
        let config = format!(
            "cloudflared_binary: {:?}\ntunnel: {id:?}\ncredentials_file: {:?}\norigincert: {:?}\n\
             ingress:\n- hostname: {NAME}\n  service: hello_world\n- service: http_status:404\n",
            program.display().to_string(),
            shown("demo.json"),
            shown("cert.pem"),
        );
        std::fs::write(folder.join("tests.yaml"), config).context("writing the tests' configuration")?;
        Ok(edge)
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The text of a field of a JSON object, without a parser: these are our own lines.
fn field<'l>(line: &'l str, name: &str) -> Option<&'l str> {
    let (_, rest) = line.split_once(&format!("\"{name}\":"))?;
    rest.trim_start().strip_prefix('"')?.split('"').next()
}

/// Leads every `CONNECT` to the edge's visitors, whatever name it is for: nothing has to be in DNS.
fn proxy(visitors: SocketAddr) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("listening for the tests")?;
    let address = listener.local_addr().context("an address")?;
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || lead(client, visitors));
        }
    });
    Ok(address)
}

fn lead(mut client: TcpStream, visitors: SocketAddr) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < LONGEST_HEAD {
        let mut byte = [0];
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let mut edge = TcpStream::connect(visitors).ok()?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
    let (mut from, mut to) = (client.try_clone().ok()?, edge.try_clone().ok()?);
    thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let _ = std::io::copy(&mut edge, &mut client);
    let _ = client.shutdown(std::net::Shutdown::Write);
    Some(())
}

const PASSED: &str = "passed";
const ABSENT: &str = "-";
const STEPS: usize = 3;
const FETCH_LIMIT: Duration = Duration::from_secs(300);
const LONGEST_HEAD: usize = 16 * 1024;
const ZONE: &str = "component.test";
const NAME: &str = "tests.component.test";
const DOCUMENT: &str = "\
[visitors]
http = \"127.0.0.1:0\"
https = \"127.0.0.1:0\"
[api]
listen = \"127.0.0.1:0\"
tunnel-domain = \"tunnels.test\"
quick-domain = \"try.test\"
[admin]
listen = \"127.0.0.1:0\"
[[server]]
region = \"west\"
listen = \"127.0.0.1:0\"
[[server]]
region = \"east\"
listen = \"127.0.0.1:0\"
";
/// They look up its names, ask its management service, or install a service on this machine.
const OF_THE_PUBLIC_EDGE: [&str; 5] =
    ["test_management.py", "test_tail.py", "test_edge_discovery.py", "test_prechecks.py", "test_service.py"];
