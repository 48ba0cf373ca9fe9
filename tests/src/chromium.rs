//! A real browser: Chromium without a window, of Debian's package `chromium-headless-shell`, which `cargo xtask test`
//! fetches. It is driven by the DevTools protocol. A machine without it [skips](crate::skip) what needs it.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::process::target;
use crate::within;

/// One browser with one tab.
pub struct Chromium {
    process: Child,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: String,
    last: u64,
    /// What the console said, and what was thrown or blocked.
    pub console: Vec<String>,
    _profile: TempDir,
}

impl Chromium {
    /// `None` where there is no such program.
    pub async fn start() -> Option<Self> {
        let named = std::env::var_os("ADIT_CHROMIUM").map(PathBuf::from);
        let folder = named.unwrap_or_else(|| target().join("tools/chromium-headless-shell"));
        let program = folder.join("usr/lib/chromium/chromium-headless-shell");
        if !program.is_file() {
            crate::skip(&format!("there is no {}; `cargo xtask setup` fetches it", program.display()));
            return None;
        }
        let libraries = folder.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
        let paths = std::env::join_paths([libraries.clone(), libraries.join("pulseaudio")]).expect("paths");
        let profile = TempDir::new().expect("a temporary folder");
        let mut command = Command::new(program);
        command
            .args(["--no-sandbox", "--no-proxy-server", "--remote-debugging-port=0", "--hide-scrollbars"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .env("LD_LIBRARY_PATH", paths)
            .stderr(Stdio::piped());
        let mut process = command.spawn().expect("the browser starts");
        let stderr = process.stderr.take().expect("it was asked for");
        let (found, address) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let mut found = Some(found);
            // To its end, so that the browser never waits for a reader.
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some((_, address)) = line.split_once("DevTools listening on ")
                    && let Some(found) = found.take()
                {
                    let _ = found.send(address.trim().to_owned());
                }
            }
        });
        let address = within("the browser's start", address).await.expect("it says where it listens");
        let (socket, _) =
            tokio_tungstenite::connect_async(address).await.expect("a connection to the browser");
        let mut browser =
            Self { process, socket, session: String::new(), last: 0, console: Vec::new(), _profile: profile };
        let tab = browser.call("Target.createTarget", json!({ "url": "about:blank" })).await;
        let tab = json!({ "targetId": tab["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", tab).await;
        browser.session = session["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        Some(browser)
    }

    /// One command, and what came of it.
    pub async fn call(&mut self, method: &str, parameters: Value) -> Value {
        let answer = self.answer(method, parameters).await;
        assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
        answer["result"].clone()
    }

    async fn answer(&mut self, method: &str, parameters: Value) -> Value {
        self.last += 1;
        let mut command = json!({ "id": self.last, "method": method, "params": parameters });
        if !self.session.is_empty() {
            command["sessionId"] = self.session.clone().into();
        }
        self.socket.send(Message::text(command.to_string())).await.expect("the browser is there");
        loop {
            let message = self.message(method).await;
            if message["id"] == self.last {
                return message;
            }
        }
    }

    async fn message(&mut self, what: &str) -> Value {
        loop {
            let message =
                within(what, self.socket.next()).await.expect("the browser is there").expect("a message");
            let Message::Text(text) = message else { continue };
            let message: Value = serde_json::from_str(&text).expect("it speaks JSON");
            let said = &message["params"];
            match message["method"].as_str() {
                Some("Runtime.consoleAPICalled") => self.console.push(said["args"].to_string()),
                Some("Runtime.exceptionThrown") => self.console.push(said["exceptionDetails"].to_string()),
                Some("Log.entryAdded") => self.console.push(said["entry"].to_string()),
                _ => {}
            }
            return message;
        }
    }

    /// Goes there, and waits until it is there; what the browser says if it is not.
    pub async fn open(&mut self, url: &str) -> Option<String> {
        let gone = self.call("Page.navigate", json!({ "url": url })).await;
        if let Some(error) = gone["errorText"].as_str() {
            return Some(error.to_owned());
        }
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'").await;
        None
    }

    /// What an expression of JavaScript is; null where the page is left while it is asked.
    pub async fn value(&mut self, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.answer("Runtime.evaluate", asked).await;
        let error = answer["error"]["message"].as_str();
        let is_left = error.is_some_and(|error| error.contains("navigated") || error.contains("context"));
        assert!(error.is_none() || is_left, "{expression}: {}", answer["error"]);
        answer["result"]["result"]["value"].clone()
    }

    /// Waits until it holds.
    pub async fn until(&mut self, expression: &str) {
        within(&format!("{expression} in the browser"), async {
            while self.value(expression).await != true {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// Presses and releases a key, such as `Tab`.
    pub async fn key(&mut self, key: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            _ => panic!("{key}: say what its code is"),
        };
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let event =
                json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text });
            self.call("Input.dispatchKeyEvent", event).await;
        }
    }

    /// Types, where the cursor is.
    pub async fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text })).await;
    }

    /// How wide a page is, and whether it is dark.
    pub async fn look(&mut self, width: u32, is_dark: bool) {
        let size = json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let scheme = if is_dark { "dark" } else { "light" };
        let features = json!({ "features": [
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ] });
        self.call("Emulation.setEmulatedMedia", features).await;
    }

    /// Whether scripts of pages run.
    pub async fn scripts(&mut self, run: bool) {
        self.call("Emulation.setScriptExecutionDisabled", json!({ "value": !run })).await;
    }

    /// A picture of the page, PNG.
    pub async fn picture(&mut self) -> Vec<u8> {
        let picture = self.call("Page.captureScreenshot", json!({ "format": "png" })).await;
        STANDARD.decode(picture["data"].as_str().expect("a picture")).expect("Base64")
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
