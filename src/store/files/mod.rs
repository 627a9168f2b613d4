//! The run store on files: a folder a run, readable with nothing but a pager.
//!
//! The layout and the formats are specified in `docs/format.md`. [`FilesWriter`] is one process's writer; any number
//! of them and of [`FilesReader`]s may be at work in one store, and no reader ever holds a writer up.

mod adopt;
#[cfg(feature = "index")]
mod again;
pub mod artifacts;
mod chain;
pub mod cleanup;
#[cfg(feature = "index")]
pub mod database;
pub mod family;
#[cfg(test)]
mod faults;
pub mod folder;
mod index;
pub mod layout;
mod links;
mod naming;
mod overlay;
mod packs;
mod reader;
pub mod requests;
pub(crate) mod retainer;
mod run_dir;
pub(crate) mod sealed;
mod sums;
pub mod verify;
mod writer;
pub mod yaml;

use std::path::Path;

use super::StoreError;
use crate::fs::Fs;
use crate::journal::lock;
use crate::model::RunId;
pub use adopt::{adopt_folder, has_replaced, renew_folder, restore_replaced};
use layout::Layout;
pub(crate) use overlay::{Overlay, OverlayWriter};
pub use reader::FilesReader;
pub use writer::FilesWriter;

/// Lists the runs in a folder; what is not named by a ULID, and links, are no runs.
fn run_ids(fs: &dyn Fs, dir: &Path) -> Result<Vec<RunId>, StoreError> {
    let entries = match fs.list(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::io("read", dir)(error)),
    };
    Ok(entries.into_iter().filter(|entry| entry.is_dir).filter_map(|entry| entry.name.parse().ok()).collect())
}

/// Tells whether the process that writes a run still holds the lock of its journal.
fn writer_is_alive(layout: &Layout, writer: RunId) -> bool {
    lock::is_held(layout.fs(), &layout.journal().join(writer.to_string())).unwrap_or(false)
}
