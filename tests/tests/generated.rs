//! Committed generated code equals a fresh generation, in each language.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the root of the project")
}

/// Every file below `fresh` must stand below `committed` with the same content.
fn assert_same(fresh: &Path, committed: &Path) {
    let mut seen = 0;
    let mut open = vec![fresh.to_path_buf()];
    while let Some(folder) = open.pop() {
        for path in fs::read_dir(&folder).expect("a folder").filter_map(|entry| Some(entry.ok()?.path())) {
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let relative = path.strip_prefix(fresh).expect("below the folder");
            let ours = fs::read(committed.join(relative)).unwrap_or_default();
            let same = ours == fs::read(&path).expect("a generated file");
            assert!(same, "{} differs from a fresh generation: run `make gen`", relative.display());
            seen += 1;
        }
    }
    assert!(seen > 0, "nothing was generated");
}

#[test]
fn rust_code_equals_a_fresh_generation() {
    let folder = tempfile::tempdir().expect("a folder");
    synego_tests::generate::all(&root(), folder.path()).expect("a generation");
    assert_same(folder.path(), &root());
}

#[test]
fn go_code_equals_a_fresh_generation() {
    for (script, committed) in
        [("sdk-go", "sdk-go/internal/gen"), ("examples/shop/orders", "examples/shop/orders/internal/gen")]
    {
        let folder = tempfile::tempdir().expect("a folder");
        let status =
            Command::new(root().join(script).join("scripts/gen")).arg(folder.path()).status().expect("the script");
        assert!(status.success(), "{script}/scripts/gen failed");
        assert_same(folder.path(), &root().join(committed));
    }
}

#[test]
fn typescript_code_equals_a_fresh_generation() {
    let folder = tempfile::tempdir().expect("a folder");
    let status = Command::new("npm")
        .args(["run", "--silent", "--workspace", "sdk-node", "gen", "--"])
        .arg(folder.path())
        .current_dir(root())
        .status()
        .expect("npm");
    assert!(status.success(), "the generation failed");
    assert_same(folder.path(), &root().join("sdk-node/src/gen"));
}
