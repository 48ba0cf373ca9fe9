//! What a search begins with: bytes that are good, so that what differs by little from them is tried. Each
//! target's first byte says what the rest is, except for those that read text.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::tree::Tree;

/// Writes the seeds of a target into `folder` and says how many there are.
pub(super) fn sow(tree: &Tree, target: &str, folder: &Path) -> Result<usize> {
    let mut seeds: Vec<Vec<u8>> = match target {
        "protocol" => protocol(tree)?,
        "document" => documents(tree)?,
        "component" => components(tree)?,
        "condition" => CONDITIONS.iter().map(|seed| seed.as_bytes().to_vec()).collect(),
        "frames" => frames(tree)?,
        "names" => QUESTIONS.iter().map(|seed| seed.to_vec()).collect(),
        "decision" => DECISIONS.iter().map(|seed| seed.to_vec()).collect(),
        _ => Vec::new(),
    };
    seeds.dedup();
    for (number, seed) in seeds.iter().enumerate() {
        let file = folder.join(format!("{number:03}"));
        fs::write(&file, seed).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(seeds.len())
}

/// Recorded bytes, as streams and as messages, and what people keep in files.
fn protocol(tree: &Tree) -> Result<Vec<Vec<u8>>> {
    let mut seeds = Vec::new();
    for file in files(&tree.root().join("protocol/tests/vectors"), "bin")? {
        let bytes = read(&file)?;
        seeds.extend([0, 2].map(|kind| [&[kind], &bytes[..]].concat()));
    }
    seeds.extend(FRAMES_AND_FILES.iter().map(|seed| seed.to_vec()));
    Ok(seeds)
}

/// What nodes of format 1 say, as it was recorded in the test of it, whole and each frame by itself.
fn frames(tree: &Tree) -> Result<Vec<Vec<u8>>> {
    let text = String::from_utf8(read(&tree.root().join("edge/src/peers/frames.rs"))?)?;
    let recorded = text.split_once("const RECORDED: &str = \"").and_then(|(_, rest)| rest.split_once('"'));
    let (recorded, _) = recorded.context("no frames are recorded in edge/src/peers/frames.rs")?;
    let digits: Vec<u32> = recorded.chars().filter_map(|letter| letter.to_digit(16)).collect();
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect();
    let (mut seeds, mut rest) = (vec![bytes.clone()], &bytes[..]);
    while let Some((head, _)) = rest.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let (frame, behind) = rest.split_at_checked(5 + length).context("a frame is recorded in part")?;
        seeds.push(frame.to_vec());
        rest = behind;
    }
    Ok(seeds)
}

/// The examples, those in the documentation, and what an edge pushes.
fn documents(tree: &Tree) -> Result<Vec<Vec<u8>>> {
    let mut seeds = vec![PUSHED.as_bytes().to_vec()];
    for file in files(&tree.root().join("examples"), "toml")? {
        seeds.push(read(&file)?);
    }
    let mut texts = files(tree.root(), "md")?;
    texts.extend(files(&tree.root().join("docs"), "md")?);
    texts.extend(files(&tree.root().join("docs/plugins"), "md")?);
    for file in texts {
        let text = String::from_utf8_lossy(&read(&file)?).into_owned();
        let blocks = text.split("```toml\n").skip(1).filter_map(|rest| rest.split_once("```"));
        seeds.extend(blocks.map(|(block, _)| block.as_bytes().to_vec()));
    }
    Ok(seeds)
}

/// Plugins and guests that are not long to compile: filters, services, middleware.
fn components(tree: &Tree) -> Result<Vec<Vec<u8>>> {
    let mut seeds = DAMAGES.iter().map(|seed| seed.to_vec()).collect::<Vec<_>>();
    for folder in ["plugins", "plugins/test"] {
        for file in files(&tree.target(folder), "wasm")? {
            let wasm = read(&file)?;
            if wasm.len() <= LONGEST_COMPONENT {
                seeds.push([&[0], &wasm[..]].concat());
            }
        }
    }
    Ok(seeds)
}

/// The files in a folder with this ending, by name; none where there is no folder.
fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("reading {}", folder.display()))?.path();
        if path.extension().is_some_and(|found| found == ending) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("reading {}", file.display()))
}

const LONGEST_COMPONENT: usize = 160 * 1024;

