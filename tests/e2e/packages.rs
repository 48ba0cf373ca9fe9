//! What people install works where it is put: the deb in the root of a system, the image with nothing around it,
//! the units as far as systemd judges them without running. Packs the program that is tested, so that a release
//! build, which takes long, shows nothing new.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use adit_oci::digest::Digest;
use adit_oci::signature::{Key, Signed, verify};
use adit_oci::signing::SigningKey;
use adit_release::{Parts, deb, image};
use e2e::process::adit;
use flate2::read::GzDecoder;
use serde_json::Value;
use tempfile::TempDir;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Of the program that is tested, without what only a debugger needs.
fn parts() -> &'static Parts {
    static PARTS: OnceLock<Parts> = OnceLock::new();
    PARTS.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let program = folder.path().join("adit");
        ran(Command::new("strip").arg("-o").arg(&program).arg(adit()));
        ran(Command::new(adit()).arg("man").arg(folder.path()));
        let unit = |name: &str| {
            let path = repository().join("packaging/systemd").join(format!("{name}.service"));
            (name.to_owned(), fs::read_to_string(path).unwrap())
        };
        Parts {
            version: "0.0.1".to_owned(),
            commit: "0123abcd".to_owned(),
            architecture: if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }.to_owned(),
            licence: "Apache-2.0".to_owned(),
            time: 1_700_000_000,
            program: fs::read(&program).unwrap(),
            is_static: false,
            units: ["adit-edge", "adit-tunnel"].map(unit).into(),
            manual: [("adit.1".to_owned(), fs::read(folder.path().join("adit.1")).unwrap())].into(),
            completions: BTreeMap::new(),
            changelog: "nothing".to_owned(),
            sbom: b"{}".to_vec(),
            level: 1,
        }
    })
}

fn ran(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{said}",
        output.status,
        String::from_utf8_lossy(&output.stdout)
    );
    output
}

