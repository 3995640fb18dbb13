//! `synego nginx`: the configuration that Nginx gets, and what Nginx says of it.

use std::net::SocketAddr;

use serde_json::json;
use synego_manifest::Manifest;
use synego_nginx::NginxBinary;

use crate::context::Context;
use crate::failure::{DONE, Failure};
use crate::manifest;
use crate::output::Answer;
use crate::up::gateway;

const EXAMPLES: &str = "\
Examples:
  synego nginx show
  synego nginx check";

/// Show the configuration for Nginx with the manifest line of each part, or let Nginx test it
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, clap::Subcommand)]
enum Act {
    /// Print the configuration
    Show,
    /// Let Nginx test it, changing nothing
    Check,
}

/// Runs it.
pub(crate) fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    let manifest = manifest::or_defaults(context)?;
    match args.act {
        Act::Show => {
            if !manifest.masters.join.is_empty() {
                let stand_in = manifest.masters.ingress;
                context.screen.note(&format!(
                    "the masters are elsewhere: `up` learns where their ingresses are, {stand_in} stands for them here"
                ));
            }
            let text = text(&manifest)?;
            let items = vec![json!({"file": synego_nginx::CONFIG_FILE, "text": text})];
            let answer = Answer::new("nginx", "file").of_mesh(manifest.declaration.mesh.as_str(), None).items(items);
            context.answer(answer, || text.clone());
        }
        Act::Check => {
            let binary = test(&manifest, context)?;
            let items = vec![json!({"file": synego_nginx::CONFIG_FILE, "nginx_version": binary.version, "ok": true})];
            let answer = Answer::new("nginx", "file").of_mesh(manifest.declaration.mesh.as_str(), None).items(items);
            context.answer(answer, || format!("nginx {} takes the configuration\n", binary.version));
        }
    }
    Ok(DONE)
}

/// Lets Nginx test the configuration of `manifest`.
///
/// # Errors
/// When there is no Nginx, or it refuses.
pub(crate) fn test(manifest: &Manifest, context: &Context) -> Result<NginxBinary, Failure> {
    let text = text(manifest)?;
    context.block_on(async {
        let Some(binary) = synego_nginx::find().await else {
            return Err(Failure::new("there is no Nginx on this machine").help("`apt install nginx`"));
        };
        let prefix = Scratch::new()?;
        let cannot = |error: std::io::Error| Failure::new("cannot make a folder for the test").cause(error.to_string());
        synego_nginx::prepare(&prefix.0).map_err(cannot)?;
        match synego_nginx::check(&binary, &text, &prefix.0).await {
            Ok(()) => Ok(binary),
            Err(error) => {
                let place = error.key.as_ref().map(|key| format!("it came from `{key}`"));
                Err(Failure::new(format!("nginx {} refuses the configuration", binary.version))
                    .cause(error.text.clone())
                    .cause(place.unwrap_or_default())
                    .help("see it with `synego nginx show`"))
            }
        }
    })
}

fn text(manifest: &Manifest) -> Result<String, Failure> {
    let mut manifest = manifest.clone();
    gateway::settle_ports(&mut manifest)?;
    let masters: Vec<SocketAddr> = vec![manifest.masters.ingress];
    let config = gateway::config(&manifest, masters, 1024)?;
    synego_nginx::render(&config).map_err(|error| {
        error
            .problems
            .iter()
            .fold(Failure::new("the gateway cannot be written as a configuration for Nginx"), |failure, problem| {
                failure.cause(problem.clone())
            })
    })
}

/// A folder of this process alone, gone at its end.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> Result<Self, Failure> {
        let dir = std::env::temp_dir().join(format!("synego-nginx-check-{}", std::process::id()));
        synego_runtime::config::private_dir(&dir)
            .map(Self)
            .map_err(|error| Failure::new("cannot make a folder for the test").cause(error.to_string()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A folder in the temporary directory that cannot be removed harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
