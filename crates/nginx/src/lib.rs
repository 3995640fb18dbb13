//! Nginx in front of a mesh: its configuration as text, the test of that text by the real Nginx, and its reload.
//!
//! [`render`] turns what the manifest says of the gateway into one file; [`check`] shows it to `nginx -t`; [`write()`] puts
//! it in place; [`command`] is what a supervisor runs; [`reload`] makes a running one take a new file.
//!
//! **Invariants.** Nothing outside of the prefix folder is read (but the files that are served) or written; root is never
//! needed. Endpoints and routes do not appear in the configuration, so their changes never reload it: whatever is no file
//! goes to the masters. A value that could be read as syntax is refused, then quoted, then seen by `nginx -t`; a refused
//! text replaces nothing. Deliberately absent: the process itself (that is `supervise`).

mod check;
mod control;
mod find;
mod quote;
mod render;

pub use check::{CheckError, check};
pub use control::{CONFIG_FILE, UpdateError, command, prepare, reload, update, write};
pub use find::{NginxBinary, find, inspect};
pub use render::{AccessTo, NginxConfig, RenderError, render};