/// Runs a script of bash in namespaces of its own, where it is root and the network is its own; `None` is a skip.
fn in_a_world_of_its_own(script: &str, arguments: &[&Path]) -> Option<String> {
    let unshare = ["--net", "--mount", "--pid", "--fork", "--kill-child"];
    let may = Command::new("unshare").args(unshare).arg("true").output();
    if !may.is_ok_and(|output| output.status.success()) {
        e2e::skip("this machine allows no namespaces");
        return None;
    }
    let begin = "set -eu
        python3 -c 'import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack(\"16sh14x\", b\"lo\", 0x41))'
        # waits up to 60 s for a command to succeed
        until_true() { for _ in $(seq 600); do \"$@\" && return; sleep 0.1; done; echo \"not in time: $*\" >&2; return 1; }
        answers() { (exec 3<>/dev/tcp/127.0.0.1/$1) 2>/dev/null; }
        # what a visitor sees: port, host, path
        visit() { exec 3<>/dev/tcp/127.0.0.1/$1; printf 'GET %s HTTP/1.1\\r\\nhost: %s\\r\\nconnection: close\\r\\n\\r\\n' $3 $2 >&3; cat <&3; exec 3<&-; }
        serves() { visit \"$@\" 2>/dev/null | grep -q '^HTTP/1.1 200'; }
        # what every system has around a program
        around() { mkdir -p $1/proc $1/dev; mount -t proc proc $1/proc; mount --bind /dev $1/dev; }
        # the C library that a build of the tests needs, and a release does not
        library() { mkdir -p $1/lib $1/lib64; mount --bind /lib $1/lib; mount --bind /lib64 $1/lib64; }
        milliseconds() { echo $(($(date +%s%N) / 1000000)); }
        ";
    let mut command = Command::new("unshare");
    command.args(unshare).args(["bash", "-c", &format!("{begin}\n{script}"), "bash"]).args(arguments);
    Some(String::from_utf8_lossy(&ran(&mut command).stdout).into_owned())
}

/// From a package to an answer in the root of a system, with nothing typed but what is numbered. `install` is how
/// the package `$1` comes into the root `$2`.
fn served_from(package: &Path, root: &Path, install: &str) -> Option<String> {
    let logs = TempDir::new().unwrap();
    let script = format!(
        r#"
        {install}                                                                           # 1
        chroot $2 adit edge init --zone example.localhost --config /etc/adit/edge.toml \
            --data-dir /var/lib/adit-edge --cert /etc/adit/cert.pem                         # 2
        # 3: systemctl enable --now adit-edge, which is: its state belongs to its user, and this command runs as it
        chown -R 61184:61184 $2/var/lib/adit-edge
        start=$(sed -n 's/^ExecStart=//p' $2/usr/lib/systemd/system/adit-edge.service)
        begun=$(milliseconds)
        chroot --userspec=61184:61184 $2 $start 2> $3/edge.log &
        until_true answers 20250
        echo "the edge listens after $(($(milliseconds) - begun)) ms"
        begun=$(milliseconds)
        chroot $2 adit tunnel --api-url http://127.0.0.1:20250 --origincert /etc/adit/cert.pem \
            --edge 127.0.0.1:7841 --edge 127.0.0.1:7842 --cacert /var/lib/adit-edge/ca.pem \
            --name demo --hostname app.example.localhost --hello-world 2> $3/host.log &     # 4
        until_true serves 8080 app.example.localhost / || {{ cat $3/*.log >&2; exit 1; }}
        echo "a visitor is answered after $(($(milliseconds) - begun)) ms"
        visit 8080 app.example.localhost /
        # what is in the package besides
        zcat $2/usr/share/man/man1/adit.1.gz | grep -q adit
        "#
    );
    in_a_world_of_its_own(&script, &[package, root, logs.path()])
}

#[test]
fn from_the_deb_to_a_served_tunnel_are_four_commands_and_no_file_is_edited() {
    let folder = TempDir::new().unwrap();
    let (package, root) = (folder.path().join("adit.deb"), folder.path().join("root"));
    fs::write(&package, deb::pack(parts()).unwrap()).unwrap();
    let field = |name: &str| {
        let output = ran(Command::new("dpkg-deb").arg("--field").arg(&package).arg(name));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!((field("Package"), field("Version")), ("adit".to_owned(), "0.0.1".to_owned()));
    let install = "around $2; library $2; mkdir --mode=1777 $2/tmp; dpkg-deb --extract $1 $2";
    if let Some(said) = served_from(&package, &root, install) {
        assert!(said.contains("HTTP/1.1 200"), "{said}");
    }
}

/// The one file of a release whose name ends so.
fn released(end: &str) -> PathBuf {
    let folder = std::env::var_os("ADIT_RELEASE").expect("ADIT_RELEASE names the folder of a release");
    let mut found = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    found.find(|path| path.to_str().is_some_and(|path| path.ends_with(end))).expect(end)
}

#[test]
#[ignore = "needs a release and roots of Debian: cargo xtask roots"]
fn a_release_is_installed_and_serves_in_each_debian() {
    let roots =
        std::env::var_os("ADIT_ROOTS").expect("ADIT_ROOTS names a folder with a root for each Debian");
    let mut tried = Vec::new();
    for root in fs::read_dir(roots).unwrap().map(|entry| entry.unwrap().path()) {
        let copy = TempDir::new().unwrap();
        let here = copy.path().join("root");
        ran(Command::new("cp").arg("--archive").arg(&root).arg(&here));
        // dpkg itself, and systemd as this Debian has it on what lies there then.
        let install = "around $2; cp $1 $2/tmp/adit.deb; chroot $2 dpkg --install /tmp/adit.deb
            chroot $2 systemctl enable adit-edge adit-tunnel
            for unit in adit-edge adit-tunnel; do chroot $2 systemd-analyze security --offline=yes --no-pager /usr/lib/systemd/system/$unit.service; done";
        let said = served_from(&released(".deb"), &here, install).expect("this machine allows namespaces");
        assert!(said.contains("HTTP/1.1 200") && said.contains("Setting up adit"), "{said}");
        let exposed: Vec<f64> = said.lines().filter_map(exposure_said).collect();
        assert!(exposed.len() == 2 && exposed.iter().all(|exposure| *exposure <= MOST_EXPOSED), "{said}");
        let name = root.file_name().unwrap().to_string_lossy().into_owned();
        let after: Vec<&str> = said.lines().filter(|line| line.ends_with(" ms")).collect();
        println!("{name}: {}; exposure {exposed:?}", after.join(", "));
        tried.push(name);
    }
    tried.sort();
    assert_eq!(tried, ["bookworm", "trixie"]);
}

#[test]
#[ignore = "needs a release: cargo xtask roots"]
fn a_released_image_is_small_and_serves_with_nothing_around_it() {
    let folder = TempDir::new().unwrap();
    let archive = released(".oci.tar");
    let size = fs::metadata(&archive).unwrap().len();
    println!("image: {size} bytes; program: {} bytes", fs::metadata(released("-amd64")).unwrap().len());
    assert!(size <= LARGEST_IMAGE, "{size} bytes");
    ran(Command::new("tar")
        .arg("--extract")
        .arg("--file")
        .arg(&archive)
        .arg("--directory")
        .arg(folder.path()));
    let mut files = BTreeMap::new();
    for name in ["oci-layout", "index.json"] {
        files.insert(name.to_owned(), fs::read(folder.path().join(name)).unwrap());
    }
    for blob in fs::read_dir(folder.path().join("blobs/sha256")).unwrap() {
        let path = blob.unwrap().path();
        let name = format!("blobs/sha256/{}", path.file_name().unwrap().to_str().unwrap());
        files.insert(name, fs::read(path).unwrap());
    }
    served_from_image(&files, "").expect("this machine allows namespaces");
}

/// The files of a layout, held against its index.
struct Unpacked {
    config: Value,
    layer: Vec<u8>,
}

fn read(files: &BTreeMap<String, Vec<u8>>) -> Unpacked {
    let json = |path: &str| -> Value { serde_json::from_slice(&files[path]).unwrap() };
    assert_eq!(json("oci-layout")["imageLayoutVersion"], "1.0.0");
    let blob = |descriptor: &Value| -> Vec<u8> {
        let digest: Digest = descriptor["digest"].as_str().unwrap().parse().unwrap();
        let bytes = files[&format!("blobs/sha256/{}", digest.hex())].clone();
        assert_eq!(Digest::of(&bytes), digest);
        assert_eq!(descriptor["size"], bytes.len());
        bytes
    };
    let index = json("index.json");
    let listed = &index["manifests"][0];
    let manifest: Value = serde_json::from_slice(&blob(listed)).unwrap();
    let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
    let mut layer = Vec::new();
    GzDecoder::new(&*blob(&manifest["layers"][0])).read_to_end(&mut layer).unwrap();
    assert_eq!(config["rootfs"]["diff_ids"], serde_json::json!([Digest::of(&layer).to_string()]));
    Unpacked { config, layer }
}

#[test]
fn the_image_serves_read_only_with_nothing_around_it_as_a_user_without_rights() {
    let (key, _) = SigningKey::generate().unwrap();
    let layout = image::pack(parts(), b"no roots\n", Some(&key)).unwrap();
    let index: Value = serde_json::from_slice(&layout.files["index.json"]).unwrap();
    assert_eq!(index["manifests"][0]["digest"], layout.digest.to_string());
    served_from_image(&layout.files, "library $2");
}

/// The demonstration by an image alone, read-only and without a right. `around` is what else is put around it.
fn served_from_image(files: &BTreeMap<String, Vec<u8>>, around: &str) -> Option<()> {
    let folder = TempDir::new().unwrap();
    let Unpacked { config, layer } = read(files);
    let runs = &config["config"];
    assert_eq!((&runs["User"], &runs["Entrypoint"]), (&"65532:65532".into(), &serde_json::json!(["/adit"])));
    assert_eq!(
        runs["Healthcheck"]["Test"],
        serde_json::json!(["CMD", "/adit", "tunnel", "ready", "--no-origins"])
    );
    assert_eq!((&runs["StopSignal"], &config["os"]), (&"SIGTERM".into(), &"linux".into()));

    let (archive, root) = (folder.path().join("layer.tar"), folder.path().join("root"));
    fs::write(&archive, layer).unwrap();
    fs::create_dir(&root).unwrap();
    let script = r#"
        tar --extract --file $1 --directory $2
        [ "$(find $2 -type f | sed "s,^$2,,;" | sort | tr '\n' ' ')" = '/adit /etc/group /etc/passwd /etc/ssl/certs/ca-certificates.crt ' ]
        around $2; AROUND
        mount -t tmpfs -o uid=65532,mode=700 data $2/data
        mount --bind $2 $2 -o rbind; mount -o remount,ro,bind $2
        run() { setpriv --no-new-privs unshare --root=$root --wd=/data --setgid=65532 --setuid=65532 "$@"; }
        root=$2
        run /adit version
        HOME=/data TMPDIR=/data run /adit demo --listen 127.0.0.1:8080 --dir /data/demo > $3/demo.log 2>&1 &
        until_true serves 8080 demo.localhost / || { cat $3/demo.log $2/data/demo/*.log >&2; exit 1; }
        visit 8080 demo.localhost /
        for process in $2/proc/[0-9]*; do
            grep -qs '^Name:.adit' $process/status || continue
            grep -E '^(Uid|CapEff|CapPrm|NoNewPrivs):' $process/status
        done
        ! touch $2/etc/anything 2>/dev/null
    "#;
    let said = in_a_world_of_its_own(&script.replace("AROUND", around), &[&archive, &root, folder.path()])?;
    // A plugin was compiled and has worked.
    assert!(said.contains("x-adit-demo:") && said.contains("adit 0."), "{said}");
    let status = |name: &str| said.lines().filter_map(|line| line.strip_prefix(name)).collect::<Vec<_>>();
    let capabilities = [status("CapEff:"), status("CapPrm:")].concat();
    assert!(capabilities.len() >= 6, "{said}");
    assert!(capabilities.iter().all(|set| set.trim() == "0000000000000000"), "{said}");
    assert!(status("Uid:").iter().all(|ids| ids.trim().starts_with("65532")), "{said}");
    assert!(status("NoNewPrivs:").iter().all(|set| set.trim() == "1"), "{said}");
    Some(())
}

#[test]
fn the_same_parts_make_the_same_packages_and_our_own_verifier_takes_the_signature() {
    let small = Parts { program: b"a program".to_vec(), ..parts().clone() };
    let again = Parts { ..small.clone() };
    assert_eq!(deb::pack(&small).unwrap(), deb::pack(&again).unwrap());
    let one = image::pack(&small, b"roots", None).unwrap();
    assert_eq!(one.files, image::pack(&again, b"roots", None).unwrap().files);
    let other = Parts { program: b"another".to_vec(), ..small.clone() };
    assert_ne!(one.digest, image::pack(&other, b"roots", None).unwrap().digest);

    let folder = TempDir::new().unwrap();
    let public = folder.path().join("adit.pub");
    let (key, _) = SigningKey::generate().unwrap();
    fs::write(&public, key.public_pem()).unwrap();
    let signed = image::pack(&small, b"roots", Some(&key)).unwrap();
    assert_eq!(signed.digest, one.digest, "a signature changes nothing in what it signs");
    let index: Value = serde_json::from_slice(&signed.files["index.json"]).unwrap();
    let beside = &index["manifests"][1];
    let name = format!("sha256-{}.sig", signed.digest.hex());
    assert_eq!(beside["annotations"]["org.opencontainers.image.ref.name"], name);
    let blob = |descriptor: &Value| {
        let digest: Digest = descriptor["digest"].as_str().unwrap().parse().unwrap();
        &signed.files[&format!("blobs/sha256/{}", digest.hex())]
    };
    let manifest: Value = serde_json::from_slice(blob(beside)).unwrap();
    let layer = &manifest["layers"][0];
    let signature = layer["annotations"]["dev.cosignproject.cosign/signature"].as_str().unwrap();
    let taken = [Signed::new(blob(layer), signature.to_owned())];
    let keys = [Key::read(&public).unwrap()];
    assert!(verify(signed.digest, &taken, &keys));
    assert!(!verify(image::pack(&other, b"roots", None).unwrap().digest, &taken, &keys));
}

/// systemd's own judgement of a unit, out of 10: less is better.
fn exposure(analyze: &Path, unit: &Path) -> f64 {
    let output = ran(Command::new(analyze).args(["security", "--offline=yes", "--no-pager"]).arg(unit));
    let said = String::from_utf8(output.stdout).unwrap();
    said.lines().find_map(exposure_said).unwrap()
}

/// The figure, if this line has it.
fn exposure_said(line: &str) -> Option<f64> {
    let (_, figure) = line.split_once("Overall exposure level for")?.1.split_once(": ")?;
    figure.split(' ').next()?.parse().ok()
}

#[test]
fn systemd_takes_the_units_and_finds_little_that_they_leave_open() {
    let analyze =
        std::env::var_os("ADIT_SYSTEMD_ANALYZE").map_or_else(|| "systemd-analyze".into(), PathBuf::from);
    if Command::new(&analyze).arg("--version").output().is_err() {
        return e2e::skip("there is no systemd-analyze");
    }
    let folder = TempDir::new().unwrap();
    for end in ["edge", "tunnel"] {
        let unit = folder.path().join(format!("adit-{end}.service"));
        let template = &parts().units[&format!("adit-{end}")];
        fs::write(&unit, template.replace("@COMMAND@", adit().to_str().unwrap())).unwrap();
        let output = Command::new(&analyze).arg("verify").arg(&unit).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let wrong: Vec<&str> = said
            .lines()
            .filter(|line| line.contains(&format!("adit-{end}.service")))
            // systemd before 253 passes over it, as the unit says.
            .filter(|line| !line.contains("notify-reload"))
            .collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        let exposure = exposure(&analyze, &unit);
        assert!(exposure <= MOST_EXPOSED, "adit-{end}.service: {exposure}");
    }
    // An edge makes no machine code, a host cannot do without.
    let says =
        |end: &str, line: &str| parts().units[&format!("adit-{end}")].lines().any(|found| found == line);
    assert!(says("edge", "MemoryDenyWriteExecute=yes") && says("tunnel", "MemoryDenyWriteExecute=no"));
}

/// Of 10, for both ends.
const MOST_EXPOSED: f64 = 2.5;
/// Bytes, compressed.
const LARGEST_IMAGE: u64 = 25 << 20;
