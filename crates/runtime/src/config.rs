//! What a process learns of its surroundings: environment, folders, machine. The one place that reads the environment.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit};

/// The value of an environment variable; `None` when it is not set, empty, or not UTF-8.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The whole environment, without the word between a keeper and its part; variables that are not UTF-8 are left out.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, value)| name != crate::keeper::VARIABLE || value.parse::<u32>().is_err())
        .collect()
}

/// The folder above the runtime folders of all meshes of this user; nothing is made or checked.
///
/// `SYNEGO_RUNTIME_DIR` if set; else `/run/synego` for root, `$XDG_RUNTIME_DIR/synego` or `/tmp/synego-UID` for people.
#[must_use]
pub fn runtime_base() -> PathBuf {
    let uid = rustix::process::geteuid();
    match (env("SYNEGO_RUNTIME_DIR"), env("XDG_RUNTIME_DIR")) {
        (Some(dir), _) => PathBuf::from(dir),
        (None, _) if uid.is_root() => PathBuf::from("/run/synego"),
        (None, Some(dir)) => Path::new(&dir).join("synego"),
        (None, None) => std::env::temp_dir().join(format!("synego-{}", uid.as_raw())),
    }
}

/// Folder of a mesh for what lives as long as the process: sockets, process ids. Made if missing, mode 0700; it lies in
/// [`runtime_base`].
///
/// # Errors
/// When it cannot be made, or belongs to another user.
pub fn runtime_dir(mesh: &str) -> io::Result<PathBuf> {
    let base = runtime_base();
    private_dir(&base)?;
    private_dir(&base.join(mesh))
}

/// Folder for what outlives the process: snapshots, stores. Made if missing, mode 0700.
///
/// `SYNEGO_STATE_DIR` if set; else `/var/lib/synego` for root, `$XDG_STATE_HOME/synego` or `~/.local/state/synego`
/// for people; below it a folder for each mesh.
///
/// # Errors
/// When it cannot be made, belongs to another user, or a person has no home.
pub fn state_dir(mesh: &str) -> io::Result<PathBuf> {
    private_dir(&state_base()?.join(mesh))
}

/// The folder above the state folders of all meshes of this user; made if missing, mode 0700.
///
/// # Errors
/// As of [`state_dir`].
pub fn state_base() -> io::Result<PathBuf> {
    private_dir(&state_place()?)
}

/// Where [`state_base`] is; nothing is made or checked.
///
/// # Errors
/// When a person has no home.
pub fn state_place() -> io::Result<PathBuf> {
    Ok(match (env("SYNEGO_STATE_DIR"), env("XDG_STATE_HOME"), env("HOME")) {
        (Some(dir), ..) => PathBuf::from(dir),
        _ if rustix::process::geteuid().is_root() => PathBuf::from("/var/lib/synego"),
        (None, Some(dir), _) => Path::new(&dir).join("synego"),
        (None, None, Some(home)) => Path::new(&home).join(".local/state/synego"),
        (None, None, None) => {
            return Err(io::Error::new(io::ErrorKind::NotFound, "neither HOME nor XDG_STATE_HOME is set"));
        }
    })
}

/// Makes a folder that only this user can enter (0700) if it is not there, and returns it.
///
/// # Errors
/// When it cannot be made, is no folder, or belongs to another user.
pub fn private_dir(dir: &Path) -> io::Result<PathBuf> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| named(&error, dir))?;
    let found = std::fs::metadata(dir).map_err(|error| named(&error, dir))?;
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} belongs to another user", dir.display()),
        ));
    }
    if found.permissions().mode() & 0o077 != 0 {
        // Whoever names `/tmp` or `/etc` does not want it closed to everybody else.
        let is_shared = found.permissions().mode() & 0o1000 != 0 || dir.canonicalize()?.components().count() <= 2;
        if is_shared {
            let message = format!("{} is for all of this machine: name a folder below it", dir.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).map_err(|error| named(&error, dir))?;
    }
    Ok(dir.to_owned())
}

