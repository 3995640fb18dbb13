//! Steps on a request's way, each by itself, for counts of instructions.
