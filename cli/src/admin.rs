//! Commands for a host that runs: they ask its admin API, or an edge's, and print what it says. Exit codes: 0 done, 2 refused
//! as wrong, 1 anything else.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_host::config::source;
use adit_net::guard::Token;
use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use clap::Args;
use http::header::{AUTHORIZATION, HOST, IF_MATCH};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use similar::TextDiff;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::Failure;

/// Which host is asked.
#[derive(Args)]
pub(crate) struct Admin {
    /// Where the admin API of the host listens, as `admin.listen` in its configuration
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:20241", env = "ADIT_ADMIN")]
    admin: String,
    /// The file with the token that it wants, as `admin.token-file`
    #[arg(long, value_name = "FILE", env = "ADIT_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
    #[arg(skip = "host")]
    whose: &'static str,
}

/// A request as somebody would send it.
#[derive(Args)]
pub(crate) struct Question {
    /// The whole address, such as `https://app.example.com/path`
    url: String,
    #[arg(long, default_value = "GET")]
    method: String,
    /// A header of the request: "name: value"; may be given several times
    #[arg(long = "header", short = 'H', value_name = "HEADER")]
    headers: Vec<String>,
    /// Plugins are named but not run
    #[arg(long)]
    no_plugins: bool,
    #[command(flatten)]
    admin: Admin,
}

/// Asks for a reload of the document.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn reload(admin: &Admin) -> Result<(), Failure> {
    verdict(&admin.ask("POST", "/reload", None, Bytes::new()).await?)
}

/// Hands a document over.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn put(admin: &Admin, file: &Path, tag: Option<&str>, no_save: bool) -> Result<(), Failure> {
    let text = source::read(file).map_err(|error| Failure::Configuration(error.into()))?.text;
    let path = if no_save { "/config?save=false" } else { "/config" };
    verdict(&admin.ask("PUT", path, Some(tag.unwrap_or("*")), text.into()).await?)
}

/// Serves a generation of the history again.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn rollback(admin: &Admin, generation: u64, no_save: bool) -> Result<(), Failure> {
    let save = if no_save { "&save=false" } else { "" };
    let path = format!("/config/rollback?to={generation}{save}");
    verdict(&admin.ask("POST", &path, None, Bytes::new()).await?)
}

/// Prints the document of a generation, or of the one that serves.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn show(admin: &Admin, generation: Option<u64>) -> Result<(), Failure> {
    print(&admin.document(generation).await?);
    Ok(())
}

/// Prints every revision with its verdict, the last one last.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn history(admin: &Admin, as_json: bool) -> Result<(), Failure> {
    let page = admin.ask("GET", "/config/history", None, Bytes::new()).await?.page()?;
    if as_json {
        print(&format!("{page:#}\n"));
        return Ok(());
    }
    let mut lines = String::new();
    for entry in page["revisions"].as_array().into_iter().flatten() {
        let text = |key: &str| entry[key].as_str().unwrap_or_default();
        let is_refused = text("verdict") == "refused";
        let number = if is_refused { "-".to_owned() } else { entry["generation"].to_string() };
        let is_serving = !is_refused && entry["generation"] == page["serving"];
        let _ = writeln!(
            lines,
            "{}{number:>5}  {}  {:8}  {:9}  {:.12}",
            if is_serving { "*" } else { " " },
            text("time"),
            text("verdict"),
            text("source"),
            text("digest"),
        );
        for kind in ["reasons", "warnings"] {
            for line in entry[kind].as_array().into_iter().flatten().filter_map(Value::as_str) {
                let _ = writeln!(
                    lines,
                    "        {}: {}",
                    &kind[..kind.len() - 1],
                    line.replace('\n', "\n        ")
                );
            }
        }
    }
    if let Some(reason) = page["degraded"].as_str() {
        let _ = writeln!(lines, "degraded: an earlier generation serves, because of\n{reason}");
    }
    print(&lines);
    Ok(())
}

/// Prints what differs: between two generations, or between what serves and a file.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn diff(
    admin: &Admin,
    from: Option<u64>,
    to: Option<u64>,
    file: Option<&PathBuf>,
) -> Result<(), Failure> {
    let name = |generation: Option<u64>| match generation {
        Some(number) => format!("generation {number}"),
        None => "serving".to_owned(),
    };
    let read = file.map(|file| source::read(file)).transpose();
    let read = read.map_err(|error| Failure::Configuration(error.into()))?;
    let old = admin.document(from).await?;
    let (new, new_name) = match read {
        Some(read) => (read.text, read.file),
        None => (admin.document(to).await?, name(to)),
    };
    let diff = TextDiff::from_lines(&old, &new);
    print(&diff.unified_diff().header(&name(from), &new_name).to_string());
    Ok(())
}

