//! Units for systemd: the master, a template for the sidecars of each service, and a target for all of them.

use std::fmt::Write as _;
use std::path::Path;

use synego_model::RestartWhen;
use synego_model::process::NO_LIMIT;

use super::{Can, MARK, Plan, Program};

/// What systemd can.
pub(crate) const CAN: Can = Can { name: "systemd", env_files: true, order: true, users: true };

/// How often systemd wants to hear of a program; one that stands still is started anew.
const WATCHDOG: &str = "30s";

/// What every unit closes; services inherit it.
const HARDENING: &str = "\
NoNewPrivileges=true
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
PrivateTmp=true
PrivateDevices=true
ProtectClock=true
ProtectHostname=true
ProtectControlGroups=true
ProtectKernelLogs=true
ProtectKernelModules=true
ProtectKernelTunables=true
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=true
RestrictRealtime=true
RestrictSUIDSGID=true
RemoveIPC=true
LockPersonality=true
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
";

/// The part of it that would keep a sidecar from making groups.
const CLOSED_GROUPS: &str = "ProtectControlGroups=true\n";

/// The files with their texts. `user`: who runs it; `None`: whoever systemd takes.
pub(crate) fn files(plan: &Plan, user: Option<&str>) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> =
        plan.programs.iter().map(|program| (file(plan, program), unit(plan, program, user))).collect();
    files.push((format!("{}.target", plan.mesh), target(plan)));
    files
}

fn file(plan: &Plan, program: &Program) -> String {
    let template = if is_template(program) { "@" } else { "" };
    format!("{}-{}{template}.service", plan.mesh, program.name)
}

/// Several of a service are instances of one unit; the number of each is its name.
fn is_template(program: &Program) -> bool {
    !program.command.is_empty()
}

/// The units of a program, as others name them.
fn units(plan: &Plan, program: &Program) -> Vec<String> {
    let name = format!("{}-{}", plan.mesh, program.name);
    if is_template(program) {
        (1..=program.instances).map(|number| format!("{name}@{number}.service")).collect()
    } else {
        vec![format!("{name}.service")]
    }
}

fn unit(plan: &Plan, program: &Program, user: Option<&str>) -> String {
    let mut text = head(plan);
    let mut line = |words: std::fmt::Arguments<'_>| {
        // Writing into a `String` cannot fail.
        let _always = writeln!(text, "{words}");
    };
    let after: Vec<String> = program
        .after
        .iter()
        .filter_map(|name| plan.programs.iter().find(|program| program.name == *name))
        .flat_map(|program| units(plan, program))
        .collect();
    let number = if is_template(program) { " %i" } else { "" };
    line(format_args!("[Unit]"));
    line(format_args!("Description={} of the mesh {}{number}", program.name, plan.mesh));
    line(format_args!("Documentation=https://github.com/lostabaddon/synegobase"));
    line(format_args!("PartOf={}.target", plan.mesh));
    line(format_args!("Wants=network-online.target {}", after.join(" ")));
    line(format_args!("After=network-online.target {}", after.join(" ")));
    line(format_args!("StartLimitIntervalSec=0"));
    line(format_args!(""));
    line(format_args!("[Service]"));
    let is_job = program.restart.when == RestartWhen::Never;
    if is_job {
        line(format_args!("# A job: what comes after it waits for its end."));
        line(format_args!("Type=oneshot"));
        line(format_args!("RemainAfterExit=yes"));
    } else {
        line(format_args!("# Ready is what the program says: a sidecar once its service is."));
        line(format_args!("Type=notify"));
        line(format_args!("NotifyAccess=main"));
        line(format_args!("WatchdogSec={WATCHDOG}"));
    }
    if program.ready_within == NO_LIMIT {
        line(format_args!("TimeoutStartSec=infinity"));
    } else {
        line(format_args!("TimeoutStartSec={}s", program.ready_within.as_secs()));
    }
    // A sidecar has the rights of its service: its folders are its own.
    if let Some(user) = program.run_as.user.as_deref().or(user) {
        line(format_args!("User={user}"));
    }
    if let Some(group) = &program.run_as.group {
        line(format_args!("Group={group}"));
    }
    line(format_args!("WorkingDirectory={}", escaped(&program.cwd.display().to_string())));
    let (own, folder) = if is_template(program) { ("%p-%i", "%p-%i") } else { ("%p", "%p") };
    line(format_args!("Environment=SYNEGO_RUNTIME_DIR=/run/{own} SYNEGO_STATE_DIR=/var/lib/{own}"));
    if is_template(program) {
        line(format_args!("Environment=SYNEGO_INSTANCE={}-%i", program.name));
    }
    for (name, value) in &program.env {
        line(format_args!("Environment={}", quoted(&format!("{name}={value}"))));
    }
    for file in &program.env_files {
        line(format_args!("EnvironmentFile={}", escaped(&file.display().to_string())));
    }
    let dashes = (!program.command.is_empty()).then(|| "--".to_owned());
    let words = program.args.iter().cloned().chain(dashes).chain(program.command.iter().cloned());
    let arguments: Vec<String> = words.map(|word| quoted(&word)).collect();
    line(format_args!("ExecStart={} {}", quoted(&program.program), arguments.join(" ")));
    if !is_job {
        line(format_args!("# A newer program on the disk takes over; requests, streams and services go on."));
        line(format_args!("ExecReload=/bin/kill -USR2 $MAINPID"));
    }
    line(format_args!("RuntimeDirectory={folder}"));
    line(format_args!("RuntimeDirectoryMode=0700"));
    line(format_args!("StateDirectory={folder}"));
    line(format_args!("StateDirectoryMode=0700"));
    let restart = match program.restart.when {
        RestartWhen::Always => "always",
        RestartWhen::OnFailure => "on-failure",
        RestartWhen::Never => "no",
    };
    line(format_args!("Restart={restart}"));
    if !is_job {
        line(format_args!("RestartSec=200ms"));
        line(format_args!("# 64: the command line or the manifest is refused. Trying again does not help."));
        line(format_args!("RestartPreventExitStatus=64"));
    }
    line(format_args!(
        "# TERM goes to the program alone, which drains and then ends its service; then systemd ends what is left."
    ));
    line(format_args!("KillMode=mixed"));
    line(format_args!("TimeoutStopSec={}s", program.stop_within.as_secs()));
    line(format_args!("LimitNOFILE={}", program.run_as.files.unwrap_or(65_536)));
    line(format_args!("UMask=0077"));
    line(format_args!(""));
    if is_template(program) {
        line(format_args!("# What the service inherits: loosen it where it needs more."));
    }
    if program.caps {
        text.push_str("# Its service gets a group of its own below that of the unit, with the caps of the manifest.\n");
        text.push_str("Delegate=cpu memory\n");
        text.push_str(&HARDENING.replace(CLOSED_GROUPS, ""));
    } else {
        text.push_str(HARDENING);
    }
    text.push_str(&homes(&program.cwd, is_template(program)));
    if !is_template(program) {
        // Node.js and others make code while they run; our own programs do not.
        text.push_str("MemoryDenyWriteExecute=true\n");
    }
    let _always = write!(text, "\n[Install]\nWantedBy={}.target\n", plan.mesh);
    text
}

