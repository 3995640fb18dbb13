//! Whose rights a process has: users and groups as `/etc/passwd` and `/etc/group` know them, and how many files it may have
//! open.

use std::path::PathBuf;

use rustix::process::{Resource, Rlimit, Uid, getegid, geteuid, setrlimit};
use rustix::thread::{Gid, set_thread_gid, set_thread_groups, set_thread_uid};
use synego_model::RunAs;
use synego_runtime::config::Owner;

const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";
/// What stands for "nothing is changed" between a program and its helper.
const AS_IT_IS: &str = "-";

/// A user with the groups that a process of it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// Number of the user.
    pub uid: u32,
    /// Number of its group.
    pub gid: u32,
    /// Numbers of the further groups.
    pub groups: Vec<u32>,
    /// What is told of the user in the environment; `None`: it is known by its number alone.
    pub person: Option<Person>,
}

impl Rights {
    /// To whom its files belong.
    #[must_use]
    pub fn owner(&self) -> Owner {
        Owner { uid: self.uid, gid: self.gid }
    }
}

/// What a user is told of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// For `USER` and `LOGNAME`.
    pub name: String,
    /// For `HOME`.
    pub home: PathBuf,
    /// For `SHELL`.
    pub shell: String,
}

/// The rights that are asked for; `None`: those of this program.
///
/// # Errors
/// A sentence: there is no such user or group, or only root can give its rights.
pub fn rights(run_as: &RunAs) -> Result<Option<Rights>, String> {
    if run_as.user.is_none() && run_as.group.is_none() {
        return Ok(None);
    }
    let read = |file: &str| std::fs::read_to_string(file).map_err(|error| format!("cannot read {file}: {error}"));
    let wanted = of(run_as, &read(USERS)?, &read(GROUPS)?, geteuid().as_raw())?;
    if geteuid().is_root() {
        return Ok(Some(wanted));
    }
    if wanted.uid == geteuid().as_raw() && wanted.gid == getegid().as_raw() {
        return Ok(None);
    }
    let asked = match (&run_as.user, &run_as.group) {
        (Some(user), _) if wanted.uid != geteuid().as_raw() => format!("as user `{user}`"),
        (_, group) => format!("in group `{}`", group.as_deref().unwrap_or_default()),
    };
    Err(format!("only root can start a process {asked}: start Synego as root, or leave the key out"))
}

/// - `own`: number of the user that is meant when none is named.
fn of(run_as: &RunAs, users: &str, groups: &str, own: u32) -> Result<Rights, String> {
    let user = run_as.user.clone().unwrap_or_else(|| own.to_string());
    let found = users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find_map(|fields| match fields[..] {
        [name, _, uid, gid, _, home, shell] if name == user || uid == user => {
            let person = Person { name: name.to_owned(), home: home.into(), shell: shell.to_owned() };
            Some((uid.parse::<u32>().ok()?, gid.parse::<u32>().ok()?, person))
        }
        _ => None,
    });
    let group_of = |wanted: &str| {
        let all = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let known = all.filter(|fields| fields.len() >= 3);
        known.into_iter().find(|fields| fields[0] == wanted).and_then(|fields| fields[2].parse::<u32>().ok())
    };
    let gid =
        match &run_as.group {
            Some(group) => Some(group_of(group).or_else(|| group.parse().ok()).ok_or_else(|| {
                format!("there is no group `{group}` in {GROUPS}: make it (groupadd), or name another")
            })?),
            None => None,
        };
    let Some((uid, own_group, person)) = found else {
        let uid = user
            .parse::<u32>()
            .map_err(|_| format!("there is no user `{user}` in {USERS}: make it (useradd), or name another"))?;
        let gid = gid.ok_or_else(|| format!("the user {uid} is not in {USERS}: say its `group` too"))?;
        return Ok(Rights { uid, gid, groups: Vec::new(), person: None });
    };
    let gid = gid.unwrap_or(own_group);
    let member_of = groups.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, number, members] = fields[..] else { return None };
        members.split(',').any(|member| member == person.name).then(|| number.parse::<u32>().ok())?
    });
    let mut further: Vec<u32> = member_of.filter(|other| *other != gid).collect();
    further.dedup();
    Ok(Rights { uid, gid, groups: further, person: Some(person) })
}

/// What a helper changes of itself before it becomes the program.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Change {
    /// User, group and further groups.
    pub(crate) rights: Option<(u32, u32, Vec<u32>)>,
    /// How many files may be open.
    pub(crate) files: Option<u64>,
}

impl Change {
    /// What a process that runs so needs.
    ///
    /// # Errors
    /// As of [`rights`].
    pub(crate) fn of(run_as: &RunAs) -> Result<Self, String> {
        let rights = rights(run_as)?.map(|rights| (rights.uid, rights.gid, rights.groups));
        Ok(Self { rights, files: run_as.files })
    }

    /// The user that it changes to.
    pub(crate) fn uid(&self) -> Option<u32> {
        self.rights.as_ref().map(|(uid, ..)| *uid)
    }

