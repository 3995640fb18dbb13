//! Reads a manifest: what a user wrote about a mesh, in YAML or JSON, becomes values of the model, or a list of all
//! mistakes with their places.
//!
//! The path of a file: [`load()`] finds it and what it includes → `yaml` makes a tree in which every node knows its place →
//! `long` checks keys and forms and writes short forms out → `merge` lays the overlay over it → `variables` fills
//! `${NAME}` → `check` checks values → `cross` checks what no value can tell alone → `read` makes values of the model.
//! All of it goes by one table of keys, in `keys`, which also makes the schema and the pages of `synego explain`.
//!
//! **Invariants.** Pure: files are read through a [`Disk`] alone, the environment is an argument, there is no clock.
//! Nothing is ignored: a key is honoured or refused by name. A [`Manifest`] exists only when nothing refuses it. No input
//! makes it panic or grow without bound. Secrets are masked in every text that leaves it.

mod address;
mod blame;
mod check;
mod command;
mod cross;
mod disk;
mod effective;
mod explain;
mod find;
mod json;
mod keys;
mod load;
mod long;
mod manifest;
mod mask;
mod merge;
mod misplaced;
mod older;
mod outcome;
mod plan;
mod policy;
mod problems;
mod read;
mod schema;
mod tree;
mod types;
mod value;
mod variables;
mod yaml;

pub use disk::{Disk, OsDisk};
pub use effective::EffectiveValue;
pub use explain::{diagnostic_codes, diagnostic_page, key_page, key_paths};
pub use keys::Effect;
pub use load::{FileRole, LoadedFile, Request, load, load_files};
pub use manifest::{IdentitySpec, Level, LogFormat, LogsSpec, Manifest};
pub use outcome::{Outcome, Sources};
pub use plan::{Action, PlannedChange, plan};
pub use schema::schema;
