//! The join tokens of a mesh, in its store: only hashes, each used once.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use synego_identity::{Fingerprint, JoinToken, KeyError, TokenHash};
use synego_model::ServiceName;

use crate::store::{Entry, Expected, Store, StoreError};

/// Below which keys they are kept.
const PREFIX: &str = "tokens/";
/// For how long a token can be used: shortest, longest, and when nothing was said; milliseconds.
pub(crate) const TTL_MS: (u64, u64, u64) = (60_000, 24 * 3_600_000, 600_000);
/// How long a token that is over is still listed; milliseconds.
const KEPT_MS: u64 = 24 * 3_600_000;
/// Most tokens that are kept.
const MOST: usize = 1_000;
/// How often a write is tried again that met another.
const TRIES: usize = 8;

/// What is kept of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) id: String,
    hash: String,
    /// The one service that it is for; `None`: any.
    pub(crate) service: Option<ServiceName>,
    pub(crate) created_unix_ms: u64,
    pub(crate) expires_unix_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) used: Option<Used>,
}

/// How it was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Used {
    pub(crate) unix_ms: u64,
    /// Who got certificates.
    pub(crate) holders: Vec<String>,
    /// Of all keys that were certified. The same ones asking again lost the answer, nothing else.
    keys: String,
}

/// Why a token is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenRefusal {
    #[error("the text is no join token of this mesh")]
    Unknown,
    #[error("the token {id} has been used already, by {by}")]
    Used { id: String, by: String },
    #[error("the token {id} expired {seconds} s ago")]
    Expired { id: String, seconds: u64 },
    #[error("the token {id} is for the service {wanted}, not for {asked}")]
    OtherService { id: String, wanted: ServiceName, asked: ServiceName },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why no token is made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateError {
    #[error("{MOST} join tokens are kept already: revoke those that nobody needs, `synego token list`")]
    TooMany,
    #[error("{0}")]
    NotMade(#[from] KeyError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One that wants to join.
#[derive(Debug, Clone)]
pub(crate) struct Joiner {
    pub(crate) service: ServiceName,
    pub(crate) holder: String,
    pub(crate) key: Fingerprint,
}

/// All tokens of a mesh.
#[derive(Clone)]
pub(crate) struct TokenBook {
    store: Arc<dyn Store>,
}

impl TokenBook {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Makes a token for the mesh whose root has the key `root`; those that are over for long are forgotten.
    pub(crate) async fn create(
        &self,
        root: Fingerprint,
        service: Option<ServiceName>,
        ttl_ms: u64,
        now_unix_ms: u64,
    ) -> Result<(JoinToken, Kept), CreateError> {
        let mut kept = 0;
        for (entry, token) in self.read().await? {
            if token.ended(now_unix_ms).is_some_and(|since| since >= KEPT_MS) {
                match self.store.remove(&entry.key, Expected::Revision(entry.revision)).await {
                    Ok(()) | Err(StoreError::Conflict { .. }) => continue,
                    Err(error) => return Err(error.into()),
                }
            }
            kept += 1;
        }
        if kept >= MOST {
            return Err(CreateError::TooMany);
        }
        let token = JoinToken::generate(root)?;
        let hash = token.hash();
        let next = Kept {
            id: hash.id(),
            hash: hash.text(),
            service,
            created_unix_ms: now_unix_ms,
            expires_unix_ms: now_unix_ms + ttl_ms,
            used: None,
        };
        self.store.put(&key(&next.id), written(&next), Expected::Absent).await?;
        Ok((token, next))
    }

    /// Those that can be used and those that are over for less than a day, oldest first.
    pub(crate) async fn list(&self, now_unix_ms: u64) -> Result<Vec<Kept>, StoreError> {
        let is_shown = |token: &Kept| token.ended(now_unix_ms).is_none_or(|since| since < KEPT_MS);
        let mut all: Vec<Kept> = self.read().await?.into_iter().map(|(_, token)| token).filter(is_shown).collect();
        all.sort_by(|a, b| (a.created_unix_ms, &a.id).cmp(&(b.created_unix_ms, &b.id)));
        Ok(all)
    }

    /// Forgets a token; `None`: there was none of this id.
    pub(crate) async fn revoke(&self, id: &str) -> Result<Option<Kept>, StoreError> {
        let found = self.read().await?.into_iter().find(|(_, token)| token.id == id);
        let Some((entry, token)) = found else { return Ok(None) };
        self.store.remove(&entry.key, Expected::Any).await?;
        Ok(Some(token))
    }

    /// Whether there is a token of this hash, whatever became of it.
    pub(crate) async fn known(&self, hash: TokenHash) -> Result<(), TokenRefusal> {
        let entry = self.store.get(&key(&hash.id())).await?.ok_or(TokenRefusal::Unknown)?;
        read(&entry).filter(|token| hash.equals(&token.hash)).map(|_| ()).ok_or(TokenRefusal::Unknown)
    }

    /// Uses a token for these: once it returns, nobody else can. The same ones with the same keys may ask again while
    /// the token lives: they have not got the answer.
    pub(crate) async fn redeem(
        &self,
        hash: TokenHash,
        joiners: &[Joiner],
        now_unix_ms: u64,
    ) -> Result<(), TokenRefusal> {
        let keys = keys_of(joiners);
        let key = key(&hash.id());
        let mut last = None;
        for _ in 0..TRIES {
            let entry = self.store.get(&key).await?.ok_or(TokenRefusal::Unknown)?;
            let mut token = read(&entry).filter(|token| hash.equals(&token.hash)).ok_or(TokenRefusal::Unknown)?;
            token.takes(joiners, &keys, now_unix_ms)?;
            if token.used.is_some() {
                return Ok(());
            }
            let holders = joiners.iter().map(|joiner| joiner.holder.clone()).collect();
            token.used = Some(Used { unix_ms: now_unix_ms, holders, keys: keys.clone() });
            match self.store.put(&key, written(&token), Expected::Revision(entry.revision)).await {
                Ok(_) => return Ok(()),
                Err(conflict @ StoreError::Conflict { .. }) => last = Some(conflict),
                Err(error) => return Err(error.into()),
            }
        }
        Err(last.map_or(TokenRefusal::Unknown, TokenRefusal::Store))
    }

    async fn read(&self) -> Result<Vec<(Entry, Kept)>, StoreError> {
        let entries = self.store.list(PREFIX).await?;
        Ok(entries.into_iter().filter_map(|entry| read(&entry).map(|token| (entry, token))).collect())
    }
}

impl Kept {
    /// For how long it is over; `None`: it can still be used.
    fn ended(&self, now_unix_ms: u64) -> Option<u64> {
        let expired = now_unix_ms.checked_sub(self.expires_unix_ms);
        let used = self.used.as_ref().map(|used| now_unix_ms.saturating_sub(used.unix_ms));
        used.or(expired)
    }

    fn takes(&self, joiners: &[Joiner], keys: &str, now_unix_ms: u64) -> Result<(), TokenRefusal> {
        let id = || self.id.clone();
        if let Some(used) = self.used.as_ref().filter(|used| used.keys != keys) {
            return Err(TokenRefusal::Used { id: id(), by: used.holders.join(", ") });
        }
        if now_unix_ms >= self.expires_unix_ms {
            let seconds = (now_unix_ms - self.expires_unix_ms) / 1000;
            return Err(TokenRefusal::Expired { id: id(), seconds });
        }
        let Some(wanted) = &self.service else { return Ok(()) };
        match joiners.iter().find(|joiner| joiner.service != *wanted) {
            Some(other) => {
                Err(TokenRefusal::OtherService { id: id(), wanted: wanted.clone(), asked: other.service.clone() })
            }
            None => Ok(()),
        }
    }
}

/// Names the keys and whose they are, in whichever order they come.
fn keys_of(joiners: &[Joiner]) -> String {
    let mut keys: Vec<String> = joiners.iter().map(|joiner| format!("{} {}", joiner.service, joiner.key)).collect();
    keys.sort_unstable();
    Fingerprint::of(keys.join("\n").as_bytes()).to_string()
}

fn key(id: &str) -> String {
    format!("{PREFIX}{id}")
}

fn read(entry: &Entry) -> Option<Kept> {
    let read = serde_json::from_slice(&entry.value);
    read.inspect_err(|error| tracing::warn!(key = entry.key, cause = %error, "a kept token cannot be read")).ok()
}

fn written(token: &Kept) -> Vec<u8> {
    // Of strings and numbers alone: this cannot fail.
    serde_json::to_vec(token).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::RedbStore;

    const NOW: u64 = 1_795_000_000_000;

    fn book(folder: &tempfile::TempDir) -> TokenBook {
        TokenBook::new(Arc::new(RedbStore::open(&folder.path().join("s/store.redb")).expect("a store")))
    }

    fn joiner(service: &str, key: &[u8]) -> Joiner {
        Joiner {
            service: service.parse().expect("a name"),
            holder: format!("{service}-1@vm2"),
            key: Fingerprint::of(key),
        }
    }

    fn root() -> Fingerprint {
        Fingerprint::of(b"root")
    }

    async fn made(book: &TokenBook, service: Option<&str>) -> JoinToken {
        let service = service.map(|name| name.parse().expect("a name"));
        book.create(root(), service, TTL_MS.2, NOW).await.expect("a token").0
    }

    #[tokio::test]
    async fn join_token_used_twice_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let book = book(&folder);
        let token = made(&book, None).await;
        book.redeem(token.hash(), &[joiner("users", b"k1")], NOW + 1).await.expect("the first");
        let again = book.redeem(token.hash(), &[joiner("users", b"k2")], NOW + 2).await;
        assert!(matches!(again, Err(TokenRefusal::Used { by, .. }) if by == "users-1@vm2"));
        let other = book.redeem(token.hash(), &[joiner("orders", b"k1")], NOW + 2).await;
        assert!(matches!(other, Err(TokenRefusal::Used { .. })), "the same key in another name");
    }

    #[tokio::test]
    async fn who_lost_the_answer_asks_again_with_the_same_key_and_is_answered() {
        let folder = tempfile::tempdir().expect("a folder");
        let book = book(&folder);
        let token = made(&book, None).await;
        let both = [joiner("users", b"k1"), joiner("orders", b"k2")];
        book.redeem(token.hash(), &both, NOW + 1).await.expect("the first");
        let turned = [both[1].clone(), both[0].clone()];
        book.redeem(token.hash(), &turned, NOW + 2).await.expect("the same keys");
        let late = book.redeem(token.hash(), &both, NOW + TTL_MS.2).await;
        assert!(matches!(late, Err(TokenRefusal::Expired { .. })));
    }

    #[tokio::test]
    async fn join_token_expired_or_for_another_service_or_unknown_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let book = book(&folder);
        let token = made(&book, Some("users")).await;
        let late = book.redeem(token.hash(), &[joiner("users", b"k")], NOW + TTL_MS.2 + 3_000).await;
        assert!(matches!(late, Err(TokenRefusal::Expired { seconds: 3, .. })));
        let both = [joiner("users", b"k"), joiner("orders", b"k")];
        let other = book.redeem(token.hash(), &both, NOW + 1).await;
        assert!(matches!(other, Err(TokenRefusal::OtherService { asked, .. }) if asked.as_str() == "orders"));
        let unknown = JoinToken::generate(root()).expect("a token");
        let refused = book.redeem(unknown.hash(), &[joiner("users", b"k")], NOW + 1).await;
        assert!(matches!(refused, Err(TokenRefusal::Unknown)));
        book.redeem(token.hash(), &[joiner("users", b"k")], NOW + 2).await.expect("no refusal uses a token up");
    }

    #[tokio::test]
    async fn of_two_who_use_one_token_at_once_one_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let book = book(&folder);
        let token = made(&book, None).await;
        let (one, other) = ([joiner("users", b"k1")], [joiner("users", b"k2")]);
        let (first, second) =
            tokio::join!(book.redeem(token.hash(), &one, NOW), book.redeem(token.hash(), &other, NOW));
        assert_ne!(first.is_ok(), second.is_ok());
    }

    #[tokio::test]
    async fn the_store_holds_no_secret_and_a_revoked_token_is_unknown() {
        let folder = tempfile::tempdir().expect("a folder");
        let book = book(&folder);
        let token = made(&book, None).await;
        let secret = token.text().rsplit('.').next().expect("a secret").to_owned();
        for entry in book.store.list("").await.expect("readable") {
            assert!(!String::from_utf8_lossy(&entry.value).contains(&secret), "{}", entry.key);
        }
        let listed = book.list(NOW + 1).await.expect("listed");
        assert_eq!(listed.iter().map(|kept| kept.id.clone()).collect::<Vec<_>>(), [token.hash().id()]);
        assert!(book.revoke(&token.hash().id()).await.expect("revoked").is_some());
        assert!(book.revoke(&token.hash().id()).await.expect("nothing").is_none());
        let refused = book.redeem(token.hash(), &[joiner("users", b"k")], NOW + 1).await;
        assert!(matches!(refused, Err(TokenRefusal::Unknown)));
    }

    #[tokio::test]
    async fn a_token_that_is_over_is_listed_for_a_day_and_then_forgotten() {
        let folder = tempfile::tempdir().expect("a folder");
        let book = book(&folder);
        made(&book, None).await;
        let over = NOW + TTL_MS.2 + KEPT_MS;
        assert_eq!(book.list(over - 1).await.expect("listed").len(), 1);
        assert_eq!(book.list(over).await.expect("listed").len(), 0);
        book.create(root(), None, TTL_MS.2, over).await.expect("a token");
        assert_eq!(book.store.list(PREFIX).await.expect("readable").len(), 1, "the old one is gone from the store");
    }
}
