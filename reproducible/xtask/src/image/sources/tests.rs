#![allow(clippy::unwrap_used)]
use super::*;

const LOCK_TEXT: &str = r#"
version = 4
[[package]]
name = "app"
version = "0.1.0"
dependencies = ["helper", "net 1.0.0", "tester"]
[[package]]
name = "helper"
version = "0.1.0"
dependencies = ["base"]
[[package]]
name = "other"
version = "0.1.0"
dependencies = ["net 2.0.0"]
[[package]]
name = "net"
version = "1.0.0"
source = "registry+x"
checksum = "11"
dependencies = ["base"]
[[package]]
name = "net"
version = "2.0.0"
source = "registry+x"
checksum = "22"
[[package]]
name = "base"
version = "3.0.0"
source = "registry+x"
checksum = "33"
[[package]]
name = "tester"
version = "4.0.0"
source = "registry+x"
checksum = "44"
"#;

fn tree() -> (tempfile::TempDir, Project) {
    let folder = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let place = folder.path().join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, text).unwrap();
    };
    put("reproducible/inputs.lock", "");
    put("Cargo.lock", LOCK_TEXT);
    put(
        "Cargo.toml",
        "[workspace]\nmembers = ['app', 'libs/helper', 'other']\nresolver = '3'\n[workspace.lints.rust]\nunsafe_code = 'deny'\n\
         [workspace.dependencies]\nhelper = { path = 'libs/helper' }\nnet = '1'\nnet2 = { package = 'net', version = '2' }\n\
         [profile.enclave]\ninherits = 'release'\n",
    );
    put(
        "app/Cargo.toml",
        "[package]\nname = 'app'\nversion = '0.1.0'\n[lints]\nworkspace = true\n\
         [dependencies]\nhelper = { workspace = true }\n[target.'cfg(unix)'.dependencies]\nnet = { workspace = true }\n\
         [dev-dependencies]\ntester = '4'\n[[bench]]\nname = 'speed'\n",
    );
    put("app/src/main.rs", "fn main() {}");
    put(
        "app/src/tests/unit.rs",
        "kept: only the folder beside src is left out",
    );
    put("app/tests/all.rs", "");
    put("app/benches/speed.rs", "");
    put("data/table.bin", "table");
    put("data/other.bin", "other");
    put(
        "libs/helper/Cargo.toml",
        "[package]\nname = 'helper'\nversion = '0.1.0'\n[dependencies]\nbase = '3'\n",
    );
    put("libs/helper/src/lib.rs", "");
    put(
        "other/Cargo.toml",
        "[package]\nname = 'other'\nversion = '0.1.0'\n[dependencies]\nnet2 = { workspace = true }\n",
    );
    put("other/src/lib.rs", "");
    let project = Project::at(folder.path()).unwrap();
    (folder, project)
}

fn sources_of(project: &Project) -> Result<Sources> {
    let inputs = Inputs::from([("app".to_owned(), vec!["data/table.bin".to_owned()])]);
    Sources::of(project, "app", &inputs)
}

fn key(project: &Project) -> Key {
    sources_of(project)
        .unwrap()
        .add_to(KeyBuilder::new())
        .finish()
}

#[test]
fn takes_what_the_program_needs_and_no_more() {
    let (_folder, project) = tree();
    let sources = sources_of(&project).unwrap();
    assert_eq!(
        sources.paths(),
        [
            "Cargo.toml",
            "app/Cargo.toml",
            "app/src/main.rs",
            "app/src/tests/unit.rs",
            "data/table.bin",
            "libs/helper/Cargo.toml",
            "libs/helper/src/lib.rs"
        ]
    );
    let names: Vec<_> = sources
        .external
        .iter()
        .map(|it| format!("{} {}", it.name, it.version))
        .collect();
    assert_eq!(names, ["base 3.0.0", "net 1.0.0"]);
    let root = String::from_utf8(sources.files["Cargo.toml"].clone()).unwrap();
    assert!(
        root.contains("helper")
            && root.contains("enclave")
            && !root.contains("net2")
            && !root.contains("lints"),
        "{root}"
    );
    let own = String::from_utf8(sources.files["app/Cargo.toml"].clone()).unwrap();
    assert!(
        own.contains("cfg(unix)") && !own.contains("tester") && !own.contains("bench"),
        "{own}"
    );
}

#[test]
fn the_key_follows_what_matters() {
    let (folder, project) = tree();
    let first = key(&project);
    let change = |path: &str, from: &str, to: &str| {
        let place = folder.path().join(path);
        let text = fs::read_to_string(&place).unwrap();
        assert!(text.contains(from), "{path}");
        fs::write(place, text.replace(from, to)).unwrap();
    };
    change("app/tests/all.rs", "", "// changed");
    change("other/src/lib.rs", "", "// changed");
    change("data/other.bin", "other", "changed");
    change("app/Cargo.toml", "tester = '4'", "tester = '5'");
    change("Cargo.lock", "checksum = \"22\"", "checksum = \"23\"");
    assert_eq!(key(&project), first);
    for (path, from, to) in [
        ("app/src/main.rs", "main", "main_"),
        ("libs/helper/src/lib.rs", "", "// changed"),
        ("data/table.bin", "table", "tablet"),
        ("Cargo.lock", "checksum = \"33\"", "checksum = \"34\""),
        ("Cargo.toml", "inherits = 'release'", "inherits = 'dev'"),
    ] {
        let before = key(&project);
        change(path, from, to);
        assert_ne!(key(&project), before, "{path}");
    }
}

#[test]
fn the_copy_follows_the_sources() {
    let (folder, project) = tree();
    let copy = tempfile::tempdir().unwrap();
    sources_of(&project).unwrap().write_to(copy.path()).unwrap();
    let main = copy.path().join("app/src/main.rs");
    let written = fs::metadata(&main).unwrap().modified().unwrap();
    fs::create_dir_all(copy.path().join("stale/folder")).unwrap();
    fs::write(copy.path().join("app/src/stale.rs"), "").unwrap();
    fs::write(folder.path().join("libs/helper/src/lib.rs"), "// changed").unwrap();
    sources_of(&project).unwrap().write_to(copy.path()).unwrap();
    assert_eq!(fs::metadata(&main).unwrap().modified().unwrap(), written);
    assert!(!copy.path().join("stale").exists() && !copy.path().join("app/src/stale.rs").exists());
    assert_eq!(
        fs::read_to_string(copy.path().join("libs/helper/src/lib.rs")).unwrap(),
        "// changed"
    );
}

#[test]
fn a_lock_file_that_grew_is_refused() {
    let (_folder, project) = tree();
    let copy = tempfile::tempdir().unwrap();
    let sources = sources_of(&project).unwrap();
    let check = |text: &str| {
        fs::write(copy.path().join(LOCK), text).unwrap();
        sources.check_lock(copy.path())
    };
    check(LOCK_TEXT).unwrap();
    check("version = 4\n").unwrap();
    let error = check(&LOCK_TEXT.replace("\"33\"", "\"35\""))
        .unwrap_err()
        .to_string();
    assert!(error.contains("base 3.0.0"), "{error}");
}

#[test]
fn git_dependencies_are_refused() {
    let (folder, project) = tree();
    let path = folder.path().join("libs/helper/Cargo.toml");
    fs::write(
        path,
        "[package]\nname = 'helper'\nversion = '0.1.0'\n[dependencies]\nbase = { git = 'x' }\n",
    )
    .unwrap();
    let error = format!("{:#}", sources_of(&project).unwrap_err());
    assert!(error.contains("base comes from git"), "{error}");
}
