//! The store on this machine's disk: one file, a `redb` database.
//!
//! It belongs to one process, which holds a lock on it. A batch is one transaction with two
//! flushes (redb's two-phase commit: the content of a hold is a stranger's, and the checksums of
//! the faster commit are no protection from one who chooses the bytes). The file is checked as a
//! whole when it is opened; one that is damaged is not used (nothing is granted), and not mended.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use redb::backends::FileBackend;
use redb::{
    Builder, Database, DatabaseError, Durability, ReadableDatabase as _, ReadableTable, Table,
    TableDefinition, TableError,
};

use super::{
    Batch, CommitError, Delta, Lasting, Mark, Store, StoreError, Version, Write, decode, encode,
};

/// The name of the file in the state directory.
pub const FILE_NAME: &str = "approvals.redb";
/// The version of what is in the file; another one is not read.
const SCHEMA: u64 = 1;
/// Memory for pages, bytes.
const CACHE_BYTES: usize = 1024 * 1024;
/// The bits of a mode that let others than the owner read or write.
const OTHERS: u32 = 0o077;

/// Each record under its name: its version, and its content as JSON.
const RECORDS: TableDefinition<'_, &str, (Version, &[u8])> = TableDefinition::new("records");
/// [`SCHEMA_KEY`], [`BATCHES`], [`MARK`].
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const SCHEMA_KEY: &str = "schema";
/// How many batches there were.
const BATCHES: &str = "batches";
/// The clock, milliseconds.
const MARK: &str = "mark_ms";

/// Why a store is not opened. Nothing is granted without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenError {
    /// Another process uses it.
    InUse(PathBuf),
    /// Others than its owner can read or write it, or it is another user's or no file.
    NotPrivate(PathBuf),
    /// Its content is not as it was written.
    Damaged(PathBuf, Box<str>),
    /// A newer version of this program wrote it; the number of its form.
    Newer(PathBuf, u64),
    /// It cannot be read or written.
    Fault(Box<str>),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => {
                write!(f, "`{}`: another process uses it", path.display())
            }
            Self::NotPrivate(path) => write!(
                f,
                "`{0}`: it must be a file of this user that others cannot read or write; run `chmod 600 '{0}'`",
                path.display()
            ),
            Self::Damaged(path, cause) => write!(
                f,
                "`{}` is damaged ({cause}); move it away, and the next start begins without holds",
                path.display()
            ),
            Self::Newer(path, schema) => write!(
                f,
                "`{}` was written by a newer version (form {schema}, this one reads {SCHEMA})",
                path.display()
            ),
            Self::Fault(cause) => f.write_str(cause),
        }
    }
}

impl std::error::Error for OpenError {}

/// Opens the database again.
type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// Records in a file.
pub struct EmbeddedStore {
    open: Opener,
    /// Absent after a fault, until it could be opened again.
    database: Mutex<Option<Database>>,
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore").finish_non_exhaustive()
    }
}

