//! The lines of several instances as one stream.

use futures_util::{StreamExt as _, stream};
use synego_sidecar::OutputSource;
use synego_wire::convert::output::LinesWanted;
use synego_wire::pb;
use tokio_stream::wrappers::ReceiverStream;

use super::Answers;

/// Where lines are from.
pub(super) struct Source {
    pub(super) instance: String,
    pub(super) service: String,
    pub(super) lines: Box<dyn OutputSource>,
}

/// The recent lines in one batch, then, when it goes on, each new one.
pub(super) fn lines(sources: Vec<Source>, wanted: LinesWanted) -> Answers<pb::LogsBatch> {
    let (follow, mut following, mut recent) = (wanted.follow, Vec::new(), Vec::new());
    for source in sources {
        let named = move |line: synego_wire::convert::output::OutputLine| pb::LogsLine {
            instance: source.instance.clone(),
            service: source.service.clone(),
            line: Some(line.into()),
        };
        // Before the recent ones are read, so that none falls between.
        if follow {
            let new = ReceiverStream::new(source.lines.follow(wanted.clone()));
            let named = named.clone();
            following.push(new.map(move |line| Ok(pb::LogsBatch { line: vec![named(line)], recent_complete: false })));
        }
        let found = source.lines.recent(wanted.clone());
        recent.push(async move { found.await.into_iter().map(named).collect::<Vec<_>>() });
    }
    let first = stream::once(async move {
        let mut line: Vec<pb::LogsLine> = futures_util::future::join_all(recent).await.into_iter().flatten().collect();
        line.sort_by_key(|line| line.line.as_ref().map_or(0, |line| line.unix_us));
        Ok(pb::LogsBatch { line, recent_complete: true })
    });
    if follow { Box::pin(first.chain(stream::select_all(following))) } else { Box::pin(first) }
}
