//! Entry point of the master.

use std::process::ExitCode;

use clap::Parser as _;
use synego_master::args::Args;
use synego_master::{Master, MasterConfig, Workers, WorkersConfig, start};
use synego_runtime::{Host, HostConfig, keeper, tasks};

fn main() -> ExitCode {
    if let Some(code) = keeper::main() {
        return code;
    }
    let args = Args::parse();
    let manifest = match start::manifest(&args) {
        Ok(manifest) => manifest,
        Err(problems) => return synego_runtime::usage_error(&problems),
    };
    let config = match MasterConfig::from_args(&args, manifest) {
        Ok(config) if args.check => return synego_runtime::print_effective(&start::settings(&config)),
        Ok(config) => config,
        Err(problems) => return synego_runtime::usage_error(&problems),
    };
    if let Some(code) = keeper::begin() {
        return code;
    }
    let host = HostConfig { logs: start::log(&args, &config.manifest), ..HostConfig::new("synego-master") };
    synego_runtime::run(host, |host| async move {
        match run(config, &host).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!(cause = format!("{error:#}"), "cannot start");
                ExitCode::FAILURE
            }
        }
    })
}

async fn run(config: MasterConfig, host: &Host) -> anyhow::Result<()> {
    let count = synego_runtime::config::cores();
    let workers = Workers::start(WorkersConfig { count, file_limit: host.file_limit(), metrics: host.metrics() })?;
    let journal = start::journal(&config)?;
    let master = Master::bind(config, &workers.handle(), journal, host).await?;
    tracing::info!(ingress = %master.ingress(), mesh = ?master.mesh(), admin = ?master.admin(), "bound");
    let serving = master.serve(host.stop());
    let readiness = host.readiness();
    // Serving takes a guard first, so that it is not ready before it is.
    host.tell_parent(async move { readiness.ready().await });
    let readiness = host.readiness();
    tasks::spawn("keeper-ready", tasks::Kind::Connection, async move {
        readiness.ready().await;
        keeper::ready();
    });
    let outcome = serving.await;
    workers.shutdown().await;
    outcome
}