impl EmbeddedStore {
    /// Opens the file at `path`, or creates it for its owner alone.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        if !path.try_exists().map_err(|error| fault(path, "cannot be opened", &error))? {
            create(path)?;
        }
        let found = fs::symlink_metadata(path).map_err(|e| fault(path, "cannot be opened", &e))?;
        let own = rustix::process::geteuid().as_raw();
        if !found.is_file() || found.uid() != own || found.mode() & OTHERS != 0 {
            return Err(OpenError::NotPrivate(path.to_owned()));
        }
        // An empty file would become an empty database: the holds would be gone without a word.
        if found.len() == 0 {
            return Err(OpenError::Damaged(path.to_owned(), "it is empty".into()));
        }
        let owned = path.to_owned();
        Self::opened(Box::new(move || builder().open(&owned)), path)
    }

    /// The store that `open` gives, called `path` in errors.
    fn opened(open: Opener, path: &Path) -> Result<Self, OpenError> {
        let damaged = |cause: &str| OpenError::Damaged(path.to_owned(), cause.into());
        let store = Self { open, database: Mutex::new(None) };
        let opened = caught(|| (store.open)());
        let database = match opened {
            Ok(Ok(database)) => database,
            Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => {
                return Err(OpenError::InUse(path.to_owned()));
            }
            Ok(Err(DatabaseError::Storage(redb::StorageError::Io(error))))
                if error.kind() != ErrorKind::InvalidData
                    && error.kind() != ErrorKind::UnexpectedEof =>
            {
                return Err(fault(path, "cannot be read", &error));
            }
            Ok(Err(error)) => return Err(damaged(&error.to_string())),
            Err(error) => return Err(damaged(&error.cause)),
        };
        match caught(|| schema(&database)).and_then(|read| read) {
            Ok(Some(SCHEMA)) => {}
            Ok(Some(newer)) if newer > SCHEMA => {
                return Err(OpenError::Newer(path.to_owned(), newer));
            }
            Ok(_) => return Err(damaged("it does not say what form it has")),
            Err(error) => return Err(damaged(&error.cause)),
        }
        *bartizan_sync::lock(&store.database) = Some(database);
        store.changes_since(0).map_err(|error| damaged(&error.cause))?;
        Ok(store)
    }

    /// Does `work` with the database, which is opened again if a fault closed it, and closed if
    /// `work` finds a fault.
    fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, CommitError>,
    ) -> Result<T, CommitError> {
        let mut place = bartizan_sync::lock(&self.database);
        if place.is_none() {
            let opened = caught(|| (self.open)()).map_err(CommitError::Fault)?;
            *place = Some(opened.map_err(failed)?);
        }
        let done = match &*place {
            Some(database) => {
                caught(|| work(database)).unwrap_or_else(|e| Err(CommitError::Fault(e)))
            }
            None => Err(CommitError::Fault(StoreError::new("closed"))),
        };
        if let Err(CommitError::Fault(_)) = &done {
            // After an I/O error redb takes no more writes until it is opened again.
            let broken = place.take();
            drop(caught(|| drop(broken)));
        }
        done
    }
}

impl Store for EmbeddedStore {
    fn is_exclusive(&self) -> bool {
        true
    }

    fn changes_since(&self, _: Version) -> Result<Delta, StoreError> {
        let read = self.with(|database| read(database).map_err(CommitError::Fault));
        read.map_err(|error| match error {
            CommitError::Fault(error) => error,
            CommitError::Conflict => StoreError::new("conflict"),
        })
    }

    fn commit(&self, batch: &Batch) -> Result<Version, CommitError> {
        self.with(|database| commit(database, batch))
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

/// Makes an empty database beside `path` and renames it, so that a crash leaves a whole one or
/// none.
fn create(path: &Path) -> Result<(), OpenError> {
    let fresh = path.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(fault(&fresh, "cannot be removed", &error));
        }
        Ok(()) | Err(_) => {}
    }
    let made = |error: io::Error| fault(path, "cannot be created", &error);
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&fresh);
    let backend = FileBackend::new(file.map_err(made)?);
    let database = backend.and_then(|backend| builder().create_with_backend(backend));
    let first = database.map_err(failed).and_then(|database| initialise(&database));
    first.map_err(|error| match error {
        CommitError::Fault(error) => fault(path, "cannot be created", &error),
        CommitError::Conflict => fault(path, "cannot be created", &"conflict"),
    })?;
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(&fresh)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(&fresh, path))
        .and_then(|()| File::open(folder)?.sync_all())
        .map_err(made)
}

fn initialise(database: &Database) -> Result<(), CommitError> {
    let mut transaction = database.begin_write().map_err(failed)?;
    transaction.set_two_phase_commit(true);
    {
        let mut meta = transaction.open_table(META).map_err(failed)?;
        meta.insert(SCHEMA_KEY, SCHEMA).map_err(failed)?;
        transaction.open_table(RECORDS).map_err(failed)?;
    }
    transaction.commit().map_err(failed)
}

