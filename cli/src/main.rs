//! The one binary. Parses the command line, sets up logging, and turns outcomes into exit codes:
//! 0 done, 1 failed while running, 2 bad usage or configuration, 130 ended at once by a second signal.

mod access;
mod admin;
mod credentials;
mod dashboard;
mod demo;
mod edge;
mod host;
mod line;
mod manual;
mod office;
mod password;
mod plugin;
mod ready;
mod registry;
mod service;
mod signals;
mod systemd;
mod table;
mod telemetry;
#[cfg(test)]
mod tests;
mod tunnel;
mod version;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use adit_engine::{COMPILER, be_compiler};
use clap::{Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use telemetry::{LogFormat, Logging};

/// A crowd of slow visitors costs memory while it is here, not afterwards.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Tunnels that bring traffic to a private origin.
///
/// A host beside your services keeps outbound connections to an edge; visitors reach the edge, and
/// each of their requests passes a chain of WebAssembly plugins before it reaches a service.
#[derive(Parser)]
#[command(name = "adit", version, propagate_version = true, arg_required_else_help = true)]
struct Arguments {
    /// How log lines look on standard error; text unless something else is asked for
    #[arg(long, global = true, value_enum, env = "ADIT_LOG_FORMAT")]
    log_format: Option<LogFormat>,
    /// What is logged: a level, or directives such as "info,adit_edge=debug"; info unless something else is asked
    /// for
    #[arg(long, global = true, env = "ADIT_LOG")]
    log: Option<String>,
    /// Stop when standard input ends, for a parent process that may vanish
    #[arg(long, global = true, hide = true)]
    stop_with_stdin: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Try it out: an edge, a host, an origin and two plugins on this machine
    Demo(demo::Arguments),
    /// The host beside your services
    Tunnel(Box<tunnel::Arguments>),
    /// The edge that visitors reach
    #[command(subcommand, arg_required_else_help = true)]
    Edge(Edge),
    /// Load balancers: host names with pools of tunnels behind them
    Lb(tunnel::balancing::Lb),
    /// Pools: tunnels that serve the same
    Pool(tunnel::balancing::Pool),
    /// Monitors: how the health of a pool's endpoints is asked for
    Monitor(tunnel::balancing::Monitor),
    /// Watch the log of a host through its edge, requests included; Ctrl-C ends it
    Tail(tunnel::tail::Tail),
    /// Tokens by which the hosts of a tunnel can be asked about themselves
    #[command(subcommand, arg_required_else_help = true)]
    Management(tunnel::tail::Management),
    /// Reach what is behind a tunnel without a browser
    #[command(subcommand, arg_required_else_help = true)]
    Access(access::Access),
    /// Have a running host read its configuration again, and print the verdict
    Reload {
        #[command(flatten)]
        admin: admin::Admin,
    },
    /// What a running host would do with a request: rule, plugins, origin, headers
    Explain(admin::Question),
    /// Where a browser is shown what a running host does, with a code to sign in
    Dashboard(dashboard::Dashboard),
    /// A host's configuration: check a file, and look at or change what a running host serves
    #[command(subcommand, arg_required_else_help = true)]
    Config(Config),
    /// Write a plugin, build and test it; look at any component, try and measure it
    #[command(subcommand, arg_required_else_help = true)]
    Plugin(plugin::Plugin),
    /// Hash a password for the basic-auth plugin; the password is read from standard input
    HashPassword,
    /// Have systemd run a host or an edge
    #[command(subcommand, arg_required_else_help = true)]
    Service(service::Service),
    /// Say which version this is, and with --verbose what it was made of
    #[command(disable_version_flag = true)]
    Version(version::Version),
    /// Print completions for a shell
    Completions { shell: clap_complete::Shell },
    /// Write man pages
    Man {
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
}

#[derive(Subcommand)]
enum Edge {
    /// Set an edge up: configuration, authority, state, an account with its zones, and cert.pem
    Init(office::Init),
    /// Accept hosts and serve visitors
    Run {
        /// The edge's configuration (TOML)
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Report every mistake of an edge's configuration, and of every file that it names
    Check {
        /// The edge's configuration (TOML)
        #[arg(value_name = "FILE")]
        config: PathBuf,
    },
    /// What a running edge shows over TLS, until when, and what it does not take
    Certificates(edge::Ask),
    /// Where a running edge would send a request, and why: route or load balancer, rules, session, every pool and
    /// endpoint with its health, and the replica and the connection. Nothing is sent
    Explain(edge::explain::Question),
    /// Make credentials for a new tunnel: a file that both the edge and the host are given
    Credentials {
        /// Where to write them; an existing file is never overwritten
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Tokens for the control API
    #[command(subcommand, arg_required_else_help = true)]
    Token(office::Token),
    /// Accounts, to which tunnels, zones and tokens belong
    #[command(subcommand, arg_required_else_help = true)]
    Accounts(office::Accounts),
    /// Names that lead to tunnels, which the control API knows as DNS records
    #[command(subcommand, arg_required_else_help = true)]
    Records(office::Records),
    /// Give an account one more domain
    AddZone {
        #[arg(value_name = "DOMAIN")]
        domain: String,
        /// If there are several
        #[arg(long, value_name = "NAME")]
        account: Option<String>,
        #[command(flatten)]
        at: office::At,
        #[command(flatten)]
        shown: office::Shown,
    },
    /// Copy the state to a new file; the edge may run meanwhile
    Backup {
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        at: office::At,
        #[command(flatten)]
        shown: office::Shown,
    },
    /// Move the state to etcd, which the edges of a fleet share, or back into a file. Stop the edge first: the
    /// configuration keeps its `[store]`, which says where etcd is
    Migrate(office::Migrate),
    /// Leave for one machine to become a node of this edge's fleet: a token that is printed once, for one use within an
    /// hour
    Invite(office::Invite),
    /// Make this machine a node of a fleet, by a token that one of its nodes has made; its key is made here and stays
    Join(office::Join),
    /// The nodes of a running edge's fleet: regions, what is wanted of each, whether it is alive, and how far this one
    /// follows the store
    Nodes(edge::Ask),
    /// Have a node of the fleet serve what it has and end
    Drain(office::Drain),
    /// Have this machine be a node of the fleet no more
    Leave(office::Leave),
    /// Have another authority vouch for the nodes of the fleet, in three steps: it is believed, it signs, the old one is
    /// believed no more. Each is this command once more, when all nodes follow
    RotateAuthority {
        #[command(flatten)]
        at: office::At,
        #[command(flatten)]
        shown: office::Shown,
    },
    /// Who changed what and when, newest first
    Audit {
        /// How many
        #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 50)]
        lines: u32,
        #[command(flatten)]
        shown: office::Shown,
        #[command(flatten)]
        at: office::At,
    },
}

#[derive(Subcommand)]
enum Config {
    /// Report every mistake, then load and configure every plugin
    Check {
        /// The host's configuration (TOML)
        #[arg(value_name = "FILE")]
        config: PathBuf,
        /// Where that host keeps its state; goes before `state-dir`
        #[arg(long, value_name = "FOLDER", env = "ADIT_STATE_DIR")]
        state_dir: Option<PathBuf>,
    },
    /// Print what a running host serves, or what it served as a generation
    Show {
        generation: Option<u64>,
        #[command(flatten)]
        admin: admin::Admin,
    },
    /// Every revision of a running host with its verdict and reasons
    History {
        /// Print the admin API's own JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: admin::Admin,
    },
    /// What differs between two generations, or between what serves and a file
    Diff {
        /// The older generation; what serves if it is left out
        from: Option<u64>,
        /// The newer generation; what serves if it is left out
        to: Option<u64>,
        /// A file in place of the newer generation
        #[arg(long, value_name = "FILE", conflicts_with = "to")]
        file: Option<PathBuf>,
        #[command(flatten)]
        admin: admin::Admin,
    },
    /// Have a running host serve this file; it replaces the host's own
    Put {
        #[arg(value_name = "FILE")]
        config: PathBuf,
        /// Only if this is what serves: the ETag of the admin API's /config
        #[arg(long, value_name = "TAG")]
        if_match: Option<String>,
        /// Serve it until the next start only
        #[arg(long)]
        no_save: bool,
        #[command(flatten)]
        admin: admin::Admin,
    },
    /// Have a running host serve an earlier generation again
    Rollback {
        generation: u64,
        /// Serve it until the next start only
        #[arg(long)]
        no_save: bool,
        #[command(flatten)]
        admin: admin::Admin,
    },
}

fn main() -> ExitCode {
    // Started by itself: before anything is read that a person would give it.
    if std::env::args_os().skip(1).eq([COMPILER]) {
        return ExitCode::from(u8::try_from(be_compiler()).unwrap_or(1));
    }
    let mut words = std::env::args_os();
    let program = words.next().unwrap_or_default();
    let words = line::arranged(words.collect(), |name| std::env::var_os(name));
    let words = std::iter::once(program).chain(words);
    let mut arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) => match line::absent(&error) {
            Some(why) => return failed(&anyhow::anyhow!(why), 2),
            None => error.exit(),
        },
    };
    let mut logging = Logging { format: arguments.log_format, directives: arguments.log.take(), file: None };
    if let Command::Tunnel(tunnel) = &mut arguments.command {
        // Its config.yml may say how it is logged.
        match tunnel.prepare().and_then(|()| tunnel.logging(&mut logging)) {
            Ok(()) => {}
            Err(Failure::Configuration(error)) => return failed(&error, 2),
            Err(Failure::Running(error)) => return failed(&error, 1),
        }
    }
    let log = match telemetry::start(logging) {
        Ok(log) => log,
        Err(error) => return failed(&error, 2),
    };
    allow_files();
    let with_stdin = arguments.stop_with_stdin;
    let outcome = match arguments.command {
        Command::Demo(arguments) => demo::run(arguments),
        Command::Tunnel(arguments) => tunnel::run(*arguments, with_stdin),
        Command::Edge(Edge::Run { config }) => edge::run(&config, with_stdin),
        Command::Edge(Edge::Check { config }) => edge::check(&config),
        Command::Edge(Edge::Certificates(ask)) => edge::certificates(ask),
        Command::Edge(Edge::Explain(question)) => edge::explain::explain(question),
        Command::Edge(Edge::Credentials { output }) => credentials::create(&output),
        Command::Edge(Edge::Init(init)) => office::init(init),
        Command::Edge(Edge::Token(token)) => office::token(token),
        Command::Edge(Edge::Accounts(accounts)) => office::accounts(accounts),
        Command::Edge(Edge::Records(records)) => office::records(records),
        Command::Edge(Edge::AddZone { domain, account, at, shown }) => {
            office::add_zone(&at, account.as_deref(), &domain, &shown)
        }
        Command::Edge(Edge::Backup { file, at, shown }) => office::backup(&at, &file, &shown),
        Command::Edge(Edge::Migrate(migrate)) => office::migrate(migrate),
        Command::Edge(Edge::Invite(asked)) => office::invite(asked),
        Command::Edge(Edge::Join(asked)) => office::join(asked),
        Command::Edge(Edge::Nodes(ask)) => edge::nodes(ask),
        Command::Edge(Edge::Drain(asked)) => office::drain(asked),
        Command::Edge(Edge::Leave(asked)) => office::leave(asked),
        Command::Edge(Edge::RotateAuthority { at, shown }) => office::rotate_authority(&at, &shown),
        Command::Edge(Edge::Audit { lines, shown, at }) => office::audit(&at, lines, &shown),
        Command::Lb(lb) => tunnel::balancing::lb(lb),
        Command::Pool(pool) => tunnel::balancing::pool(pool),
        Command::Monitor(monitor) => tunnel::balancing::monitor(monitor),
        Command::Tail(tail) => tunnel::tail::tail(tail),
        Command::Management(asked) => tunnel::tail::management(asked),
        Command::Access(access) => access::run(access, with_stdin),
        Command::Reload { admin } => admin::reload(&admin),
        Command::Explain(question) => admin::explain(&question),
        Command::Dashboard(asked) => dashboard::run(&asked),
        Command::Config(Config::Check { config, state_dir }) => host::check(&config, state_dir.as_deref()),
        Command::Config(Config::Show { generation, admin }) => admin::show(&admin, generation),
        Command::Config(Config::History { json, admin }) => admin::history(&admin, json),
        Command::Config(Config::Diff { from, to, file, admin }) => {
            admin::diff(&admin, from, to, file.as_ref())
        }
        Command::Config(Config::Put { config, if_match, no_save, admin }) => {
            admin::put(&admin, &config, if_match.as_deref(), no_save)
        }
        Command::Config(Config::Rollback { generation, no_save, admin }) => {
            admin::rollback(&admin, generation, no_save)
        }
        Command::Plugin(command) => plugin::run(command),
        Command::Version(asked) => {
            version::run(&asked);
            Ok(())
        }
        Command::HashPassword => password::hash(),
        Command::Service(service) => service::run(service),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { folder } => manual::pages(&folder),
    };
    drop(log);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Configuration(error)) => failed(&error, 2),
        Err(Failure::Running(error)) => failed(&error, 1),
    }
}

/// Many systems let a process have 1024 files unless it asks for more, and each connection is one.
fn allow_files() {
    let limit = getrlimit(Resource::Nofile);
    // Where the system says no, what there is has to do.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Why a command did not do what was asked, as scripts must tell it.
enum Failure {
    /// What was given is wrong: exit code 2.
    Configuration(anyhow::Error),
    /// It was right and went wrong all the same: exit code 1.
    Running(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Running(error)
    }
}

fn failed(error: &anyhow::Error, code: u8) -> ExitCode {
    // Not `eprintln!`, which panics when nobody reads.
    let _ = writeln!(std::io::stderr(), "adit: {error:#}");
    ExitCode::from(code)
}
