//! What a master must not forget: small keyed values with revisions, behind one interface.
//!
//! A write says which revision it expects, so two writers never undo each other. One number grows with every write of
//! the whole store; an entry carries the number of its last write. Whoever watches hears that something turned and
//! reads anew: nothing is lost when several writes come together or a watch begins late.
//!
//! **Invariants.** A write that returned is on the disk. A value is replaced as a whole or not at all. Deliberately
//! absent: soft state (who is alive, how loaded), and anything on the path of a request.

mod redb;

use tokio::sync::watch;

pub use self::redb::RedbStore;

/// Longest key, and longest value; bytes.
pub const MAX_KEY: usize = 256;
/// Longest value; bytes.
pub const MAX_VALUE: usize = 1024 * 1024;

/// One value under its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key, such as `ca/state`.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// The store's revision at which it was last written; from 1.
    pub revision: u64,
}

/// What a write expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Whatever is there.
    Any,
    /// Nothing under this key.
    Absent,
    /// The value that was written at this revision.
    Revision(u64),
}

impl Expected {
    /// What was read: the entry's revision, or that there was none.
    #[must_use]
    pub fn as_read(entry: Option<&Entry>) -> Self {
        entry.map_or(Self::Absent, |entry| Self::Revision(entry.revision))
    }

    fn holds(self, found: Option<u64>) -> bool {
        match self {
            Self::Any => true,
            Self::Absent => found.is_none(),
            Self::Revision(wanted) => found == Some(wanted),
        }
    }
}

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error(
        "the store {path} is in use by another process: end that one, or give this one a store of its own (`--store redb:FILE`)"
    )]
    InUse {
        /// Its file.
        path: String,
    },
    /// It cannot be opened.
    #[error("cannot open the store {path}: {cause}")]
    Open {
        /// Its file.
        path: String,
        /// Why.
        cause: String,
    },
    /// Somebody else wrote meanwhile: read anew and decide again.
    #[error("`{key}` was changed by another writer")]
    Conflict {
        /// Its key.
        key: String,
    },
    /// A key or value out of bounds.
    #[error("`{key}` has {bytes} bytes, at most {most} are stored")]
    TooLarge {
        /// Its key.
        key: String,
        /// How large it is.
        bytes: usize,
        /// The bound.
        most: usize,
    },
    /// The disk or the service behind it failed.
    #[error("the store failed: {0}")]
    Failed(String),
}

/// A store of small keyed values.
#[tonic::async_trait]
pub trait Store: Send + Sync + 'static {
    /// The value under `key`.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// All values whose keys begin with `prefix`, by key.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    async fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError>;

    /// Writes a value if what is there is as expected; returns its revision once it is on the disk.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it is not as expected, [`StoreError::TooLarge`], [`StoreError::Failed`].
    async fn put(&self, key: &str, value: Vec<u8>, expected: Expected) -> Result<u64, StoreError>;

    /// Removes a value if what is there is as expected; one that is not there is removed already.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it is not as expected, [`StoreError::Failed`].
    async fn remove(&self, key: &str, expected: Expected) -> Result<(), StoreError>;

    /// Turns to the store's revision after each write under `prefix`, by whomever.
    fn watch(&self, prefix: &str) -> watch::Receiver<u64>;
}
