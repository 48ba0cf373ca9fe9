use super::*;

fn revision(text: &str, remote: Option<Remote>) -> Revision {
    Revision {
        file: "host.toml".into(),
        folder: "/etc/adit".into(),
        text: text.into(),
        copies: BTreeMap::new(),
        remote,
    }
}

/// Keeps and serves a generation with one file.
fn apply(history: &History, text: &str, file: &Path, remote: Option<Remote>) -> u64 {
    use sha2::{Digest, Sha256};
    let number = history.next_generation();
    let revision = revision(text, remote);
    let mut entry = Entry::new(number, Outcome::Applied, Source::File, folder::hex(&Sha256::digest(text)));
    entry.remote_version = revision.remote.as_ref().map(|remote| remote.version);
    let content = Arc::new(std::fs::read(file).unwrap().into());
    let part = Part { path: "/etc/adit/a.wasm".into(), content };
    history.keep(&mut entry, &revision, &[part]).unwrap();
    let digest = entry.digest.clone();
    history.applied(entry, Serving { generation: number, digest, revision });
    number
}

#[test]
fn a_generation_is_found_again_with_its_files_and_what_the_edge_had_pushed() {
    let folder = tempfile::tempdir().unwrap();
    let (state, file) = (folder.path().join("state"), folder.path().join("a.wasm"));
    std::fs::write(&file, "first").unwrap();
    let history = History::open(Some(&state)).unwrap();
    let remote = Remote { version: 7, json: b"{}".as_slice().into() };
    assert_eq!(apply(&history, "one", &file, Some(remote.clone())), 1);
    std::fs::write(&file, "second").unwrap();
    assert_eq!(apply(&history, "two", &file, Some(remote.clone())), 2);
    let mut refused = Entry::new(2, Outcome::Refused, Source::Api, "digest".into());
    refused.reasons = vec!["x".repeat(10_000)];
    history.refused(refused);
    std::fs::remove_file(&file).unwrap();

    let history = History::open(Some(&state)).unwrap();
    assert_eq!(history.next_generation(), 3);
    assert_eq!(history.remote(), Some(remote));
    assert_eq!(history.entries().len(), 3);
    assert_eq!(history.entries()[2].reasons[0].len(), LONGEST_REASON);
    let found: Vec<_> = history.good().collect();
    assert_eq!(found.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [2, 1]);
    for ((_, revision), (text, content)) in found.iter().zip([("two", "second"), ("one", "first")]) {
        assert_eq!(&*revision.text, text);
        let copy = &revision.copies[Path::new("/etc/adit/a.wasm")];
        assert_eq!(std::fs::read_to_string(copy).unwrap(), content);
    }
}

#[test]
fn a_damaged_part_makes_way_for_the_generation_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let (state, file) = (folder.path().join("state"), folder.path().join("a.wasm"));
    std::fs::write(&file, "component").unwrap();
    let history = History::open(Some(&state)).unwrap();
    apply(&history, "one", &file, None);
    apply(&history, "two", &file, None);
    let two = {
        use sha2::{Digest, Sha256};
        folder::hex(&Sha256::digest("two"))
    };
    std::fs::write(state.join("parts").join(two), "tw").unwrap();
    std::fs::write(state.join("entries/9999999999-1.json"), "{\"generation\":").unwrap();
    std::fs::write(state.join("entries/.1-2-half"), "{").unwrap();
    let history = History::open(Some(&state)).unwrap();
    assert_eq!(
        history.good().next().map(|(number, revision)| (number, revision.text)),
        Some((1, "one".into()))
    );
}

#[test]
fn without_a_folder_documents_are_remembered_as_long_as_the_process_lives() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.wasm");
    std::fs::write(&file, "component").unwrap();
    let history = History::open(None).unwrap();
    for number in 1..=200 {
        assert_eq!(apply(&history, &format!("document {number}"), &file, None), number);
    }
    assert_eq!(history.entries().len(), MOST);
    assert_eq!(history.text(200).as_deref(), Some("document 200"));
    assert_eq!(history.text(199).as_deref(), Some("document 199"));
    assert_eq!(history.revive(150).map(|revision| revision.text), Some("document 150".into()));
    assert_eq!(history.text(1), None);
}

#[test]
fn the_folder_is_nobody_elses_and_does_not_grow_for_ever() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (state, file) = (folder.path().join("state"), folder.path().join("a.wasm"));
    std::fs::write(&file, "component").unwrap();
    let history = History::open(Some(&state)).unwrap();
    let count = |name: &str| std::fs::read_dir(state.join(name)).unwrap().count();
    let age = |name: &str| {
        let old = SystemTime::now() - std::time::Duration::from_secs(3600);
        for entry in std::fs::read_dir(state.join(name)).unwrap() {
            std::fs::File::open(entry.unwrap().path()).unwrap().set_modified(old).unwrap();
        }
    };
    for number in 0..300 {
        apply(&history, &format!("document {number}"), &file, None);
        age("parts");
        age("entries");
    }
    assert!(count("parts") < 100 && count("entries") < 100, "{} {}", count("parts"), count("entries"));
    assert_eq!(history.good().count(), MOST);
    let mode = std::fs::metadata(state.join("parts")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}
