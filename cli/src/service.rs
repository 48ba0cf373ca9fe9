//! `adit service`: a unit for systemd. Knows units; does not know what the service serves.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};

use crate::Failure;
use crate::table::print;

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
    /// Which end
    #[arg(value_enum, default_value_t)]
    end: End,
    /// Its configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Only print the unit
    #[arg(long)]
    print: bool,
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
            let config = std::fs::canonicalize(&install.config)
                .with_context(|| format!("reading {}", install.config.display()))
                .map_err(Failure::Configuration)?;
            let program = std::env::current_exe().context("finding this program")?;
            let text = unit(install.end, &program, &config).map_err(Failure::Configuration)?;
            if install.print {
                print(&text);
                return Ok(());
            }
            let path = install.end.unit();
            std::fs::write(&path, text)
                .with_context(|| format!("writing {}; --print shows it instead", path.display()))?;
            systemctl(&["daemon-reload"])?;
            systemctl(&["enable", "--now", &name(&path)])?;
            print(&format!("{} is enabled and started", name(&path)));
        }
        Service::Uninstall { end } => {
            let path = end.unit();
            if !path.exists() {
                return Err(anyhow::anyhow!("there is no {}", path.display()).into());
            }
            systemctl(&["disable", "--now", &name(&path)])?;
            std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
            systemctl(&["daemon-reload"])?;
        }
    }
    Ok(())
}

fn name(unit: &Path) -> String {
    unit.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// No secret is in it: what the configuration names is read from files.
fn unit(end: End, program: &Path, config: &Path) -> anyhow::Result<String> {
    let (program, config) = (quoted(program)?, quoted(config)?);
    let (what, command, cache) = match end {
        // For what it compiles.
        End::Tunnel => ("Adit tunnel host", "tunnel run", "CacheDirectory=adit\n"),
        End::Edge => ("Adit edge", "edge run", ""),
    };
    // Longer than the longest grace period, so that a stop is never cut short.
    Ok(format!(
        "[Unit]\nDescription={what}\nWants=network-online.target\nAfter=network-online.target\n\n\
         [Service]\nExecStart={program} {command} --config {config}\nExecReload=/bin/kill -HUP $MAINPID\n\
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_runs_this_program_with_its_configuration() {
        let text = unit(End::Edge, Path::new("/opt/a dit/adit"), Path::new("/etc/100%/edge.toml")).unwrap();
        assert!(
            text.contains("ExecStart=\"/opt/a dit/adit\" edge run --config \"/etc/100%%/edge.toml\"\n"),
            "{text}"
        );
    }
}