/// Whom a file is given to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Number of the user.
    pub uid: u32,
    /// Number of its group.
    pub gid: u32,
}

/// Whether this program has root's rights.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Makes the folder `name` for one process that may have another user's rights, and returns it: beside the private folders
/// of this user, `BASE-users/MESH/NAME` for `BASE/MESH`. Only this user changes it and what is above it; until
/// [`pass`] lets somebody through, nobody else comes in.
///
/// - `private`: the private folder of the mesh, as of [`runtime_dir`].
///
/// # Errors
/// As of [`private_dir`].
pub fn passable_dir(private: &Path, name: &str) -> io::Result<PathBuf> {
    let (base, mesh) = (private.parent().unwrap_or(private), private.file_name().unwrap_or_default());
    let mut beside = base.as_os_str().to_owned();
    beside.push("-users");
    let mut dir = PathBuf::from(beside);
    make_own(&dir, 0o711)?;
    dir.push(mesh);
    make_own(&dir, 0o711)?;
    dir.push(name);
    if !dir.is_dir() {
        make_own(&dir, 0o700)?;
    }
    Ok(dir)
}

/// Makes a folder of this user with exactly this mode, if it is not there, or gives it that mode.
fn make_own(dir: &Path, mode: u32) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(dir).map_err(|error| named(&error, dir))?;
    let found = std::fs::symlink_metadata(dir).map_err(|error| named(&error, dir))?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        let message = format!("{} is no folder of this user", dir.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode)).map_err(|error| named(&error, dir))
}

/// Lets the group of `owner` pass a folder of [`passable_dir`], without seeing what is in it; `None`: nobody.
///
/// # Errors
/// When the machine refuses.
pub fn pass(dir: &Path, owner: Option<Owner>) -> io::Result<()> {
    let group = owner.map_or_else(rustix::process::getegid, |owner| rustix::process::Gid::from_raw(owner.gid));
    rustix::fs::chown(dir, None, Some(group)).map_err(|error| named(&error.into(), dir))?;
    let mode = if owner.is_some() { 0o710 } else { 0o700 };
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode)).map_err(|error| named(&error, dir))
}

/// Gives a file in a folder that only this user changes to `owner`; `None`: to this user.
///
/// # Errors
/// When it is not there, or the machine refuses.
pub fn give(file: &Path, owner: Option<Owner>) -> io::Result<()> {
    use rustix::process::{Gid, Uid};
    let (uid, gid) = match owner {
        Some(owner) => (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid)),
        None => (rustix::process::geteuid(), rustix::process::getegid()),
    };
    // Never what a link leads to.
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(rustix::fs::CWD, file, Some(uid), Some(gid), flags).map_err(|error| named(&error.into(), file))
}

/// Makes a folder that only `owner` can enter, in one that only this user changes; `None`: only this user.
///
/// # Errors
/// When it cannot be made, or given away.
pub fn private_dir_of(dir: &Path, owner: Option<Owner>) -> io::Result<()> {
    if !dir.is_dir() {
        std::fs::DirBuilder::new().mode(0o700).create(dir).map_err(|error| named(&error, dir))?;
    }
    give(dir, owner)
}

