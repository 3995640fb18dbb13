//! What must hold for any bytes, one function for each fuzz target.
