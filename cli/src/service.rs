//! `adit service`: a unit for systemd. Knows units; does not know what the service serves.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use adit_protocol::credentials::Credentials;
use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand, ValueEnum};

use crate::Failure;
use crate::table::print;
use crate::tunnel::places::write_secret;

#[derive(Subcommand)]
pub(crate) enum Service {
    /// Write a unit, enable it and start it
    Install(Install),
    /// Stop it, disable it and remove the unit
    Uninstall {
        /// Which end
        #[arg(value_enum, default_value_t)]
        end: End,
    },
}

#[derive(Args)]
pub(crate) struct Install {
    /// `tunnel`, `edge`, or the token of a tunnel, which is kept in a file that only its owner can read
    #[arg(value_name = "END|TOKEN", default_value = "tunnel", hide_default_value = true)]
    what: What,
    /// Its configuration; not with a token
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The token of a tunnel, better than in the list of processes
    #[arg(long, value_name = "TOKEN", env = "TUNNEL_TOKEN", hide_env_values = true)]
    token: Option<String>,
    #[command(flatten)]
    edges: Edges,
    /// Only print the unit
    #[arg(long)]
    print: bool,
}

/// Where a tunnel without a configuration finds its edge.
#[derive(Args, Default)]
pub(crate) struct Edges {
    /// With a token: an edge server; may be given several times
    #[arg(long, value_name = "HOST:PORT", env = "TUNNEL_EDGE", value_delimiter = ',')]
    edge: Vec<String>,
    /// With a token: the domain whose records name the edge servers
    #[arg(long, value_name = "DOMAIN")]
    edge_domain: Option<String>,
    /// With a token: certificate authorities of the edge
    #[arg(long = "cacert", value_name = "FILE", env = "TUNNEL_CACERT")]
    edge_ca: Option<PathBuf>,
}

#[derive(Clone)]
enum What {
    End(End),
    Token(String),
}