    /// One word, for the helper's arguments.
    pub(crate) fn word(&self) -> String {
        let rights = self.rights.as_ref().map(|(uid, gid, groups)| {
            let all: Vec<String> = [uid, gid].into_iter().chain(groups).map(ToString::to_string).collect();
            format!("as={}", all.join(":"))
        });
        let parts: Vec<String> = rights.into_iter().chain(self.files.map(|files| format!("files={files}"))).collect();
        if parts.is_empty() { AS_IT_IS.to_owned() } else { parts.join(",") }
    }

    /// What [`Self::word`] says; `None`: it is no such word.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        let mut change = Self::default();
        for part in word.split(',').filter(|part| *part != AS_IT_IS) {
            match part.split_once('=')? {
                ("as", numbers) => {
                    let all = numbers.split(':').map(|number| number.parse().ok()).collect::<Option<Vec<u32>>>()?;
                    let [uid, gid, groups @ ..] = all.as_slice() else { return None };
                    change.rights = Some((*uid, *gid, groups.to_vec()));
                }
                ("files", count) => change.files = Some(count.parse().ok()?),
                _ => return None,
            }
        }
        Some(change)
    }

    /// Changes this process, which must have one thread alone; what signal its parent's death sends is forgotten by that.
    ///
    /// # Errors
    /// A sentence that names what was refused.
    pub(crate) fn make(&self) -> Result<(), String> {
        if let Some(files) = self.files {
            let limit = Rlimit { current: Some(files), maximum: Some(files) };
            setrlimit(Resource::Nofile, limit).map_err(|error| {
                let most = rustix::process::getrlimit(Resource::Nofile).maximum;
                let most = most.map_or_else(|| "all".to_owned(), |most| most.to_string());
                format!("it cannot have {files} files open where Synego may have {most} (`ulimit -Hn`): {error}")
            })?;
        }
        let Some((uid, gid, groups)) = &self.rights else { return Ok(()) };
        let failed = |error: rustix::io::Errno| format!("the user {uid} with the group {gid} was refused: {error}");
        let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
        // In this order: who is no longer root changes no group.
        set_thread_groups(&groups).map_err(failed)?;
        set_thread_gid(Gid::from_raw(*gid)).map_err(failed)?;
        set_thread_uid(Uid::from_raw(*uid)).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME_USERS: &str = "root:x:0:0:root:/root:/bin/bash\nshop:x:1000:1000:,,,:/srv/shop:/usr/sbin/nologin\n";
    const SOME_GROUPS: &str = "root:x:0:\nshop:x:1000:\nvideo:x:44:shop,other\nwww:x:33:shop\n";

    fn found(user: Option<&str>, group: Option<&str>) -> Result<Rights, String> {
        let text = |text: &str| text.to_owned();
        let run_as = RunAs { user: user.map(text), group: group.map(text), ..RunAs::default() };
        of(&run_as, SOME_USERS, SOME_GROUPS, 0)
    }

    #[test]
    fn a_user_comes_with_its_groups_by_name_or_number() {
        let shop = Person { name: "shop".into(), home: "/srv/shop".into(), shell: "/usr/sbin/nologin".into() };
        let rights = Rights { uid: 1000, gid: 1000, groups: vec![44, 33], person: Some(shop) };
        assert_eq!(found(Some("shop"), None), Ok(rights.clone()));
        assert_eq!(found(Some("1000"), None), Ok(rights.clone()));
        assert_eq!(found(Some("shop"), Some("www")), Ok(Rights { gid: 33, groups: vec![44], ..rights }));
        let own = found(None, Some("video")).expect("the user who starts it");
        assert_eq!((own.uid, own.gid), (0, 44));
    }

    #[test]
    fn a_user_without_an_entry_needs_its_group() {
        let bare = Rights { uid: 5000, gid: 33, groups: Vec::new(), person: None };
        assert_eq!(found(Some("5000"), Some("33")), Ok(bare));
        let problem = found(Some("5000"), None).expect_err("no group");
        assert_eq!(problem, "the user 5000 is not in /etc/passwd: say its `group` too");
    }

    #[test]
    fn who_is_not_there_is_named() {
        let user = found(Some("shopp"), None).expect_err("no such user");
        assert_eq!(user, "there is no user `shopp` in /etc/passwd: make it (useradd), or name another");
        let group = found(Some("shop"), Some("wwww")).expect_err("no such group");
        assert_eq!(group, "there is no group `wwww` in /etc/group: make it (groupadd), or name another");
    }

    #[test]
    fn a_change_reaches_the_helper_as_one_word() {
        for (change, word) in [
            (Change::default(), "-"),
            (Change { rights: Some((1000, 33, vec![44, 5])), files: None }, "as=1000:33:44:5"),
            (Change { rights: Some((0, 0, Vec::new())), files: Some(64) }, "as=0:0,files=64"),
        ] {
            assert_eq!(change.word(), word);
            assert_eq!(Change::from_word(word), Some(change));
        }
        assert_eq!(Change::from_word("as=1"), None);
        assert_eq!(Change::from_word("files=many"), None);
    }
}
