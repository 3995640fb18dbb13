//! Entry point of the sidecar: one process beside one service.

use std::process::ExitCode;

use clap::Parser as _;
use synego_runtime::{Host, HostConfig, keeper, tasks};
use synego_sidecar::args::Args;
use synego_sidecar::{Sidecar, SidecarConfig, Workers, start};

fn main() -> ExitCode {
    if let Some(code) = synego_supervise::exec::main().or_else(keeper::main) {
        return code;
    }
    let args = match start::arguments() {
        Ok(line) => Args::parse_from(line),
        Err(problem) => return synego_runtime::usage_error(&[problem]),
    };
    if args.version.as_deref() == Some("") {
        return start::print_version();
    }
    let config = match SidecarConfig::from_args(&args) {
        Ok(config) if args.check => return synego_runtime::print_effective(&start::settings(&config)),
        Ok(config) => config,
        Err(problems) => return synego_runtime::usage_error(&problems),
    };
    if let Some(code) = start::begin_keeper(&config) {
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
    let workers = Workers::start(start::workers(host))?;
    let shared = start::shared(&config, workers.handle(), host)?;
    let output = start::output(&config, &shared.journal)?;
    let sidecar = Sidecar::bind(config, shared, output).await?;
    tracing::info!(inbound = %sidecar.inbound(), outbound = %sidecar.outbound(), "bound");
    start::tell(host, &sidecar);
    let ended = sidecar.serve(host.stop()).await;
    end.stop();
    workers.shutdown().await;
    Ok(start::exit_code(&ended))
}
