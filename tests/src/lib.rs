//! Tests of the whole: the structure of the house, the generated code, and real meshes of real processes.

pub mod generate;
