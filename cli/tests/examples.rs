//! The configurations in `examples/` are good as they stand.

use std::path::Path;
use std::process::Command;

#[test]
fn the_examples_work_as_they_are() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the repository");
    // A copy, because the examples expect files beside them that are made for each installation.
    let copy = tempfile::tempdir().expect("a temporary folder");
    let examples = copy.path().join("examples");
    std::fs::create_dir_all(&examples).expect("a folder");
    for name in ["edge.toml", "host.toml"] {
        std::fs::copy(repository.join("examples").join(name), examples.join(name)).expect("an example");
    }
    let adit = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_adit"))
            .args(arguments)
            .current_dir(copy.path())
            .output()
            .expect("the program runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    adit(&["edge", "credentials", "--output", "examples/demo.json"]);
    // What the edge has made by the time its authority is copied to a host.
    let edge =
        ["edge", "init", "--zone", "example.test", "--config", "examples/edge.toml", "--cert", "cert.pem"];
    adit(&edge);
    let checked = adit(&["config", "check", "examples/host.toml"]);
    assert!(checked.contains("4 rules, 2 plugins"), "{checked}");
    assert!(!checked.contains("warning"), "{checked}");
    adit_edge::Settings::load(&examples.join("edge.toml")).expect("the edge's example is good");
}
