//! `--watch`: the same result again after each change of the mesh, until it is interrupted.

use futures_util::StreamExt as _;
use synego_wire::pb;

use crate::client::Mesh;
use crate::context::Context;
use crate::failure::{DONE, Failure};
use crate::output::Answer;
use crate::output::live::Live;

/// One view in every form.
pub(crate) struct Frame {
    /// For programs.
    pub(crate) answer: Answer,
    /// For logs: a name and its line without figures.
    pub(crate) rows: Vec<(String, String)>,
    /// For people.
    pub(crate) human: String,
}

/// Shows each view: as a line of JSON, redrawn in place, or as the lines that changed.
///
/// # Errors
/// When the mesh cannot be reached at first, or goes away.
pub(crate) async fn run(
    context: &Context,
    mesh: &mut Mesh<'_>,
    services: &[String],
    mut frame: impl FnMut(&pb::MeshView) -> Frame,
) -> Result<u8, Failure> {
    let every = context.globals.watch.unwrap_or_default();
    let mut views = mesh.watch(services, every).await?;
    let mut live = Live::default();
    while let Some(view) = views.next().await {
        let view = view.map_err(|status| mesh.failed(&status))?;
        let frame = frame(&view);
        if let Some(text) = frame.answer.render(context.globals.output) {
            context.screen.print(&text);
        } else if context.screen.out_is_terminal {
            live.redraw(&context.screen, &frame.human);
        } else {
            let at = context.clock.at(view.unix_ms, view.unix_ms);
            for line in live.changes(frame.rows) {
                context.screen.print(&format!("{at}  {line}\n"));
            }
        }
    }
    context.screen.note(&format!("{} ended", mesh.target()));
    Ok(DONE)
}
