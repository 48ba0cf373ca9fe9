//! `adit tunnel ingress`: what the rules of a configuration say, without serving them.

use std::path::Path;

use adit_host::config;
use adit_host::config::settings;
use adit_host::generation::routes::Routes;
use adit_rules::plan::{HostPattern, Plan, Rule};
use anyhow::anyhow;
use clap::Subcommand;
use http::Uri;

use super::legacy::{self, Given, Legacy, Proof};
use super::{Options, run, usage};
use crate::Failure;
use crate::table::print;

#[derive(Subcommand)]
pub(super) enum Ingress {
    /// Report everything that is wrong
    Validate {
        /// A configuration in place of a file's, as JSON
        #[arg(long, short, value_name = "JSON")]
        json: Option<String>,
    },
    /// Show the rule that serves a URL
    Rule {
        /// Such as `https://app.example.com/path`
        #[arg(value_name = "URL")]
        address: String,
    },
}

pub(super) fn look(ingress: Ingress, options: &Options, file: Option<Legacy>) -> Result<(), Failure> {
    let file = match &ingress {
        Ingress::Validate { json: Some(json) } => {
            Some(Legacy::parse("--json".into(), json).map_err(Failure::Configuration)?)
        }
        Ingress::Validate { json: None } | Ingress::Rule { .. } => file,
    };
    let (source, plan, warnings) = plan(options, file)?;
    print(&format!("Validating rules from {source}"));
    for warning in &warnings {
        print(&format!("warning: {warning}"));
    }
    match ingress {
        Ingress::Validate { .. } => print("OK"),
        Ingress::Rule { address: url } => {
            let wrong =
                || usage(format!("`{}` is no URL such as https://app.example.com/path", url.escape_debug()));
            let parsed: Uri = url.parse().map_err(|_| wrong())?;
            let authority = parsed.authority().ok_or_else(wrong)?;
            let host = adit_address::host(authority.as_str()).map_err(|_| wrong())?;
            let found = Routes::new(&plan.rules).find(&host, parsed.path()).map_err(|unclear| {
                let number = |rule: Option<usize>| rule.map_or("no rule".to_owned(), |rule| format!("rule #{rule}"));
                let other = unclear.other.map_or_else(|| "too many to look at".to_owned(), number);
                Failure::Running(anyhow!(
                    "this URL gets 400: rules read its path as one of {}, and the service may read it as one of {other}; \
                     `paths` says what can be done",
                    number(unclear.rule),
                ))
            })?;
            let at = found.ok_or_else(|| Failure::Running(anyhow!("no rule serves this URL")))?;
            print(&format!("Matched rule #{at}\n{}", describe(&plan.rules[at], &plan)));
        }
    }
    Ok(())
}

/// The rules with where they are from and what is to be said about them.
fn plan(options: &Options, file: Option<Legacy>) -> Result<(String, Plan, Vec<String>), Failure> {
    let read = |path: &Path| config::load(path).map_err(|error| Failure::Configuration(error.into()));
    let Some(file) = file else {
        let path = options.config.as_ref().ok_or_else(|| {
            usage("there is no configuration: --config says where it is, or config.yml where cloudflared looks for it")
        })?;
        let (settings, plan) = read(path)?;
        let warnings = settings.warnings.iter().chain(&plan.warnings).cloned().collect();
        return Ok((path.display().to_string(), plan, warnings));
    };
    // The rules stand for themselves: whose they are does not matter here.
    let kept = run::keep(&crate::credentials::make()?.to_json())?;
    let given = Given {
        proof: Proof::CredentialsFile(kept.path()),
        single: options.single.clone(),
        admin: settings::ADMIN.to_string(),
    };
    let translation =
        legacy::translate(Some(&file), &given).map_err(|error| Failure::Configuration(anyhow!(error)))?;
    let name = file.path.display().to_string();
    let (_, plan) = config::parse(&name, &translation.toml, Path::new(""))
        .map_err(|error| Failure::Configuration(error.into()))?;
    let warnings = translation.warnings.iter().chain(&plan.warnings).cloned().collect();
    Ok((file.path.display().to_string(), plan, warnings))
}

fn describe(rule: &Rule, plan: &Plan) -> String {
    let hostname = match &rule.hostname {
        HostPattern::Any => "*".to_owned(),
        HostPattern::Exact(name) => name.clone(),
        HostPattern::Wildcard(suffix) => format!("*{suffix}"),
    };
    let service = rule.service.text(|index| &plan.plugins[index].name);
    let path = rule.path.as_ref().map(|path| format!("\tpath: {path}\n")).unwrap_or_default();
    format!("\thostname: {hostname}\n{path}\tservice: {service}")
}
