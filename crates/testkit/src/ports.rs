//! Free ports.

/// A port on 127.0.0.1 that is free now and was not given before in this process; never one that the kernel may give to
/// an outgoing connection before the test listens on it.
#[must_use]
pub fn free() -> u16 {
    synego_supervise::free_port().expect("a free port")
}