impl FromStr for What {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match <End as ValueEnum>::from_str(text, false) {
            Ok(end) => Ok(Self::End(end)),
            // What looks like a slip of the pen is no token, and what looks like one is not shown.
            Err(_) if text.len() < SHORTEST_TOKEN => {
                Err("it is neither `tunnel`, `edge` nor a token".to_owned())
            }
            Err(_) => Ok(Self::Token(text.to_owned())),
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum End {
    /// The host beside the services
    #[default]
    Tunnel,
    /// The edge that visitors reach
    Edge,
}

impl End {
    fn unit(self) -> PathBuf {
        let name = match self {
            Self::Tunnel => "adit-tunnel.service",
            Self::Edge => "adit-edge.service",
        };
        Path::new("/etc/systemd/system").join(name)
    }
}

pub(crate) fn run(service: Service) -> Result<(), Failure> {
    match service {
        Service::Install(install) => {
            let program = std::env::current_exe().context("finding this program")?;
            let Plan { end, text, token } = install.plan(&program).map_err(Failure::Configuration)?;
            if install.print {
                print(&text);
                return Ok(());
            }
            if let Some(token) = token {
                let path = Path::new(TOKEN_FILE);
                // One that is there is another's, or an older one.
                let _ = std::fs::remove_file(path);
                write_secret(path, &token, 0o600).with_context(|| format!("writing {TOKEN_FILE}"))?;
            }
            let path = end.unit();
            std::fs::write(&path, text)
                .with_context(|| format!("writing {}; --print shows it instead", path.display()))?;
            systemctl(&["daemon-reload"])?;
            systemctl(&["enable", &name(&path)])?;
            // Whether the edge is there is not for this command to wait for.
            systemctl(&["restart", "--no-block", &name(&path)])?;
            print(&format!("{} is enabled and starts", name(&path)));
        }
        Service::Uninstall { end } => {
            let path = end.unit();
            if !path.exists() {
                return Err(anyhow::anyhow!("there is no {}", path.display()).into());
            }
            systemctl(&["disable", "--now", &name(&path)])?;
            std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
            if end == End::Tunnel && Path::new(TOKEN_FILE).exists() {
                std::fs::remove_file(TOKEN_FILE).with_context(|| format!("removing {TOKEN_FILE}"))?;
            }
            systemctl(&["daemon-reload"])?;
        }
    }
    Ok(())
}

fn name(unit: &Path) -> String {
    unit.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What is to be written.
struct Plan {
    end: End,
    text: String,
    token: Option<String>,
}

impl Install {
    fn plan(&self, program: &Path) -> anyhow::Result<Plan> {
        let given = match (&self.what, &self.config) {
            (What::Token(token), _) => Some(token),
            // The environment may have one that is not meant.
            (What::End(End::Tunnel), None) => self.token.as_ref(),
            (What::End(_), _) => None,
        };
        if let Some(token) = given {
            ensure!(self.config.is_none(), "a token or --config, not both");
            Credentials::from_token(token.trim()).context("the token")?;
            let command = self.edges.command()?;
            let credential = format!(
                "\n# Only root reads the file; the service has a copy that no other sees\nLoadCredential=token:{TOKEN_FILE}\n"
            );
            let text = unit(End::Tunnel, program, &command, &credential)?;
            return Ok(Plan { end: End::Tunnel, text, token: Some(token.trim().to_owned()) });
        }
        let What::End(end) = self.what else { bail!("it is neither an end nor a token") };
        let Some(config) = &self.config else {
            bail!("say what it serves: --config FILE, or the token of a tunnel")
        };
        let config =
            std::fs::canonicalize(config).with_context(|| format!("reading {}", config.display()))?;
        let command = match end {
            End::Tunnel => "tunnel run",
            End::Edge => "edge run",
        };
        let owner = owner(end, &config)?;
        let text = unit(end, program, &format!("{command} --config {}", quoted(&config)?), &owner)?;
        Ok(Plan { end, text, token: None })
    }
}

impl Edges {
    /// Runs a tunnel by the token that is kept.
    fn command(&self) -> anyhow::Result<String> {
        let mut words = vec!["tunnel".to_owned()];
        for edge in &self.edge {
            words.extend(["--edge".to_owned(), quoted(Path::new(edge))?]);
        }
        if let Some(domain) = &self.edge_domain {
            words.extend(["--edge-domain".to_owned(), quoted(Path::new(domain))?]);
        }
        if let Some(ca) = &self.edge_ca {
            let ca = std::fs::canonicalize(ca).with_context(|| format!("reading {}", ca.display()))?;
            words.extend(["--cacert".to_owned(), quoted(&ca)?]);
        }
        words.push("run --token-file %d/token".to_owned());
        Ok(words.join(" "))
    }
}

/// No secret is in it: tokens, and what a configuration names, are read from files. `more` goes behind the rest
/// of the service.
pub(crate) fn unit(end: End, program: &Path, command: &str, more: &str) -> anyhow::Result<String> {
    let template = match end {
        End::Tunnel => include_str!("../../packaging/systemd/adit-tunnel.service"),
        End::Edge => include_str!("../../packaging/systemd/adit-edge.service"),
    };
    let text = template.replace("@COMMAND@", &format!("{} {command}", quoted(program)?));
    Ok(text.replace("\n[Install]", &format!("{more}\n[Install]")))
}

/// An edge whose state lies where its unit keeps it runs as a user that systemd makes for it. All else runs as
/// whom the configuration belongs to, root without its privileges too: it names files that only this user reads,
/// and it and what lies beside it may be written (`adit config put`, `adit.lock`).
fn owner(end: End, config: &Path) -> anyhow::Result<String> {
    let folder = config.parent().unwrap_or(Path::new("/"));
    let mut written = vec![folder.to_owned()];
    match end {
        End::Edge => {
            let settings = adit_edge::Settings::load(config)?;
            let data = std::path::absolute(settings.data_dir()).context("the data folder")?;
            if data.starts_with(EDGE_STATE) {
                // That user has no home, and the configuration may lie in another's.
                let is_hidden = HOMES.iter().any(|home| folder.starts_with(home));
                return Ok(if is_hidden { "ProtectHome=read-only\n".to_owned() } else { String::new() });
            }
            ensure!(data.is_dir(), "there is no {}; `adit edge init` makes it", data.display());
            written = vec![data];
        }
        End::Tunnel => written.extend(adit_host::config::state_dir(config).filter(|folder| folder.is_dir())),
    }
    let facts = std::fs::metadata(config).with_context(|| format!("reading {}", config.display()))?;
    let mut more = format!(
        "\n# Its files belong to this user\nDynamicUser=no\nUser={}\nGroup={}\n",
        facts.uid(),
        facts.gid()
    );
    for folder in &written {
        more.push_str(&format!("ReadWritePaths={}\n", quoted(folder)?));
    }
    if written
        .iter()
        .chain([&folder.to_owned()])
        .any(|folder| HOMES.iter().any(|home| folder.starts_with(home)))
    {
        more.push_str("ProtectHome=read-only\n");
    }
    if written.iter().any(|folder| folder.starts_with("/tmp") || folder.starts_with("/var/tmp")) {
        more.push_str("PrivateTmp=no\n");
    }
    Ok(more)
}

/// As systemd reads words: in quotes, and `%` and `$` for themselves.
fn quoted(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    if text.chars().any(char::is_control) {
        bail!("{} has characters that a unit cannot hold", path.display());
    }
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    Ok(format!("\"{escaped}\""))
}

fn systemctl(arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new("systemctl").args(arguments).status().context("running systemctl")?;
    anyhow::ensure!(status.success(), "systemctl {} failed", arguments.join(" "));
    Ok(())
}

/// Where the token of the installed tunnel is kept.
const TOKEN_FILE: &str = "/etc/adit/tunnel-token";
/// What the unit of an edge gives it to write.
const EDGE_STATE: &str = "/var/lib/adit-edge";
/// What `ProtectHome=` hides.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];
/// Characters; real ones are longer by far.
const SHORTEST_TOKEN: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_runs_this_program_with_its_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let config = std::fs::canonicalize(folder.path()).unwrap().join("100%.toml");
        let document = |data: &str| {
            format!(
                "data-dir = {data:?}\n[visitors]\nhttp = \"127.0.0.1:0\"\n[api]\nlisten = \"127.0.0.1:0\"\n[[server]]\nregion = \"west\"\nlisten = \"127.0.0.1:0\"\n"
            )
        };
        std::fs::write(&config, document(folder.path().to_str().unwrap())).unwrap();
        let text = installed(&["edge", "--config", config.to_str().unwrap()]).unwrap().text;
        let shown = config.to_str().unwrap().replace('%', "%%");
        let line = format!("ExecStart=\"/opt/a dit/adit\" edge run --config \"{shown}\"\n");
        assert!(text.contains(&line), "{text}");
        // Nothing there reads it again.
        assert!(text.contains("\nType=notify\n") && !text.contains("reload\n"), "{text}");
        assert!(
            text.contains("\nWatchdogSec=30\n") && text.contains("\nMemoryDenyWriteExecute=yes\n"),
            "{text}"
        );
        let own = std::fs::metadata(&config).unwrap().uid();
        assert!(text.contains(&format!("\nDynamicUser=no\nUser={own}\n")), "{text}");
        assert!(text.contains("\nReadWritePaths=\""), "{text}");

        std::fs::write(&config, document("/var/lib/adit-edge")).unwrap();
        let text = installed(&["edge", "--config", config.to_str().unwrap()]).unwrap().text;
        assert!(!text.contains("DynamicUser=no") && text.contains("\nDynamicUser=yes\n"), "{text}");
        std::fs::write(&config, "data-dri = 1").unwrap();
        let error = installed(&["edge", "--config", config.to_str().unwrap()]).err().unwrap().to_string();
        assert!(error.contains("data-dri"), "{error}");
    }

