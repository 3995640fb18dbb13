//! What this program is: version, commit and date.

/// Commit of which it was built; empty outside of a git checkout.
pub(crate) const COMMIT: &str = env!("SYNEGO_BUILD_COMMIT");
/// Date of that commit, `YYYY-MM-DD`; empty outside of a git checkout.
pub(crate) const DATE: &str = env!("SYNEGO_BUILD_DATE");
/// Semantic version.
pub(crate) const NUMBER: &str = env!("CARGO_PKG_VERSION");
/// All three, as `--version` prints them.
pub(crate) const LINE: &str = env!("SYNEGO_BUILD_LINE");
