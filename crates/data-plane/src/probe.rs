//! Doors into this crate for fuzz targets and for counts of instructions; no part of its interface.

pub mod count;
pub mod fuzz;
