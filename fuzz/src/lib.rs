//! What the fuzz targets do that is not in the crate which they are about: `synego_data_plane::probe::fuzz` has the rest.

pub mod snapshot;
