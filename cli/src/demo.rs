//! `adit demo`: an edge with two regions of two servers each, a host with four connections, the
//! built-in origin and two plugins, as two processes of this same program in this process group.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, Command};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::admin::Admin;
use crate::{Failure, credentials, dashboard, password, signals};

const PREFERRED_PORT: u16 = 8080;
const SERVERS: usize = 4;
/// What each process may take to come up; compiling the plugins is part of it.
const START_LIMIT: Duration = Duration::from_secs(60);
/// What each process may take to stop before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// How long the requests of a demo are kept; nobody looks at one for longer.
const WATCH: Duration = Duration::from_secs(24 * 60 * 60);
const TOKEN: &str = "admin.token";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder with the components headers.wasm and basic_auth.wasm, in place of those inside of this program
    #[arg(long, value_name = "FOLDER")]
    plugins: Option<PathBuf>,
    /// Where visitors are served; by default port 8080 of this machine, or a free one
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Keep the configuration files and logs here; by default they go when the demo stops
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

/// Runs the demo until a signal stops it.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let components = components(arguments.plugins.as_deref()).map_err(Failure::Configuration)?;
    let stop = CancellationToken::new();
    let _signals = signals::watch(stop.clone(), false).context("watching for signals")?;
    let kept = arguments.dir.is_some();
    let temporary = tempfile::Builder::new().prefix("adit-demo-").tempdir().context("a temporary folder")?;
    let dir = arguments.dir.unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;

    let scene = Scene { dir, components, listen: listen_address(arguments.listen)? };
    match stop.run_until_cancelled(scene.start()).await {
        None => {}
        Some(Err(error)) => {
            if !kept {
                // The logs say why, so they must outlive this.
                eprintln!("the logs are in {}", temporary.keep().display());
            }
            return Err(error.into());
        }
        Some(Ok(mut running)) => {
            running.introduce(&scene);
            let ended = tokio::select! {
                () = stop.cancelled() => None,
                name = running.first_to_end() => Some(name),
            };
            println!("\nStopping the host, then the edge.");
            running.stop().await;
            if let Some(name) = ended {
                return Err(anyhow::anyhow!(
                    "the {name} ended by itself; its log is in {}",
                    scene.dir.display()
                )
                .into());
            }
            println!("Stopped.");
        }
    }
    Ok(())
}

/// The two plugins, from a folder or from inside of this program.
fn components(folder: Option<&Path>) -> anyhow::Result<[String; 2]> {
    let Some(folder) = folder else {
        for name in ["headers", "basic-auth"] {
            adit_shelf::read(name)
                .context("`--plugins` names a folder with headers.wasm and basic_auth.wasm")?;
        }
        return Ok(["shelf:headers".to_owned(), "shelf:basic-auth".to_owned()]);
    };
    let find = |name: &str| {
        let path = folder.join(name);
        ensure!(
            path.is_file(),
            "there is no {}; without `--plugins` those inside of this program are taken",
            path.display()
        );
        Ok(std::fs::canonicalize(&path).context("the folder of the plugins")?.display().to_string())
    };
    Ok([find("headers.wasm")?, find("basic_auth.wasm")?])
}

