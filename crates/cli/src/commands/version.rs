//! `synego version`: this program, and each process of the mesh if one answers.

use std::time::Duration;

use serde_json::json;

use crate::client::Mesh;
use crate::context::Context;
use crate::failure::{DONE, Failure};
use crate::output::{Answer, Cell, Column, Table, amount};
use crate::version::{COMMIT, DATE, NUMBER};

/// Longest wait for a mesh that is only asked by the way.
const PATIENCE: Duration = Duration::from_millis(500);

/// Runs it.
pub(crate) fn run(context: &Context) -> Result<u8, Failure> {
    let known = |text: &'static str| (!text.is_empty()).then_some(text);
    let mut items = vec![json!({"process": "synego", "version": NUMBER, "commit": known(COMMIT), "date": known(DATE)})];
    let mut table =
        Table::new(&[Column::name("PROCESS"), Column::stays("VERSION"), Column::text("COMMIT"), Column::text("DATE")]);
    table.row(
        ["synego".to_owned(), NUMBER.to_owned(), amount::or_dash(COMMIT), amount::or_dash(DATE)]
            .iter()
            .map(Cell::new)
            .collect(),
    );
    let view = context.block_on(async {
        let asked = async { Mesh::find(context).await?.view(&[]).await };
        Ok(tokio::time::timeout(PATIENCE, asked).await.ok().and_then(Result::ok))
    })?;
    let mut answer = Answer::new("version", "version");
    if let Some(view) = view {
        for master in &view.master {
            items.push(json!({"process": master.name, "version": view.version, "commit": null, "date": null}));
            table.row(
                [master.name.clone(), view.version.clone(), "–".into(), "–".into()].iter().map(Cell::new).collect(),
            );
        }
        answer = answer.of_mesh(&view.mesh, Some(view.epoch));
    }
    context.answer(answer.items(items), || context.table(table));
    Ok(DONE)
}
