//! Programs on the disk: which version one is, and how one takes the place of another.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use synego_runtime::clock;

use super::processes::{Process, identity};
use crate::failure::Failure;

/// Time in which a program says its version.
const SAYS: Duration = Duration::from_secs(5);
const FORMER: &str = ".former";

/// The name and the version of a program, as its `--version` says them.
///
/// # Errors
/// Why it says none, in words.
pub(super) fn version(program: &Path) -> Result<(String, String), String> {
    // In an environment of its own: it must not take itself for a part of a keeper.
    let mut child = Command::new(program)
        .arg("--version")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("it cannot be run: {error}"))?;
    let end = clock::now() + SAYS;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if clock::now() < end => std::thread::sleep(Duration::from_millis(5)),
            _ => {
                let _gone = child.kill();
                let _collected = child.wait();
                return Err(format!("it does not say its version within {} s", SAYS.as_secs()));
            }
        }
    };
    let mut text = String::new();
    if let Some(out) = child.stdout.take() {
        let _no_text = out.take(1024).read_to_string(&mut text);
    }
    match text.trim().split_once(' ') {
        Some((name, version)) if status.success() => Ok((name.to_owned(), version.to_owned())),
        _ => Err("it does not say which program it is (`--version`)".to_owned()),
    }
}

/// Puts `binary` where the processes of its program were started from; what was there is kept.
///
/// # Errors
/// When it is no program of Synego, nothing runs it, or the disk says no.
pub(super) fn install(binary: &Path, all: &[Process]) -> Result<(), Failure> {
    let shown = binary.display();
    let (name, version) =
        version(binary).map_err(|cause| Failure::misuse(format!("{shown} is no program of Synego")).cause(cause))?;
    let files = files(all.iter().filter(|process| process.program == name))?;
    if files.is_empty() {
        return Err(Failure::misuse(format!("no process here runs {name}, which is what {shown} is")));
    }
    for file in files {
        put(binary, &file).map_err(|error| {
            Failure::new(format!("{name} {version} cannot be installed at {}", file.display())).cause(error.to_string())
        })?;
    }
    Ok(())
}

/// Puts back what [`install`] kept, and keeps what is there instead.
///
/// # Errors
/// When nothing was kept, or the disk says no.
pub(super) fn put_back(all: &[Process]) -> Result<(), Failure> {
    let files = files(all.iter())?;
    let kept: Vec<&PathBuf> = files.iter().filter(|file| with(file, FORMER).exists()).collect();
    if kept.is_empty() {
        let places: Vec<String> = files.iter().map(|file| with(file, FORMER).display().to_string()).collect();
        return Err(Failure::new("no former program was kept")
            .cause(format!("there is no {}", places.join(", no ")))
            .help("`synego upgrade --binary FILE` keeps what it replaces; install the former one by it"));
    }
    for file in kept {
        renameat_with(CWD, with(file, FORMER), CWD, file, RenameFlags::EXCHANGE).map_err(|error| {
            Failure::new(format!("{} cannot be put back", with(file, FORMER).display())).cause(error.to_string())
        })?;
    }
    Ok(())
}

/// The files from which processes were started, each once.
fn files<'a>(all: impl Iterator<Item = &'a Process>) -> Result<BTreeSet<PathBuf>, Failure> {
    let mut files = BTreeSet::new();
    for process in all {
        let ours = fs::metadata(&process.file).ok().map(|found| identity(&found));
        if ours != process.on_disk() {
            return Err(Failure::new(format!(
                "{} of process {} is not that of this place",
                process.file.display(),
                process.pid
            ))
            .cause("it runs in a container, or with a root folder of its own")
            .help("install the program there, and give the ids of the others"));
        }
        // Behind a link stands the file itself.
        files.insert(fs::canonicalize(&process.file).unwrap_or_else(|_| process.file.clone()));
    }
    Ok(files)
}

/// Whole or not at all: whoever starts the program meanwhile starts the former or the newer one.
fn put(binary: &Path, file: &Path) -> io::Result<()> {
    let (fresh, former, kept) = (with(file, ".new"), with(file, FORMER), with(file, ".kept"));
    let attempt = || {
        fs::copy(binary, &fresh)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
        File::open(&fresh)?.sync_all()?;
        let _left_over = fs::remove_file(&kept);
        fs::hard_link(file, &kept)?;
        fs::rename(&kept, &former)?;
        fs::rename(&fresh, file)?;
        File::open(file.parent().unwrap_or(Path::new("/")))?.sync_all()
    };
    attempt().inspect_err(|_| {
        let _gone = fs::remove_file(&fresh);
    })
}

fn with(file: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_takes_the_place_whole_and_the_former_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (file, newer) = (folder.path().join("synego"), folder.path().join("download"));
        for round in 0..3 {
            fs::write(&newer, format!("round {}", round + 1)).unwrap();
            if round == 0 {
                fs::write(&file, "round 0").unwrap();
            }
            put(&newer, &file).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), format!("round {}", round + 1));
            assert_eq!(fs::read_to_string(with(&file, FORMER)).unwrap(), format!("round {round}"));
        }
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "nothing else is left");
        put(Path::new("/nowhere"), &file).unwrap_err();
        assert_eq!(fs::read_to_string(&file).unwrap(), "round 3");
    }

    #[test]
    fn a_program_says_its_name_and_version() {
        let folder = tempfile::tempdir().unwrap();
        let script = |text: &str| {
            let file = folder.path().join("program");
            let _former = fs::remove_file(&file);
            fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
            version(&file)
        };
        assert_eq!(
            script("echo synego 0.2.0 '(abc 2026-01-01)'"),
            Ok(("synego".into(), "0.2.0 (abc 2026-01-01)".into()))
        );
        assert!(script("exit 3").unwrap_err().contains("which program"));
        assert!(version(Path::new("/nowhere")).unwrap_err().contains("cannot be run"));
    }
}
