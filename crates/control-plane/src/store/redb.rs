//! The store as one file of this machine, for one master.

use std::fs::OpenOptions;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use redb::backends::FileBackend;
use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use synego_runtime::{config, tasks};
use tokio::sync::watch;

use super::{Entry, Expected, MAX_KEY, MAX_VALUE, Store, StoreError};

/// Key → revision and value.
const ENTRIES: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("entries");
/// The one counter: how many writes there were.
const COUNTS: TableDefinition<'_, &str, u64> = TableDefinition::new("counts");
const REVISION: &str = "revision";
/// Pages that are kept in memory; the whole store is smaller than that in any usual mesh.
const CACHE: usize = 1024 * 1024;

/// A store in one file, mode 0600 in a folder of mode 0700. Cheap to clone: all clones are the same store.
#[derive(Clone)]
pub struct RedbStore {
    inner: Arc<Inner>,
}

struct Inner {
    /// `None`: it was closed.
    database: RwLock<Option<Database>>,
    path: PathBuf,
    watchers: Mutex<Vec<(String, watch::Sender<u64>)>>,
}

impl RedbStore {
    /// Opens the store in `path`, or makes it. May block for the time of a disk's write.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while another process has it open, [`StoreError::Open`] when it cannot be used.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |cause: String| StoreError::Open { path: path.display().to_string(), cause };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        config::private_dir(folder).map_err(|error| failed(error.to_string()))?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|error| failed(error.to_string()))?;
        // One that was copied here by hand may have been open to others.
        file.set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(|error| failed(error.to_string()))?;
        let opened = FileBackend::new(file)
            .and_then(|backend| Database::builder().set_cache_size(CACHE).create_with_backend(backend));
        let database = opened.map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path: path.display().to_string() },
            other => failed(other.to_string()),
        })?;
        let made = || -> Result<(), redb::Error> {
            let writing = database.begin_write()?;
            writing.open_table(ENTRIES)?;
            writing.open_table(COUNTS)?;
            writing.commit()?;
            Ok(())
        };
        made().map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            inner: Arc::new(Inner {
                database: RwLock::new(Some(database)),
                path: path.to_owned(),
                watchers: Mutex::default(),
            }),
        })
    }

    /// Closes it for all who have it, once what goes on has ended: another process may open it then.
    pub async fn close(&self) {
        let inner = Arc::clone(&self.inner);
        let closed = tasks::spawn_blocking("store-close", move || {
            drop(inner.database.write().unwrap_or_else(PoisonError::into_inner).take());
        });
        // A panic of it was reported by its task.
        let _closed = closed.await;
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        let done = tasks::spawn_blocking("store", move || work(&inner)).await;
        match done {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Failure::Conflict(key))) => Err(StoreError::Conflict { key }),
            Ok(Err(Failure::Closed)) => Err(StoreError::Failed("a newer part of this program has it now".to_owned())),
            Ok(Err(Failure::Disk(error))) => Err(StoreError::Failed(error.to_string())),
            Err(error) => Err(StoreError::Failed(error.to_string())),
        }
    }
}

/// Why a piece of work on the file failed.
enum Failure {
    Conflict(String),
    Closed,
    Disk(redb::Error),
}

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Disk(error.into())
    }
}

impl Inner {
    /// Writes or removes in one commit, and tells those who watch; returns the revision.
    fn write(&self, key: &str, value: Option<&[u8]>, expected: Expected) -> Result<u64, Failure> {
        let open = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let mut writing = open.as_ref().ok_or(Failure::Closed)?.begin_write()?;
        // Keys and values come in part from outside: a checksum alone must not decide what is whole after a crash.
        writing.set_two_phase_commit(true);
        let revision = {
            let mut entries = writing.open_table(ENTRIES)?;
            let mut counts = writing.open_table(COUNTS)?;
            let found = entries.get(key)?.map(|entry| entry.value().0);
            if !expected.holds(found) {
                return Err(Failure::Conflict(key.to_owned()));
            }
            let revision = counts.get(REVISION)?.map_or(0, |count| count.value()) + 1;
            match value {
                Some(value) => {
                    entries.insert(key, (revision, value))?;
                }
                None if found.is_none() => return Ok(revision - 1),
                None => {
                    entries.remove(key)?;
                }
            }
            counts.insert(REVISION, revision)?;
            revision
        };
        writing.commit()?;
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.retain(|(_, watcher)| watcher.receiver_count() > 0);
        for (prefix, watcher) in watchers.iter() {
            if key.starts_with(prefix.as_str()) {
                watcher.send_replace(revision);
            }
        }
        Ok(revision)
    }
}