/// The form of what is in the database, if it says so.
fn schema(database: &Database) -> Result<Option<u64>, StoreError> {
    let transaction = database.begin_read().map_err(StoreError::new)?;
    match transaction.open_table(META) {
        Ok(meta) => number_of(&meta, SCHEMA_KEY),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(StoreError::new(error)),
    }
}

fn number_of(
    meta: &impl ReadableTable<&'static str, u64>,
    key: &str,
) -> Result<Option<u64>, StoreError> {
    let found = meta.get(key).map_err(StoreError::new)?;
    Ok(found.map(|value| value.value()))
}

fn read(database: &Database) -> Result<Delta, StoreError> {
    let transaction = database.begin_read().map_err(StoreError::new)?;
    let meta = transaction.open_table(META).map_err(StoreError::new)?;
    let table = transaction.open_table(RECORDS).map_err(StoreError::new)?;
    let mut records = Vec::new();
    for entry in table.iter().map_err(StoreError::new)? {
        let (name, content) = entry.map_err(StoreError::new)?;
        let (version, text) = content.value();
        records.push((decode(name.value(), text)?, version));
    }
    Ok(Delta {
        // What was removed is not kept: no other process asks.
        whole: true,
        rolled_back: false,
        removed: Vec::new(),
        records,
        cursor: number_of(&meta, BATCHES)?.unwrap_or_default(),
        mark_ms: number_of(&meta, MARK)?.unwrap_or_default(),
    })
}

fn commit(database: &Database, batch: &Batch) -> Result<Version, CommitError> {
    let mut transaction = database.begin_write().map_err(failed)?;
    match batch.lasting {
        Lasting::Now => transaction.set_two_phase_commit(true),
        Lasting::Later => transaction.set_durability(Durability::None).map_err(failed)?,
    }
    let number = {
        let mut meta = transaction.open_table(META).map_err(failed)?;
        let mut records = transaction.open_table(RECORDS).map_err(failed)?;
        let last = number_of(&meta, BATCHES).map_err(CommitError::Fault)?;
        let number = last.unwrap_or_default().saturating_add(1);
        for write in &batch.writes {
            apply(&mut records, write, number)?;
        }
        let mark = number_of(&meta, MARK).map_err(CommitError::Fault)?.unwrap_or_default();
        let mark = match batch.mark {
            Mark::Raise(to) => mark.max(to),
            Mark::Set(to) => to,
        };
        meta.insert(BATCHES, number).map_err(failed)?;
        meta.insert(MARK, mark).map_err(failed)?;
        number
    };
    transaction.commit().map_err(failed)?;
    Ok(number)
}

/// Does one write. A transaction that is dropped after an error changes nothing.
fn apply(
    records: &mut Table<'_, &'static str, (Version, &'static [u8])>,
    write: &Write,
    number: Version,
) -> Result<(), CommitError> {
    let (key, expect) = match write {
        Write::Put { record, expect } => (record.key(), *expect),
        Write::Remove { key, expect } => (key.clone(), *expect),
    };
    let found = records.get(key.as_str()).map_err(failed)?.map_or(0, |value| value.value().0);
    match write {
        Write::Put { record, .. } if found == expect => {
            let content = encode(record).map_err(CommitError::Fault)?;
            records.insert(key.as_str(), (number, &*content)).map_err(failed)?;
        }
        Write::Remove { .. } if found == expect || found == 0 => {
            records.remove(key.as_str()).map_err(failed)?;
        }
        Write::Put { .. } | Write::Remove { .. } => return Err(CommitError::Conflict),
    }
    Ok(())
}

/// Runs `work`; a panic of the database is a fault like any other.
fn caught<T>(work: impl FnOnce() -> T) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| StoreError::new("the database panicked"))
}

fn failed(error: impl fmt::Display) -> CommitError {
    CommitError::Fault(StoreError::new(error))
}

fn fault(path: &Path, what: &str, error: &dyn fmt::Display) -> OpenError {
    OpenError::Fault(format!("`{}` {what}: {error}", path.display()).into())
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests")]
mod tests;