/// A service may write in its own folder; homes are closed, unless it lies in one.
fn homes(cwd: &Path, writes: bool) -> String {
    let in_a_home = cwd.starts_with("/home") || cwd.starts_with("/root");
    let homes = if in_a_home { "ProtectHome=read-only\n" } else { "ProtectHome=true\n" };
    let own = if writes { format!("ReadWritePaths={}\n", escaped(&cwd.display().to_string())) } else { String::new() };
    format!("{homes}{own}")
}

fn target(plan: &Plan) -> String {
    let all: Vec<String> = plan.programs.iter().flat_map(|program| units(plan, program)).collect();
    format!(
        "{}[Unit]\nDescription=The mesh {}\nWants={}\n\n[Install]\nWantedBy=multi-user.target\n",
        head(plan),
        plan.mesh,
        all.join(" ")
    )
}

fn head(plan: &Plan) -> String {
    format!(
        "# {MARK} systemd` {} from {}: run it again after a change of the manifest.\n",
        crate::version::NUMBER,
        plan.title
    )
}

/// Signs that systemd would read as something else.
fn escaped(text: &str) -> String {
    text.replace('%', "%%")
}

/// A word of a command line, or an assignment.
fn quoted(word: &str) -> String {
    let word = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:=@,+%{}".contains(letter);
    if !word.is_empty() && word.chars().all(plain) { word } else { format!("\"{word}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_their_signs() {
        for (word, written) in [
            ("--port", "--port"),
            ("a b", "\"a b\""),
            ("100%", "100%%"),
            ("$HOME", "\"$$HOME\""),
            (r#"say "x""#, r#""say \"x\"""#),
            ("", "\"\""),
        ] {
            assert_eq!(quoted(word), written, "{word}");
        }
    }

    #[test]
    fn a_service_may_write_in_its_own_folder_alone() {
        assert_eq!(homes(Path::new("/srv/shop"), true), "ProtectHome=true\nReadWritePaths=/srv/shop\n");
        assert_eq!(homes(Path::new("/home/ada/shop"), true), "ProtectHome=read-only\nReadWritePaths=/home/ada/shop\n");
        assert_eq!(homes(Path::new("/srv/shop"), false), "ProtectHome=true\n");
    }
}