const FRAMES_AND_FILES: &[&[u8]] = &[
    b"\x03\x00\x00\x00\x05hello\x80\x00\x00\x07eC1h:Nw",
    b"\x04Q29udGVudC1UeXBl:dGV4dC9wbGFpbg;WC1B:Yg",
    br#"{"AccountTag":"account","TunnelSecret":"c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMw==","TunnelID":"6b2a4c1e-8f0d-4a3b-9c5e-1d2f3a4b5c6d"}"#,
    b"\x05eyJhIjoiYWNjb3VudCIsInQiOiI2YjJhNGMxZS04ZjBkLTRhM2ItOWM1ZS0xZDJmM2E0YjVjNmQiLCJzIjoiYzJWamNtVjBMWE5sWTNKbGRDMXpaV055WlhRdGMyVmpjbVYwTFRFeU13PT0ifQ==",
    b"\x06\x82\x85\x01\x02\x03\x04igohn\x88\x80\x01\x02\x03\x04",
    b"\x07\x02\x02hi\x89\x00\x80\x01x\x88\x02\x03\xe8",
    b"\x05-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n-----BEGIN ARGO TUNNEL TOKEN-----\neyJ6b25lSUQiOiJ6IiwiYWNjb3VudElEIjoiYSIsImFwaVRva2VuIjoidCJ9\n-----END ARGO TUNNEL TOKEN-----\n",
];

const PUSHED: &str = r#"{"ingress":[
{"hostname":"*.Example.com","path":"^/x","service":"https://127.0.0.1:1",
 "originRequest":{"noTLSVerify":true,"connectTimeout":3,"httpHostHeader":"a.internal","http2Origin":true,
  "matchSNItoHost":true,"disableChunkedEncoding":true,"noHappyEyeballs":true,"tcpKeepAlive":7},"plugins":["auth"]},
{"hostname":"","service":"ws://127.0.0.1:2","unknown":1}],
"originRequest":{"connectTimeout":5,"keepAliveConnections":7,"tlsTimeout":0},"warp-routing":{"enabled":true}}"#;

/// In the first line a condition, in the others a request.
const CONDITIONS: &[&str] = &[
    "http.host eq \"a.example\" and not ip.src in {192.0.2.0/24 10.0.0.1..10.0.0.9 2001:db8::/32}\na.example",
    "any(lower(http.request.headers[\"X-Name\"][*])[*] contains \"one\")\n/path\nx-name:One\nx-name:two",
    "http.request.uri.args[\"q\"][0] wildcard r\"*a\\*b*\" || starts_with(http.request.uri.path, \"/x\")\n/x?q=1a*b2&q=3",
    "(http.request.uri matches r#\"^/\\d+(x|y)?\"# xor http.request.timestamp.sec ge 1800000000) && dns.qry.type == 28\n/12x",
    "any(http.request.uri.args.names[*] in {\"a\" \"b\"}) or http.cookie strict wildcard \"*s=\\x41\"\n/?a\ncookie:s=A",
    "not not (cf.load_balancer.name ne \"lb\" or cf.load_balancer.region == \"WEU\" ^^ ends_with(http.referer, \"\"))",
];

/// Questions as resolvers send them, and what is none: with a limit of bytes, about every kind of name, in two, an answer,
/// a change of the zone, a name that leads to itself, and one that is cut.
const QUESTIONS: &[&[u8]] = &[
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x03app\x07example\x03com\x00\x00\x01\x00\x01\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00",
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x0f_acme-challenge\x03APP\x07exAmple\x03com\x00\x00\x10\x00\x01",
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x11_v2-origintunneld\x04_tcp\x07example\x03com\x00\x00\x21\x00\x01",
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04west\x04edge\x07example\x03com\x00\x00\x1c\x00\x01",
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\xff\x00\x01",
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\xfc\x00\x01",
    b"\x12\x34\x01\x00\x00\x02\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x06\x00\x01\xc0\x0c\x00\x02\x00\x03",
    b"\x12\x34\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x01\x00\x04\x7f\x00\x00\x01",
    b"\x12\x34\x28\x00\x00\x01\x00\x00\x00\x01\x00\x00\x07example\x03com\x00\x00\x06\x00\x01\xc0\x0c\x00\x01\x00\xff\x00\x00\x00\x00\x00\x00",
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01",
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x3fapp",
];

/// `next`, a fault, an answer and edits; see the target for how they are put together.
const DECISIONS: &[&[u8]] = &[
    b"\0",
    b"\x01\x00\x05quota\x0ctoo many now",
    b"\x01\x01\xc8\x00\x02\x03x-a\x01b\x0ccontent-type\x0atext/plain\x04body",
    b"\x01\x02\x00\x04POST\x00\x09b.example\x00\x06/x?y=z\x03\x00\x03x-a\x01b\x01\x06cookie\x03c=d\x02\x06accept\x00\x05carry",
    b"\x01\x02\x01\x01\x01\x02\x01\x04host\x01b\x00\x0econtent-length\x01\x37",
];

/// A good component, one that is cut, and one with a section twice.
const DAMAGES: &[&[u8]] = &[b"\x02", b"\x02\x00\x02\x00", b"\x02\x01\x01\x00", b"\x03\x0a\x01\x7f"];
