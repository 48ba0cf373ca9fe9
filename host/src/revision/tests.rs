use std::sync::Weak;

use adit_engine::EngineSettings;
use arc_swap::ArcSwap;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::*;
use crate::config::tests::{TUNNEL, folder};
use crate::generation::{Backend, Generation};
use crate::revision::bootstrap;

/// A writer that runs, with a folder for its document.
struct Scene {
    folder: TempDir,
    reload: Reload,
    current: Arc<Current>,
    writer: JoinHandle<()>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

fn document(rules: &str) -> String {
    format!("{TUNNEL}{rules}\n[[ingress]]\nname = \"last\"\nservice = \"http_status:404\"\n")
}

async fn scene(rules: &str, keys: &str) -> Scene {
    let folder = folder();
    let path = folder.path().join("host.toml");
    std::fs::write(&path, format!("{keys}\n{}", document(rules))).unwrap();
    let engine = Engine::new(EngineSettings { instances: 10 }).unwrap();
    let bootstrap::Start { settings, generation, history, files } = bootstrap::start(
        &Reader::of_file(path.clone()),
        None,
        &crate::config::settings::Flags::default(),
        &engine,
    )
    .await
    .unwrap();
    let current = Arc::new(ArcSwap::from_pointee(generation));
    let (reload, writer) =
        Reload::new(Reader::of_file(path), settings, engine, current.clone(), history, files);
    Scene { folder, reload, current, writer: tokio::spawn(writer.run()) }
}

impl Scene {
    async fn put(&self, text: &str) -> Verdict {
        let put = Put {
            text: text.to_owned(),
            copies: BTreeMap::new(),
            expected: None,
            save: false,
            source: Source::Api,
        };
        self.reload.put(put).await
    }
}

const RULE: &str = "[[ingress]]\nname = \"a\"\nhostname = \"a\"\nservice = \"http://127.0.0.1:1\"\n";

#[tokio::test]
async fn a_generation_is_gone_as_soon_as_no_request_of_it_waits() {
    let scene = scene(RULE, "").await;
    let mut gone: Vec<Weak<Generation>> = Vec::new();
    for number in 0..20 {
        gone.push(Arc::downgrade(&scene.current.load_full()));
        assert!(matches!(
            scene.put(&document(&RULE.replace(":1", &format!(":{}", number + 2)))).await,
            Verdict::Applied { .. }
        ));
        assert!(
            gone.iter().all(|generation| generation.upgrade().is_none()),
            "one of {number} is still there"
        );
    }
    // One with a request stays as long as the request, and no longer.
    let request = scene.current.load_full();
    let held = Arc::downgrade(&request);
    scene.put(&document("")).await;
    assert!(held.upgrade().is_some() && request.lifetime.is_retired());
    // What an answer that is under way holds does not keep it.
    let answer = request.lifetime.clone();
    drop(request);
    assert!(held.upgrade().is_none() && answer.is_retired());
}

#[tokio::test]
async fn what_has_not_changed_is_taken_over() {
    let scene = scene(RULE, "").await;
    let of = |generation: &Generation| {
        let rule = &generation.rules()[0];
        let Backend::Origin(origin, _) = &rule.backend else { panic!("the rule has an origin") };
        (origin.clone(), rule.metrics.clone())
    };
    let (origin, metrics) = of(&scene.current.load());
    scene.put(&document(&format!("{RULE}[[ingress]]\nhostname = \"b\"\nservice = \"hello_world\"\n"))).await;
    let (same, counts) = of(&scene.current.load());
    assert!(Arc::ptr_eq(&origin, &same) && Arc::ptr_eq(&metrics, &counts));
    scene.put(&document(&RULE.replace(":1", ":2"))).await;
    let (other, counts) = of(&scene.current.load());
    assert!(!Arc::ptr_eq(&origin, &other), "its service has changed");
    assert!(Arc::ptr_eq(&metrics, &counts), "a rule of the same name counts on");
}

#[tokio::test]
async fn pushed_versions_never_go_back_and_of_several_only_the_highest_is_built() {
    let json = |status: u16| Bytes::from(format!(r#"{{"ingress":[{{"service":"http_status:{status}"}}]}}"#));
    let local = scene(RULE, "").await;
    let refused = local.reload.push(1, json(200)).await;
    assert_eq!(refused.version, -1);
    assert!(refused.error.unwrap().contains("own document"));

    let scene = scene(RULE, "config-source = \"remote\"").await;
    let number = || scene.current.load().number;
    let before = number();
    let versions = [3, 5, 4, 5, 1];
    let pushes = versions.map(|version| scene.reload.push(version, json(200 + version as u16)));
    let verdicts = futures_util::future::join_all(pushes).await;
    assert!(verdicts.iter().all(|verdict| *verdict == Pushed::serves(5, Vec::new())), "{verdicts:?}");
    assert_eq!(number(), before + 1);
    let bad = scene.reload.push(6, Bytes::from_static(b"{")).await;
    assert_eq!((bad.version, number()), (5, before + 1));
    assert!(bad.error.is_some());
    // A document that is read again keeps what was pushed.
    assert!(matches!(scene.reload.reread(Source::Api).await, Verdict::Applied { .. }));
    assert_eq!(scene.reload.push(5, json(200)).await, Pushed::serves(5, Vec::new()));
    assert_eq!(scene.current.load().rules()[0].name, "*");
}

#[tokio::test]
async fn a_touched_document_is_no_revision() {
    let scene = scene(RULE, "").await;
    let number = scene.current.load().number;
    let path = scene.folder.path().join("host.toml");
    assert!(matches!(scene.reload.reread(Source::File).await, Verdict::Applied { .. }));
    assert_eq!(scene.current.load().number, number);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{text}# changed\n")).unwrap();
    assert!(
        matches!(scene.reload.reread(Source::File).await, Verdict::Applied { generation, .. } if generation == number + 1)
    );
}

#[tokio::test]
async fn a_document_that_is_not_even_toml_begins_with_the_last_good_generation() {
    let folder = folder();
    let path = folder.path().join("host.toml");
    let good = format!("state-dir = \"state\"\n{}", document(RULE));
    std::fs::write(&path, &good).unwrap();
    let engine = Engine::new(EngineSettings { instances: 10 }).unwrap();
    let flags = crate::config::settings::Flags::default();
    // What a process has left that was killed while it replaced the document.
    let mut gone = std::process::Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let left = folder.path().join(format!(".host.toml.{}", gone.id()));
    std::fs::write(&left, "half").unwrap();
    bootstrap::start(&Reader::of_file(path.clone()), None, &flags, &engine).await.unwrap();
    assert!(!left.exists());
    let broken: [Vec<u8>; 3] = [
        good.replace("[[ingress]]", "[[ingress").into(),
        format!("{good}\nservice = \"").into(),
        [good.as_bytes(), b"# \xff"].concat(),
    ];
    for text in broken {
        std::fs::write(&path, &text).unwrap();
        let start = bootstrap::start(&Reader::of_file(path.clone()), None, &flags, &engine).await.unwrap();
        assert_eq!(start.generation.rules()[0].name, "a", "{}", String::from_utf8_lossy(&text));
        assert!(start.history.degraded().is_some());
    }
}

#[tokio::test]
async fn a_generation_is_kept_again_where_the_state_folder_was_removed() {
    let folder = folder();
    let path = folder.path().join("host.toml");
    std::fs::write(&path, format!("state-dir = \"state\"\n{}", document(RULE))).unwrap();
    let engine = Engine::new(EngineSettings { instances: 10 }).unwrap();
    let flags = crate::config::settings::Flags::default();
    let bootstrap::Start { settings, generation, history, files } =
        bootstrap::start(&Reader::of_file(path.clone()), None, &flags, &engine).await.unwrap();
    let current = Arc::new(ArcSwap::from_pointee(generation));
    let (reload, writer) =
        Reload::new(Reader::of_file(path.clone()), settings, engine.clone(), current, history, files);
    let running = tokio::spawn(writer.run());
    std::fs::remove_dir_all(folder.path().join("state")).unwrap();
    let Verdict::Applied { warnings, .. } = reload.reread(Source::Signal).await else { panic!("it is good") };
    assert_eq!(warnings, [""; 0]);
    std::fs::write(&path, "state-dir = \"state\"\nbroken").unwrap();
    assert!(bootstrap::start(&Reader::of_file(path.clone()), None, &flags, &engine).await.is_ok());
    running.abort();
}