/// Prints what the host would do with a request.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn explain(question: &Question) -> Result<(), Failure> {
    let headers = question.headers.iter().map(|line| header(line)).collect::<Result<Vec<_>, _>>()?;
    let body = json!({
        "url": question.url,
        "method": question.method,
        "headers": headers,
        "plugins": !question.no_plugins,
    });
    let answer = question.admin.ask("POST", "/explain", None, body.to_string().into()).await?;
    if answer.status == StatusCode::BAD_REQUEST {
        return Err(Failure::Configuration(anyhow!("{}", answer.problem())));
    }
    print(&format!("{:#}\n", answer.page()?));
    Ok(())
}

/// The name and the value of a header, as people write it.
pub(crate) fn header(line: &str) -> Result<(&str, &str), Failure> {
    let (name, value) = line
        .split_once(':')
        .ok_or_else(|| Failure::Configuration(anyhow!("{line:?}: write a header as \"name: value\"")))?;
    Ok((name.trim(), value.trim()))
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    body: Bytes,
}

impl Admin {
    /// That of a host.
    pub(crate) fn of_host(admin: String, admin_token_file: Option<PathBuf>) -> Self {
        Self { admin, admin_token_file, whose: "host" }
    }

    /// That of an edge.
    pub(crate) fn of_edge(admin: String, admin_token_file: Option<PathBuf>) -> Self {
        Self { admin, admin_token_file, whose: "edge" }
    }

    /// What is at a path, which is JSON.
    pub(crate) async fn look(&self, path: &str) -> anyhow::Result<Value> {
        self.ask("GET", path, None, Bytes::new()).await?.page()
    }

    async fn document(&self, generation: Option<u64>) -> anyhow::Result<String> {
        let path = match generation {
            Some(generation) => format!("/config/generations/{generation}"),
            None => "/config/document".to_owned(),
        };
        let answer = self.ask("GET", &path, None, Bytes::new()).await?;
        if answer.status != StatusCode::OK {
            bail!("{}", answer.problem());
        }
        Ok(answer.text())
    }

    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        tag: Option<&str>,
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let Self { admin, whose, .. } = self;
        let about = || format!("asking the {whose} at {admin}; --admin says where its admin API listens");
        let stream = timeout(CONNECT_LIMIT, TcpStream::connect(&self.admin))
            .await
            .context("no connection in time")
            .with_context(about)?
            .with_context(about)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.with_context(about)?;
        let _driver = AbortOnDropHandle::new(tokio::spawn(async move {
            let _ = connection.await;
        }));
        let mut request = Request::builder().method(method).uri(path).header(HOST, "localhost");
        if let Some(tag) = tag {
            request = request.header(IF_MATCH, tag);
        }
        if let Some(file) = &self.admin_token_file {
            request = request.header(AUTHORIZATION, Token::read(file)?.header());
        }
        let answer = async {
            let response = sender.send_request(request.body(Full::new(body))?).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, LARGEST_ANSWER).collect().await;
            let body = body.map_err(|error| anyhow!(error))?.to_bytes();
            Ok::<_, anyhow::Error>(Answer { status: head.status, body })
        };
        timeout(ANSWER_LIMIT, answer)
            .await
            .context("no answer in time")
            .with_context(about)?
            .with_context(about)
    }
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).map_err(|_| anyhow!("{}", self.text().trim().to_owned()))
    }

    /// What was asked for, which is JSON; an error where one is said instead.
    pub(crate) fn page(&self) -> anyhow::Result<Value> {
        let page = self.json()?;
        if page["error"].is_string() { Err(anyhow!("{}", self.problem())) } else { Ok(page) }
    }

    /// Why it was not done.
    pub(crate) fn problem(&self) -> String {
        let page = self.json().unwrap_or_default();
        page["error"].as_str().map_or_else(|| self.text().trim().to_owned(), str::to_owned)
    }
}

/// Prints it; a refusal is a mistake of whoever asked.
fn verdict(answer: &Answer) -> Result<(), Failure> {
    let page = answer.page()?;
    let list = |key: &str| {
        let lines = page[key].as_array().into_iter().flatten().filter_map(Value::as_str);
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    for warning in list("warnings") {
        print(&format!("warning: {warning}\n"));
    }
    match page["verdict"].as_str() {
        Some("applied") => {
            print(&format!("applied: generation {} serves\n", page["generation"]));
            Ok(())
        }
        Some("refused") => {
            let reasons = list("reasons").join("\n");
            Err(Failure::Configuration(anyhow!(
                "refused; generation {} serves on\n{reasons}",
                page["serving"]
            )))
        }
        _ => {
            let reasons = list("reasons").join("\n");
            Err(Failure::Running(anyhow!("{} {reasons}", page["verdict"].as_str().unwrap_or("no verdict:"))))
        }
    }
}

fn print(text: &str) {
    // Not `print!`, which panics when nobody reads.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A large component takes its time to compile.
const ANSWER_LIMIT: Duration = Duration::from_secs(10 * 60);
const LARGEST_ANSWER: usize = 64 * 1024 * 1024;
