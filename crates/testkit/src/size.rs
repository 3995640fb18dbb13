//! How large a test is: small in the suite, and as large as a variable says in a soak.

/// The size that `variable` names; `usual` where it names none.
#[must_use]
pub fn of(variable: &str, usual: u32) -> u32 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}
