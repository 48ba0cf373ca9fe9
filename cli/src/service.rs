//! `adit service`: a unit for systemd. Knows units; does not know what the service serves.

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
            let text = unit(End::Tunnel, program, &command)?;
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
        let text = unit(end, program, &format!("{command} --config {}", quoted(&config)?))?;
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
        words.extend(["run --token-file".to_owned(), TOKEN_FILE.to_owned()]);
        Ok(words.join(" "))
    }
}

/// No secret is in it: tokens, and what a configuration names, are read from files.
fn unit(end: End, program: &Path, command: &str) -> anyhow::Result<String> {
    let program = quoted(program)?;
    let (what, kind, cache) = match end {
        // It says when it is ready, reloads and lives. A start takes as long as an edge is away.
        End::Tunnel => (
            "Adit tunnel host",
            "# The second is for systemd 253 and later; others pass over it\nType=notify\nType=notify-reload\nTimeoutStartSec=infinity\nWatchdogSec=30\n",
            // For what it compiles.
            "CacheDirectory=adit\n",
        ),
        // It reads its configuration at the start only: a SIGHUP would end it.
        End::Edge => ("Adit edge", "", ""),
    };
    // Longer than the longest grace period, so that a stop is never cut short.
    Ok(format!(
        "[Unit]\nDescription={what}\nWants=network-online.target\nAfter=network-online.target\n\n\
         [Service]\n{kind}ExecStart={program} {command}\n\
         Restart=on-failure\nRestartSec=5\n# 2: the configuration is wrong, and stays so\nRestartPreventExitStatus=2\n\
         TimeoutStopSec=200\nLimitNOFILE=1048576\nNoNewPrivileges=yes\nPrivateTmp=yes\n{cache}\n\
         [Install]\nWantedBy=multi-user.target\n"
    ))
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
/// Characters; real ones are longer by far.
const SHORTEST_TOKEN: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_runs_this_program_with_its_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let config = std::fs::canonicalize(folder.path()).unwrap().join("100%.toml");
        std::fs::write(&config, "").unwrap();
        let text = installed(&["edge", "--config", config.to_str().unwrap()]).unwrap().text;
        let config = config.to_str().unwrap().replace('%', "%%");
        let line = format!("ExecStart=\"/opt/a dit/adit\" edge run --config \"{config}\"\n");
        assert!(text.contains(&line), "{text}");
        // Nothing there reads it again, and nothing is told.
        assert!(!text.contains("HUP") && !text.contains("notify"), "{text}");
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
            let line = "ExecStart=\"/opt/a dit/adit\" tunnel --edge \"a:1\" --edge \"b:2\" run --token-file /etc/adit/tunnel-token\n";
            assert!(end == End::Tunnel && text.contains(line) && !text.contains(&*token), "{text}");
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