fn named(error: &io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The machine's name as the name of a node: the first label of its host name in lower case, everything but letters
/// and digits as `-`; `local` when nothing of it is left.
#[must_use]
pub fn host_name() -> String {
    node_name(&rustix::system::uname().nodename().to_string_lossy())
}

fn node_name(host: &str) -> String {
    let mut name = String::new();
    for letter in host.split('.').next().unwrap_or_default().chars().map(|letter| letter.to_ascii_lowercase()) {
        if letter.is_ascii_lowercase() || (letter.is_ascii_digit() && !name.is_empty()) {
            name.push(letter);
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    name.truncate(63);
    let name = name.trim_end_matches('-');
    if name.is_empty() { "local".to_owned() } else { name.to_owned() }
}

/// Raises the limit of open files to the most that this process may have, and returns what is in force now.
#[must_use]
pub fn raise_file_limit() -> u64 {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum && rustix::process::setrlimit(Resource::Nofile, raised).is_ok() {
        return limit.maximum.unwrap_or(u64::MAX);
    }
    limit.current.unwrap_or(u64::MAX)
}

/// How many cores this process may use; at least 1.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The most open files that this process may have.
#[must_use]
pub fn file_limit() -> u64 {
    rustix::process::getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// One setting in force, for `--check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its name, as on the command line.
    pub name: String,
    /// Its value, with its unit.
    pub value: String,
    /// Where it was said: `default`, a file, `SYNEGO_…` or a flag.
    pub origin: String,
    /// Whether the value must never be shown.
    pub secret: bool,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = if self.secret { "***" } else { &self.value };
        write!(f, "{}: {value}  # {}", self.name, self.origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_machine_becomes_a_valid_node_name() {
        for (host, name) in [
            ("vm1", "vm1"),
            ("VM_1.example.com", "vm-1"),
            ("10-0-0-7", "local"),
            ("9lives", "lives"),
            ("--", "local"),
            ("", "local"),
        ] {
            assert_eq!(node_name(host), name, "{host}");
        }
        assert_eq!(node_name(&"a".repeat(80)).len(), 63);
    }

    #[test]
    fn a_private_folder_is_closed_to_others_even_when_it_was_open() -> io::Result<()> {
        let base = tempfile::tempdir()?;
        let dir = base.path().join("a/b");
        std::fs::create_dir_all(&dir)?;
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755))?;
        assert_eq!(std::fs::metadata(private_dir(&dir)?)?.permissions().mode() & 0o777, 0o700);
        assert!(private_dir(Path::new("/proc/1/nowhere")).is_err());
        Ok(())
    }

    #[test]
    fn a_folder_for_a_user_is_passed_by_its_group_alone_and_changed_by_us_alone() -> io::Result<()> {
        if !is_root() {
            eprintln!("not tested here: only root gives files away");
            return Ok(());
        }
        let base = tempfile::tempdir()?;
        let mode = |path: &Path| std::fs::metadata(path).map(|found| found.permissions().mode() & 0o777);
        let dir = passable_dir(&base.path().join("run/shop"), "users-1")?;
        assert_eq!(dir, base.path().join("run-users/shop/users-1"));
        assert_eq!((mode(&base.path().join("run-users"))?, mode(&dir)?), (0o711, 0o700));
        let owner = Some(Owner { uid: 65534, gid: 65533 });
        pass(&dir, owner)?;
        let found = std::fs::metadata(&dir)?;
        assert_eq!((mode(&dir)?, found.uid(), found.gid()), (0o710, 0, 65533));
        private_dir_of(&dir.join("own"), owner)?;
        let own = std::fs::metadata(dir.join("own"))?;
        assert_eq!((mode(&dir.join("own"))?, own.uid(), own.gid()), (0o700, 65534, 65533));
        // A second look leaves it open, and what a link leads to is never given away.
        assert_eq!(mode(&passable_dir(&base.path().join("run/shop"), "users-1")?)?, 0o710);
        std::fs::write(base.path().join("ours"), "")?;
        std::os::unix::fs::symlink(base.path().join("ours"), dir.join("link"))?;
        give(&dir.join("link"), owner)?;
        assert_eq!(std::fs::metadata(base.path().join("ours"))?.uid(), 0);
        pass(&dir, None)?;
        assert_eq!(mode(&dir)?, 0o700);
        Ok(())
    }

    #[test]
    fn a_secret_setting_is_masked() {
        let setting = Setting { name: "token".into(), value: "abc".into(), origin: "flag".into(), secret: true };
        assert_eq!(setting.to_string(), "token: ***  # flag");
    }
}
