//! Tells the program which commit it was built from; outside of a git checkout it says nothing.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned()).filter(|text| !text.is_empty())
    };
    let commit = git(&["rev-parse", "--short=10", "HEAD"]).unwrap_or_default();
    let date = git(&["show", "-s", "--format=%cs", "HEAD"]).unwrap_or_default();
    // Only the file that a commit changes is watched, so that other work does not build this crate anew.
    if let Some(head) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|path| Path::new(path).exists()) {
        println!("cargo:rerun-if-changed={head}");
    }
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let line = if commit.is_empty() { version } else { format!("{version} ({commit} {date})") };
    println!("cargo:rustc-env=SYNEGO_BUILD_LINE={line}");
    println!("cargo:rustc-env=SYNEGO_BUILD_COMMIT={commit}");
    println!("cargo:rustc-env=SYNEGO_BUILD_DATE={date}");
}
