//! The config.yml of cloudflared, and its flags, as a document of ours. What cannot be meant by ours is said
//! as a warning; what would be served less safely is refused, at its place in the file that people wrote.
//! Knows both forms; serves nothing.

mod duration;
mod keys;
mod origin;
mod service;
#[cfg(test)]
mod tests;
mod translation;
mod yaml;

use std::path::{Path, PathBuf};
use std::rc::Rc;

use adit_config_reader::Place;
use anyhow::{Context, anyhow, bail};

pub(super) use duration::duration;
pub(crate) use duration::go_duration;
#[cfg(test)]
use translation::Translation;
pub(super) use translation::{Given, MOST_CIRCUITS, Proof, translate};
pub(super) use yaml::flag;

use super::{Arguments, Options, Single, places, reference};
use crate::Failure;
use yaml::{Entry, Map, Node, Value};

/// A config.yml that was read.
pub(super) struct Legacy {
    pub(super) path: PathBuf,
    root: Option<Rc<Node>>,
}

/// The config.yml that is meant, if one is: the named one, or the first where cloudflared looks for it.
pub(super) fn find(options: &Options) -> Result<Option<Legacy>, Failure> {
    let path = match &options.config {
        Some(path) if is_yaml(path) => path.clone(),
        Some(_) => return Ok(None),
        None => match places::find(&["config.yml", "config.yaml"]) {
            Some(path) => path,
            None => return Ok(None),
        },
    };
    Legacy::read(path).map(Some).map_err(Failure::Configuration)
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["yml", "yaml", "json"].iter().any(|known| extension == *known))
}

impl Legacy {
    pub(super) fn read(path: PathBuf) -> anyhow::Result<Self> {
        let source = adit_host::config::source::read(&path)?;
        Self::parse(path, &source.text)
    }

    pub(super) fn parse(path: PathBuf, text: &str) -> anyhow::Result<Self> {
        let root = yaml::read(text)
            .map_err(|(place, message)| anyhow!("{}{}", located(&path, place), message.escape_debug()))?;
        let root = root.filter(|root| !root.is_null());
        if root.as_ref().is_some_and(|root| !matches!(root.value, Value::Map(_))) {
            bail!("{} is not a list of keys with values", path.display());
        }
        Ok(Self { path, root })
    }

    fn entries(&self) -> &[Entry] {
        match self.root.as_ref().map(|root| &root.value) {
            Some(Value::Map(Map(entries))) => entries,
            Some(Value::Scalar { .. } | Value::List(_)) | None => &[],
        }
    }

    /// By any of the names of a flag.
    fn get(&self, key: &str) -> Option<&Entry> {
        let word = reference::find(key);
        self.entries()
            .iter()
            .find(|entry| {
                entry.key == key
                    || word.is_some_and(|word| {
                        word.name == entry.key || word.aliases.contains(&entry.key.as_str())
                    })
            })
            .filter(|entry| !entry.value.is_null())
    }

    /// The tunnel that it is about, by id or name.
    pub(super) fn tunnel(&self) -> Option<String> {
        self.text("tunnel")
    }

    pub(super) fn credentials_file(&self) -> Option<PathBuf> {
        self.file("credentials-file")
    }

