//! Entry point of the sidecar: one process beside one service.

use std::process::ExitCode;

use clap::Parser as _;
use synego_runtime::{Host, HostConfig, keeper, tasks};
use synego_sidecar::args::Args;
use synego_sidecar::{Sidecar, SidecarConfig, Workers, WorkersConfig, start};

fn main() -> ExitCode {
    if let Some(code) = synego_supervise::exec::main().or_else(keeper::main) {
        return code;
    }
    let args = match start::arguments() {
        Ok(line) => Args::parse_from(line),
        Err(problem) => return synego_runtime::usage_error(&[problem]),
    };
    if args.version.as_deref() == Some("") {
        start::print_version();
        return ExitCode::SUCCESS;
    }
    let config = match SidecarConfig::from_args(&args) {
        Ok(config) if args.check => return synego_runtime::print_effective(&start::settings(&config)),
        Ok(config) => config,
        Err(problems) => return synego_runtime::usage_error(&problems),
    };
    // Without a process there is little to keep, and half the memory to save.
    if let Some(code) = (config.process.is_some() || keeper::is_asked_for()).then(keeper::begin).flatten() {
        return code;
    }
    let host = HostConfig { logs: start::log(&args), ..HostConfig::new("synego-sidecar") };
    synego_runtime::run(host, |host| async move {
        match Box::pin(run(config, &host)).await {
            Ok(code) => code,
            Err(error) => {
                tracing::error!(cause = format!("{error:#}"), "cannot start");
                ExitCode::FAILURE
            }
        }
    })
}

async fn run(mut config: SidecarConfig, host: &Host) -> anyhow::Result<ExitCode> {
    // Its links need it to the end of the drain.
    let (end, life) = host.stop().outliving();
    if let Some(keeper) = start::credential(&config, host).await? {
        let credential = keeper.handle();
        config.mesh = Some(credential.identity().mesh);
        config.credential = Some(credential);
        tasks::spawn("identity", tasks::Kind::Critical, keeper.run(life));
    }
    let count = synego_runtime::config::cores();
    let workers = Workers::start(WorkersConfig { count, file_limit: host.file_limit(), metrics: host.metrics() })?;
    let shared = start::shared(&config, workers.handle(), host)?;
    let output = start::output(&config, &shared.journal)?;
    let sidecar = Sidecar::bind(config, shared, output).await?;
    tracing::info!(inbound = %sidecar.inbound(), outbound = %sidecar.outbound(), "bound");
    host.tell_parent(start::ready(sidecar.view()));
    tasks::spawn("keeper-ready", tasks::Kind::Connection, start::tell_keeper(sidecar.view(), sidecar.links()));
    let ended = sidecar.serve(host.stop()).await;
    end.stop();
    workers.shutdown().await;
    Ok(start::exit_code(&ended))
}
