//! `synego schema`: the JSON Schema of the manifest.

use crate::context::Context;
use crate::failure::{DONE, Failure};
use crate::output::answer::Format;

/// Runs it. The schema is JSON whatever `-o` says, but for `-o yaml`.
pub(crate) fn run(context: &Context) -> Result<u8, Failure> {
    let schema = synego_manifest::schema();
    let text = match context.globals.output {
        Format::Yaml => serde_yaml::to_string(&schema).map_err(|error| Failure::new(error.to_string()))?,
        _ => format!("{schema:#}\n"),
    };
    context.screen.print(&text);
    Ok(DONE)
}