#[tonic::async_trait]
impl Store for RedbStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let key = key.to_owned();
        self.blocking(move |inner| {
            let open = inner.database.read().unwrap_or_else(PoisonError::into_inner);
            let entries = open.as_ref().ok_or(Failure::Closed)?.begin_read()?.open_table(ENTRIES)?;
            Ok(entries.get(key.as_str())?.map(|found| {
                let (revision, value) = found.value();
                Entry { value: value.to_vec(), revision, key }
            }))
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        let prefix = prefix.to_owned();
        self.blocking(move |inner| {
            let open = inner.database.read().unwrap_or_else(PoisonError::into_inner);
            let entries = open.as_ref().ok_or(Failure::Closed)?.begin_read()?.open_table(ENTRIES)?;
            let mut found = Vec::new();
            for entry in entries.range(prefix.as_str()..)? {
                let (key, value) = entry?;
                if !key.value().starts_with(&prefix) {
                    break;
                }
                let (revision, bytes) = value.value();
                found.push(Entry { key: key.value().to_owned(), value: bytes.to_vec(), revision });
            }
            Ok(found)
        })
        .await
    }

    async fn put(&self, key: &str, value: Vec<u8>, expected: Expected) -> Result<u64, StoreError> {
        for (bytes, most) in [(key.len(), MAX_KEY), (value.len(), MAX_VALUE)] {
            if bytes > most {
                return Err(StoreError::TooLarge { key: key.chars().take(MAX_KEY).collect(), bytes, most });
            }
        }
        let key = key.to_owned();
        self.blocking(move |inner| inner.write(&key, Some(&value), expected)).await
    }

    async fn remove(&self, key: &str, expected: Expected) -> Result<(), StoreError> {
        let key = key.to_owned();
        self.blocking(move |inner| inner.write(&key, None, expected).map(|_| ())).await
    }

    fn watch(&self, prefix: &str) -> watch::Receiver<u64> {
        let (sender, receiver) = watch::channel(0);
        self.inner.watchers.lock().unwrap_or_else(PoisonError::into_inner).push((prefix.to_owned(), sender));
        receiver
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &tempfile::TempDir) -> RedbStore {
        RedbStore::open(&folder.path().join("own/store.redb")).expect("a store")
    }

    #[tokio::test]
    async fn what_was_written_is_there_after_a_restart_and_only_its_owner_may_read_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = open(&folder);
        assert_eq!(store.get("a/1").await.expect("readable"), None);
        let first = store.put("a/1", b"one".to_vec(), Expected::Absent).await.expect("written");
        let second = store.put("a/2", b"two".to_vec(), Expected::Any).await.expect("written");
        store.put("b/1", b"other".to_vec(), Expected::Any).await.expect("written");
        assert!(second > first);
        let path = store.path().to_owned();
        drop(store);
        let store = open(&folder);
        let found: Vec<_> = store.list("a/").await.expect("readable").into_iter().map(|entry| entry.value).collect();
        assert_eq!(found, [b"one".to_vec(), b"two".to_vec()]);
        assert_eq!(store.get("a/1").await.expect("readable").map(|entry| entry.revision), Some(first));
        let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().expect("a folder"))), (0o600, 0o700));
    }

    #[tokio::test]
    async fn one_that_is_closed_is_free_for_another_process_and_says_so_to_those_who_still_have_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, other) = (open(&folder), folder.path().join("own/store.redb"));
        store.put("k", b"1".to_vec(), Expected::Any).await.expect("written");
        assert!(matches!(RedbStore::open(&other), Err(StoreError::InUse { .. })));
        store.close().await;
        let next = RedbStore::open(&other).expect("it is free");
        assert!(next.get("k").await.expect("readable").is_some());
        assert!(store.get("k").await.is_err() && store.put("k", b"2".to_vec(), Expected::Any).await.is_err());
    }

    #[tokio::test]
    async fn of_two_writers_who_read_the_same_only_one_writes() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = open(&folder);
        let revision = store.put("k", b"0".to_vec(), Expected::Absent).await.expect("written");
        assert!(matches!(store.put("k", b"x".to_vec(), Expected::Absent).await, Err(StoreError::Conflict { .. })));
        store.put("k", b"1".to_vec(), Expected::Revision(revision)).await.expect("the first");
        let late = store.put("k", b"2".to_vec(), Expected::Revision(revision)).await;
        assert!(matches!(late, Err(StoreError::Conflict { key }) if key == "k"));
        assert!(matches!(store.remove("k", Expected::Revision(revision)).await, Err(StoreError::Conflict { .. })));
        assert_eq!(store.get("k").await.expect("readable").map(|entry| entry.value), Some(b"1".to_vec()));
        store.remove("k", Expected::Any).await.expect("removed");
        store.remove("k", Expected::Absent).await.expect("removed already");
        assert_eq!(store.get("k").await.expect("readable"), None);
    }

    #[tokio::test]
    async fn who_watches_hears_of_each_change_below_its_prefix_and_of_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = open(&folder);
        let mut watched = store.watch("tokens/");
        store.put("ca/state", b"x".to_vec(), Expected::Any).await.expect("written");
        assert!(!watched.has_changed().expect("open"));
        let revision = store.put("tokens/1", b"x".to_vec(), Expected::Any).await.expect("written");
        assert_eq!(*watched.borrow_and_update(), revision);
        store.remove("tokens/1", Expected::Any).await.expect("removed");
        assert!(watched.has_changed().expect("open"));
    }

    #[tokio::test]
    async fn a_second_opener_is_told_that_the_store_is_in_use() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = open(&folder);
        let second = RedbStore::open(store.path());
        let Err(error @ StoreError::InUse { .. }) = second else { panic!("it was opened twice") };
        assert!(error.to_string().contains("in use by another process"), "{error}");
    }

    #[tokio::test]
    async fn a_value_out_of_bounds_is_refused_and_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = open(&folder);
        let large = store.put("k", vec![0; MAX_VALUE + 1], Expected::Any).await;
        assert!(matches!(large, Err(StoreError::TooLarge { .. })));
        assert!(matches!(
            store.put(&"k".repeat(300), Vec::new(), Expected::Any).await,
            Err(StoreError::TooLarge { .. })
        ));
        assert_eq!(store.list("").await.expect("readable"), []);
    }
}
