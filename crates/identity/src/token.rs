//! Join tokens: 256 random bits that let a machine into a mesh once, and the authority that it will find there.
//!
//! The text is `synego-join-1.FINGERPRINT.SECRET`: the fingerprint of the root's key, by which the one who joins knows
//! the mesh before it knows anything else of it, and the secret, of which the mesh keeps a hash.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use zeroize::Zeroizing;

use crate::keys::{Fingerprint, KeyError, from_hex, to_hex};

/// What a text begins with; the number is that of its form.
const FORM: &str = "synego-join-1";
/// Bytes of a secret.
const SECRET: usize = 32;
/// Hexadecimal digits of an id: enough to tell the tokens of a mesh apart, and of no use without the secret.
const ID: usize = 12;

/// A join token. Wiped from memory when it is dropped, and never shown by `{:?}`.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    root: Fingerprint,
    secret: Zeroizing<[u8; SECRET]>,
}

/// Why a text is no join token; the text itself is never repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no join token: expected one line that begins with `{FORM}.`, as `synego token create` prints it")]
pub struct BadToken;

/// What is kept of a token: nobody can make the token of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

impl JoinToken {
    /// A new one for the mesh whose root has this key.
    ///
    /// # Errors
    /// [`KeyError::NotMade`] when the machine has no randomness.
    pub fn generate(root: Fingerprint) -> Result<Self, KeyError> {
        let mut secret = Zeroizing::new([0; SECRET]);
        rand::fill(&mut secret[..]).map_err(|_| KeyError::NotMade)?;
        Ok(Self { root, secret })
    }

    /// Reads the text of a token; white space around it is left out.
    ///
    /// # Errors
    /// [`BadToken`] for everything else.
    pub fn parse(text: &str) -> Result<Self, BadToken> {
        let read = || {
            let (root, secret) = text.trim().strip_prefix(FORM)?.strip_prefix('.')?.split_once('.')?;
            let secret = Zeroizing::new(from_hex(secret)?);
            let secret = Zeroizing::new(secret.as_slice().try_into().ok()?);
            Some(Self { root: Fingerprint::parse(root).ok()?, secret })
        };
        read().ok_or(BadToken)
    }

    /// The whole text, for the one who joins.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{FORM}.{}.{}", self.root, *Zeroizing::new(to_hex(&self.secret[..]))))
    }

    /// The root that the mesh of this token has.
    #[must_use]
    pub fn root(&self) -> Fingerprint {
        self.root
    }

    /// What is kept of it.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, &self.secret[..]).as_ref());
        TokenHash(hash)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "JoinToken({})", self.hash().id())
    }
}

impl TokenHash {
    /// The name of the token: no secret.
    #[must_use]
    pub fn id(&self) -> String {
        let mut id = to_hex(&self.0);
        id.truncate(ID);
        id
    }

    /// As it is kept: 64 hexadecimal digits.
    #[must_use]
    pub fn text(&self) -> String {
        to_hex(&self.0)
    }

    /// Whether this is what `kept` was written of; the time that it takes says nothing of where they differ.
    #[must_use]
    pub fn equals(&self, kept: &str) -> bool {
        from_hex(kept).is_some_and(|kept| verify_slices_are_equal(&self.0, &kept).is_ok())
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "TokenHash({})", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken::generate(Fingerprint::of(b"a root")).expect("a token")
    }

    #[test]
    fn a_token_is_read_as_it_is_written() {
        let token = token();
        let text = format!("  {}\n", *token.text());
        assert_eq!(JoinToken::parse(&text), Ok(token.clone()));
        assert_eq!(token.root(), Fingerprint::of(b"a root"));
        let secret = token.text().rsplit('.').next().expect("a secret").to_owned();
        assert_eq!(secret.len(), 64, "256 bits");
        assert!(!format!("{token:?} {:?}", token.hash()).contains(&secret));
        assert_ne!(token.hash().text(), secret);
    }

    #[test]
    fn two_tokens_differ_and_only_its_own_hash_equals() {
        let (one, other) = (token(), token());
        assert_ne!(*one.text(), *other.text());
        assert!(one.hash().equals(&one.hash().text()));
        assert!(!one.hash().equals(&other.hash().text()));
        assert!(!one.hash().equals(&one.hash().id()) && !one.hash().equals("") && !one.hash().equals("zz"));
    }

    #[test]
    fn what_is_no_token_is_refused_without_repeating_it() {
        let whole = token().text().to_string();
        let (short, long) = (&whole[..whole.len() - 1], format!("{whole}0"));
        for text in ["", "synego-join-1", "synego-join-1..", short, &long, &whole.replace("join-1", "join-2")] {
            let refused = JoinToken::parse(text).expect_err("no token");
            assert!(text.len() < 20 || !refused.to_string().contains(text), "{refused}");
        }
    }
}
