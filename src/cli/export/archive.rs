//! Run folders as a tar: `agents/<run id>/run.yaml` and what else is in them, as they lie in the store.

use std::io::{self, Write};

use runspan::model::{RunId, RunKind};
use runspan::store::files::folder::files_of;
use runspan::store::files::layout::Layout;
use tar::{Builder, EntryType, Header};

/// Appends a run's folder, in that of its kind.
pub fn append(archive: &mut Builder<impl Write>, layout: &Layout, kind: RunKind, run: RunId) -> io::Result<()> {
    let folder = layout.run(kind, run);
    let place = folder.strip_prefix(layout.root()).unwrap_or(&folder).to_owned();
    for file in files_of(layout, kind, run).map_err(io::Error::other)? {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_size(file.bytes);
        // The same run makes the same archive.
        header.set_mode(0o600);
        header.set_mtime(0);
        // What is appended meanwhile is not in the length that was told.
        archive.append_data(&mut header, place.join(&file.name), file.open(layout)?)?;
    }
    Ok(())
}