    #[test]
    fn a_host_tells_systemd_when_it_serves_reloads_and_lives() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("host.toml");
        std::fs::write(&config, "").unwrap();
        let text = installed(&["tunnel", "--config", config.to_str().unwrap()]).unwrap().text;
        assert!(text.contains("\nType=notify-reload\n") && text.contains("\nWatchdogSec=30\n"), "{text}");
    }

    #[derive(clap::Parser)]
    struct Arguments {
        #[command(flatten)]
        install: Install,
    }

    fn installed(arguments: &[&str]) -> anyhow::Result<Plan> {
        use clap::Parser;
        let arguments = Arguments::try_parse_from(["install"].iter().chain(arguments))?;
        arguments.install.plan(Path::new("/opt/a dit/adit"))
    }

    #[test]
    fn a_token_is_kept_in_a_file_and_never_in_the_unit() {
        let token = Credentials {
            account_tag: "0123456789abcdef".to_owned(),
            tunnel_secret: adit_protocol::credentials::TunnelSecret::new(&[7; 32]).unwrap(),
            tunnel_id: uuid::Uuid::from_u128(7),
            endpoint: None,
        }
        .to_token();
        for arguments in [vec![&*token, "--edge", "a:1,b:2"], vec!["--token", &token, "--edge", "a:1,b:2"]] {
            let Plan { end, text, token: kept } = installed(&arguments).unwrap();
            let line = "ExecStart=\"/opt/a dit/adit\" tunnel --edge \"a:1\" --edge \"b:2\" run --token-file %d/token\n";
            assert!(end == End::Tunnel && text.contains(line) && !text.contains(&*token), "{text}");
            assert!(text.contains("\nLoadCredential=token:/etc/adit/tunnel-token\n"), "{text}");
            assert!(text.contains("\nDynamicUser=yes\n") && !text.contains("DynamicUser=no"), "{text}");
            assert_eq!(kept.as_deref(), Some(&*token));
        }
        let long = "x".repeat(80);
        for (arguments, wanted) in [
            (vec![], "say what it serves"),
            (vec!["edge"], "say what it serves"),
            (vec!["tunel"], "neither `tunnel`, `edge` nor a token"),
            (vec![&*long], "the token"),
            (vec![&*token, "--config", "a.toml"], "not both"),
            (vec!["--config", "/nowhere/a.toml"], "reading /nowhere/a.toml"),
        ] {
            let error = installed(&arguments).err().unwrap().to_string();
            assert!(error.contains(wanted), "{arguments:?}: {error}");
        }
    }
}
