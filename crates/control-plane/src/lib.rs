//! Moves knowledge.
pub mod registry;