/// Port 8080 where it is free, else any.
fn listen_address(wanted: Option<String>) -> anyhow::Result<String> {
    if let Some(wanted) = wanted {
        return Ok(wanted);
    }
    match TcpListener::bind(("127.0.0.1", PREFERRED_PORT)) {
        Ok(_) => Ok(format!("127.0.0.1:{PREFERRED_PORT}")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Ok("127.0.0.1:0".into()),
        Err(error) => Err(error).context("looking for a port"),
    }
}

/// Where the demo keeps its files and what it listens on.
struct Scene {
    dir: PathBuf,
    /// As the host's document names them: headers and basic-auth.
    components: [String; 2],
    listen: String,
}

struct Running {
    edge: Process,
    host: Process,
    visitors: String,
    admin: String,
    /// The pages of host and edge, each with a code to sign in.
    pages: String,
    edge_pages: String,
    servers: Vec<String>,
    connections: Vec<String>,
}

impl Scene {
    async fn start(&self) -> anyhow::Result<Running> {
        println!("Starting an edge with two regions of two servers each …");
        let credentials = credentials::make()?;
        write(&self.dir.join("demo.json"), &credentials.to_json())?;
        // Random like the credentials of a tunnel; nobody else is to look at the requests.
        private(&self.dir.join(TOKEN), &uuid::Uuid::new_v4().simple().to_string())?;
        write(&self.dir.join("edge.toml"), &self.edge_configuration())?;
        let mut edge = Process::spawn("edge", &["edge", "run", "--config"], &self.dir, "edge.toml")?;
        let mut servers = Vec::new();
        let (mut visitors, mut office) = (None, None);
        while visitors.is_none() || office.is_none() || servers.len() < SERVERS {
            let event = edge.event("listening").await?;
            let address = event.text("address");
            match event.text("kind").as_str() {
                "visitors-http" => visitors = Some(address),
                "admin" => office = Some(address),
                "server" => {
                    println!("  {} in region {} on {address}", event.text("name"), event.text("region"));
                    servers.push(address);
                }
                _ => {}
            }
        }

        println!("Starting a host with four connections, the built-in origin and two plugins …");
        write(&self.dir.join("host.toml"), &self.host_configuration(&servers)?)?;
        let mut host = Process::spawn("host", &["tunnel", "run", "--config"], &self.dir, "host.toml")?;
        let admin = host.event("listening").await?.text("address");
        let mut connections = Vec::new();
        while connections.len() < SERVERS {
            let event = host.event("registered").await?;
            println!(
                "  connection {} to {} ({})",
                event.number("slot"),
                event.text("location"),
                event.text("edge")
            );
            connections.push(event.text("location"));
        }
        edge.follow();
        host.follow();
        let asked = Admin::of_host(admin.clone(), Some(self.dir.join(TOKEN)));
        dashboard::watch(&asked, WATCH, true).await?;
        let pages = dashboard::sign_in(&asked).await?;
        let office = Admin::of_edge(
            office.context("the edge did not say where it is asked")?,
            Some(self.dir.join(TOKEN)),
        );
        let edge_pages = dashboard::sign_in(&office).await?;
        let visitors = visitors.context("the edge did not say where it listens")?;
        Ok(Running { edge, host, visitors, admin, pages, edge_pages, servers, connections })
    }

    fn edge_configuration(&self) -> String {
        let servers: String = ["west", "west", "east", "east"]
            .iter()
            .zip([1, 2, 1, 2])
            .map(|(region, number)| {
                format!("\n[[server]]\nregion = \"{region}\"\nname = \"{region}-{number}\"\nlisten = \"127.0.0.1:0\"\n")
            })
            .collect();
        format!(
            "data-dir = \"edge-data\"\n\n[visitors]\nhttp = {}\n\n[admin]\nlisten = \"127.0.0.1:0\"\ntoken-file = \"{TOKEN}\"\n{servers}\n\
             [[tunnel]]\nname = \"demo\"\ncredentials-file = \"demo.json\"\n\
             hostnames = [\"demo.localhost\", \"localhost\"]\n",
            toml_string(&self.listen)
        )
    }

    fn host_configuration(&self, servers: &[String]) -> anyhow::Result<String> {
        // One server of each region in turn, as the list is read.
        let [a, b, c, d] = servers else { bail!("the edge has {} servers", servers.len()) };
        let [headers, auth] = self.components.each_ref().map(|component| toml_string(component));
        let hash = password::hash_of("adit")?;
        Ok(format!(
            r#"[tunnel]
credentials-file = "demo.json"
edges = ["{a}", "{c}", "{b}", "{d}"]
edge-ca = "edge-data/ca.pem"

[admin]
listen = "127.0.0.1:0"
token-file = "{TOKEN}"

[[plugin]]
name = "headers"
component = {headers}

[plugin.config.request.set]
x-seen-by = "the headers plugin"

[plugin.config.response.set]
x-adit-demo = "this header was set by a WebAssembly plugin"

[[plugin]]
name = "auth"
component = {auth}

[plugin.config]
realm = "demo"
users = [{{ name = "demo", password = "{hash}" }}]

[[ingress]]
path = "^/private"
service = "hello_world"
plugins = ["headers", "auth"]

[[ingress]]
service = "hello_world"
plugins = ["headers"]
"#,
        ))
    }
}

/// A JSON string is a TOML string.
fn toml_string(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

impl Running {
    fn introduce(&self, scene: &Scene) {
        let url = format!("http://demo.localhost:{}", self.visitors.rsplit(':').next().unwrap_or_default());
        println!(
            "\nLook at every request as it comes, and at the edge (each good once, for ten minutes):\n\n  Watch  {}\n  Edge   {}\n\n\
             Ready: {} connections to {} edge servers, {}.\n\n  Open  {url}/\n\n\
             A plugin at work (look for x-adit-demo):\n  curl -i {url}/\n\n\
             A path that a plugin protects, without and with a password:\n  \
             curl -i {url}/private\n  curl -i -u demo:adit {url}/private\n\n\
             The host's own view, and a new code for its pages:\n  curl http://{}/ready\n  \
             adit dashboard --admin {} --admin-token-file {}\n\n\
             Configuration and logs: {}\nCtrl-C stops everything.",
            self.pages,
            self.edge_pages,
            self.connections.len(),
            self.servers.len(),
            regions(&self.connections),
            self.admin,
            self.admin,
            scene.dir.join(TOKEN).display(),
            scene.dir.display(),
        );
    }

    async fn first_to_end(&mut self) -> &'static str {
        tokio::select! {
            _ = self.edge.child.wait() => "edge",
            _ = self.host.child.wait() => "host",
        }
    }

    /// The host first, so that it can unregister.
    async fn stop(mut self) {
        self.host.stop().await;
        self.edge.stop().await;
    }
}

fn regions(locations: &[String]) -> String {
    let mut regions: Vec<&str> = locations.iter().filter_map(|location| location.split('-').next()).collect();
    regions.sort_unstable();
    regions.dedup();
    format!("regions {}", regions.join(" and "))
}

/// For this user alone.
fn private(path: &Path, text: &str) -> anyhow::Result<()> {
    adit_files::replace(path, text.as_bytes(), 0o600).with_context(|| format!("writing {}", path.display()))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// A child of this program that logs JSON lines. It ends with this process, whatever happens.
struct Process {
    name: &'static str,
    child: Child,
    /// Held apart, because waiting for a child closes what it still holds itself.
    stdin: Option<ChildStdin>,
    lines: Option<Lines<BufReader<ChildStderr>>>,
    log: PathBuf,
    _follower: Option<AbortOnDropHandle<()>>,
}

/// The fields of one log line.
struct Event(Value);

impl Event {
    fn text(&self, field: &str) -> String {
        self.0[field].as_str().unwrap_or_default().to_owned()
    }

    fn number(&self, field: &str) -> u64 {
        self.0[field].as_u64().unwrap_or_default()
    }
}

impl Process {
    fn spawn(name: &'static str, command: &[&str], dir: &Path, configuration: &str) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("the path of this program")?;
        let mut child = Command::new(program)
            .args(["--log-format", "json", "--stop-with-stdin"])
            .args(command)
            .arg(dir.join(configuration))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting the {name}"))?;
        let stderr = child.stderr.take().context("the child has no standard error")?;
        let log = dir.join(format!("{name}.log"));
        std::fs::write(&log, "").with_context(|| format!("writing {}", log.display()))?;
        let stdin = child.stdin.take();
        Ok(Self { name, child, stdin, lines: Some(BufReader::new(stderr).lines()), log, _follower: None })
    }

    /// The next log line with this message. What comes before it is kept in the log file only.
    async fn event(&mut self, message: &str) -> anyhow::Result<Event> {
        let name = self.name;
        let mut last = String::new();
        let found = timeout(START_LIMIT, async {
            loop {
                let lines = self.lines.as_mut().context("the log is followed already")?;
                let Some(line) = lines.next_line().await? else {
                    bail!("the {name} ended: {last}");
                };
                append(&self.log, &line).await?;
                let event =
                    serde_json::from_str(&line).map_or(Value::Null, |mut line: Value| line["fields"].take());
                if event["message"] == message {
                    return Ok(Event(event));
                }
                last = line;
            }
        });
        let found = found.await.with_context(|| format!("the {name} did not come up in {START_LIMIT:?}"))?;
        ensure!(found.is_err() || self.child.id().is_some(), "the {name} ended");
        found
    }

    /// From here on log lines only go to the log file.
    fn follow(&mut self) {
        let Some(mut lines) = self.lines.take() else { return };
        let log = self.log.clone();
        self._follower = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if append(&log, &line).await.is_err() {
                    return;
                }
            }
        })));
    }

    /// Ends its standard input, which stops it cleanly.
    async fn stop(&mut self) {
        drop(self.stdin.take());
        if timeout(STOP_LIMIT, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

async fn append(log: &Path, line: &str) -> anyhow::Result<()> {
    let mut file = tokio::fs::OpenOptions::new().append(true).open(log).await?;
    file.write_all(line.as_bytes()).await?;
    file.write_all(b"\n").await?;
    file.flush().await?;
    Ok(())
}