    pub(super) fn has_rules(&self) -> bool {
        self.get("ingress")
            .is_some_and(|rules| !matches!(&rules.value.value, Value::List(list) if list.is_empty()))
    }

    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.get(key)?.value.text().map(str::to_owned)
    }

    pub(super) fn file(&self, key: &str) -> Option<PathBuf> {
        self.text(key).filter(|file| !file.is_empty()).map(|file| self.beside(&file))
    }

    /// A path as people write it: `~` is their home, and what is relative begins at the file.
    fn beside(&self, file: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(at_home(file))
    }

    /// What only a start reads, to tell whether it has changed.
    pub(super) fn only_at_start(&self) -> Vec<(&'static str, Option<String>)> {
        ONLY_AT_START.iter().map(|key| (*key, self.text(key))).collect()
    }

    /// Lets the keys at the top fill in what neither the command line nor the environment said.
    pub(super) fn fill(&self, options: &mut Options) -> anyhow::Result<()> {
        let mut wrong = Vec::new();
        let text = |option: &mut Option<String>, key: &str| {
            if option.is_none() {
                *option = self.text(key);
            }
        };
        let file = |option: &mut Option<PathBuf>, key: &str| {
            if option.is_none() {
                *option = self.file(key);
            }
        };
        let mut switch = |option: &mut Option<bool>, key: &str| {
            if option.is_none()
                && let Some(entry) = self.get(key)
            {
                *option = entry.value.flag();
                if option.is_none() {
                    wrong.push(self.mistake(entry, "neither true nor false"));
                }
            }
        };
        text(&mut options.api_url, "api-url");
        file(&mut options.origin_cert, "origincert");
        let process = &mut options.process;
        file(&mut process.pidfile, "pidfile");
        text(&mut process.label, "label");
        switch(&mut process.post_quantum, "post-quantum");
        switch(&mut process.stdin_control, "stdin-control");
        if process.retries.is_none()
            && let Some(entry) = self.get("retries")
        {
            process.retries = entry.value.number().and_then(|number| u32::try_from(number).ok());
            if process.retries.is_none() {
                wrong.push(self.mistake(entry, "not a number"));
            }
        }
        if process.tag.is_empty() {
            process.tag = self.list("tag");
        }
        let log = &mut options.log;
        text(&mut log.loglevel, "loglevel");
        text(&mut log.transport_loglevel, "transport-loglevel");
        file(&mut log.logfile, "logfile");
        file(&mut log.log_directory, "log-directory");
        text(&mut log.output, "output");
        if wrong.is_empty() { Ok(()) } else { Err(anyhow!(wrong.join("\n"))) }
    }

    /// The same for what is to be done without a command, and for the name of what is to be run.
    pub(super) fn fill_task(&self, arguments: &mut Arguments) -> anyhow::Result<()> {
        let text = |option: &mut Option<String>, key: &str| {
            if option.is_none() {
                *option = self.text(key).filter(|text| !text.is_empty());
            }
        };
        text(&mut arguments.quick_service, "quick-service");
        text(&mut arguments.hostname, "hostname");
        // What the file is about is said better by `tunnel`.
        if self.tunnel().is_none() {
            text(&mut arguments.name, "name");
        }
        if arguments.overwrite_dns.is_none()
            && let Some(entry) = self.get("overwrite-dns")
        {
            let flag = entry.value.flag();
            arguments.overwrite_dns =
                Some(flag.ok_or_else(|| anyhow!(self.mistake(entry, "neither true nor false")))?);
        }
        // A tunnel that is drawn serves what the file says in place of rules.
        if arguments.command.is_none() && !self.has_rules() && self.tunnel().is_none() {
            let wrong = self.fill_single(&mut arguments.options.single);
            if !wrong.is_empty() {
                return Err(anyhow!(wrong.join("\n")));
            }
        }
        Ok(())
    }

    /// The same for what stands in for rules, each time that the file is read.
    fn fill_single(&self, single: &mut Single) -> Vec<String> {
        let mut wrong = Vec::new();
        let text = |option: &mut Option<String>, key: &str| {
            if option.is_none() {
                *option = self.text(key).filter(|text| !text.is_empty());
            }
        };
        let mut switch = |option: &mut Option<bool>, key: &str| {
            if option.is_none()
                && let Some(entry) = self.get(key)
            {
                *option = entry.value.flag();
                if option.is_none() {
                    wrong.push(self.mistake(entry, "neither true nor false"));
                }
            }
        };
        let said = single.is_origin();
        if !said {
            text(&mut single.url, "url");
            switch(&mut single.hello_world, "hello-world");
            switch(&mut single.socks5, "socks5");
            switch(&mut single.bastion, "bastion");
            switch(&mut single.ssh_server, "ssh-server");
            if single.unix_socket.is_none() {
                single.unix_socket = self.file("unix-socket");
            }
        }
        text(&mut single.http_host_header, "http-host-header");
        text(&mut single.origin_server_name, "origin-server-name");
        if single.origin_ca_pool.is_none() {
            single.origin_ca_pool = self.file("origin-ca-pool");
        }
        switch(&mut single.no_tls_verify, "no-tls-verify");
        switch(&mut single.no_chunked_encoding, "no-chunked-encoding");
        switch(&mut single.http2_origin, "http2-origin");
        switch(&mut single.proxy_no_happy_eyeballs, "proxy-no-happy-eyeballs");
        text(&mut single.proxy_connect_timeout, "proxy-connect-timeout");
        text(&mut single.proxy_tls_timeout, "proxy-tls-timeout");
        text(&mut single.proxy_tcp_keepalive, "proxy-tcp-keepalive");
        text(&mut single.proxy_keepalive_connections, "proxy-keepalive-connections");
        text(&mut single.proxy_keepalive_timeout, "proxy-keepalive-timeout");
        wrong
    }

    /// A list, or a text with commas.
    fn list(&self, key: &str) -> Vec<String> {
        match self.get(key).map(|entry| &entry.value.value) {
            Some(Value::List(list)) => {
                list.iter().filter_map(|node| node.text().map(str::to_owned)).collect()
            }
            Some(Value::Scalar { text, .. }) => text.split(',').map(|item| item.trim().to_owned()).collect(),
            Some(Value::Map(_)) | None => Vec::new(),
        }
    }

    fn mistake(&self, entry: &Entry, wrong: &str) -> String {
        format!("{}{}: {wrong}", located(&self.path, Some(entry.value.place)), entry.key)
    }
}

fn located(path: &Path, place: Option<Place>) -> String {
    match place {
        Some(Place { line, column }) => format!("{}:{line}:{column}: ", path.display()),
        None => format!("{}: ", path.display()),
    }
}

/// `~` and what is below it in this user's home.
pub(super) fn at_home(file: &str) -> PathBuf {
    let below = match file {
        "~" => Some(""),
        _ => file.strip_prefix("~/"),
    };
    match (below, std::env::var_os("HOME").filter(|home| !home.is_empty())) {
        (Some(below), Some(home)) => Path::new(&home).join(below),
        _ => PathBuf::from(file),
    }
}

/// An absolute path as text.
fn absolute(path: &Path) -> anyhow::Result<String> {
    let absolute = std::path::absolute(path).with_context(|| path.display().to_string())?;
    let text = absolute.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(text.to_owned())
}

const ONLY_AT_START: &[&str] = &[
    "tunnel",
    "credentials-file",
    "token",
    "token-file",
    "origincert",
    "api-url",
    "pidfile",
    "label",
    "tag",
    "post-quantum",
    "stdin-control",
    "loglevel",
    "transport-loglevel",
    "logfile",
    "log-directory",
    "output",
];
