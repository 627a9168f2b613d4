//! Run folders as a tar: `agents/<run id>/run.yaml` and what else is in them, as they lie in the store.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use runspan::model::{RunId, RunKind};
use runspan::store::files::layout::Layout;
use runspan::store::files::requests::FOLDER;
use tar::{Builder, EntryType, Header};

/// Appends a run's folder.
pub fn append(archive: &mut Builder<impl Write>, layout: &Layout, kind: RunKind, run: RunId) -> io::Result<()> {
    let folder = layout.run(kind, run);
    let place = folder.strip_prefix(layout.root()).unwrap_or(&folder).to_owned();
    append_folder(archive, &folder, &place, true)
}

/// Appends plain files by name; folders one level deep, for artifacts.
fn append_folder(archive: &mut Builder<impl Write>, folder: &Path, place: &Path, with_folders: bool) -> io::Result<()> {
    let mut names: Vec<_> =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<_, _>>()?;
    // What is half made begins with a point; what a run was asked is no part of it.
    names.retain(|name| !name.as_encoded_bytes().starts_with(b".") && name != FOLDER);
    names.sort();
    for name in names {
        let (path, place) = (folder.join(&name), place.join(&name));
        let found = fs::symlink_metadata(&path)?;
        if found.is_dir() && with_folders {
            append_folder(archive, &path, &place, false)?;
        } else if found.is_file() {
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Regular);
            header.set_size(found.len());
            // The same run makes the same archive.
            header.set_mode(0o600);
            header.set_mtime(0);
            // What is appended meanwhile is not in the length that was told.
            archive.append_data(&mut header, place, File::open(&path)?.take(found.len()))?;
        }
    }
    Ok(())
}
