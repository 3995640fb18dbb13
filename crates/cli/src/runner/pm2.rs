//! An `ecosystem.config.js`: the mesh under the user's own PM2.

use serde_json::{Map, Value, json};
use synego_model::RestartWhen;

use super::{Can, MARK, Plan, Program};

/// What PM2 can.
pub(crate) const CAN: Can = Can { name: "PM2", env_files: false, order: false, users: false };
/// Name of the file.
pub(crate) const FILE: &str = "ecosystem.config.js";

/// The text of the file.
pub(crate) fn text(plan: &Plan) -> String {
    let apps: Vec<String> = plan.programs.iter().map(app).collect();
    format!(
        "// {MARK} pm2` {} from {}: run it again after a change of the manifest.\n\
         //\n\
         // Each process of a service is a sidecar, and the service is the sidecar's child. A sidecar says when its service is\n\
         // ready, and drains when it is told to end, so that `pm2 reload` of a service with two instances loses nothing.\n\
         module.exports = {{\n  apps: [\n{}\n  ],\n}};\n",
        crate::version::NUMBER,
        plan.title,
        apps.join(",\n")
    )
}

fn app(program: &Program) -> String {
    let mut app = Map::new();
    let mut put = |name: &str, value: Value| {
        app.insert(name.to_owned(), value);
    };
    put("name", program.name.clone().into());
    put("script", program.program.clone().into());
    put("interpreter", "none".into());
    let command =
        if program.command.is_empty() { Vec::new() } else { [&["--".to_owned()], &program.command[..]].concat() };
    put("args", [&program.args[..], &command].concat().into());
    put("cwd", program.cwd.display().to_string().into());
    // A sidecar is no module of Node.js. PM2 reloads two processes of one name one after the other, of more two at a time.
    put("exec_mode", "fork".into());
    put("instances", program.instances.into());
    let when = program.restart.when;
    if when == RestartWhen::Never {
        // A job is not ready before its end, and its end is its last.
        put("autorestart", false.into());
    } else {
        // Ready is what the sidecar says, not that a process is there.
        put("wait_ready", true.into());
        put("listen_timeout", milliseconds(program.ready_within));
    }
    // The signal is for the sidecar alone, which drains before it ends its service; PM2 waits so long.
    put("treekill", false.into());
    put("kill_timeout", milliseconds(program.stop_within));
    put("exp_backoff_restart_delay", 100.into());
    // A refused command line or manifest: trying again does not help.
    put("stop_exit_codes", if when == RestartWhen::Always { json!([64]) } else { json!([0, 64]) });
    if !program.env.is_empty() {
        put("env", json!(program.env));
    }
    let text = serde_json::to_string_pretty(&app).unwrap_or_default();
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

fn milliseconds(time: std::time::Duration) -> Value {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).into()
}
