//! The journal: one append-only log per writing process, from which every reader takes at its own pace.
//!
//! What has been committed here is not lost when the process dies, and with [`Durability::Power`] not when the power
//! fails either. Readers ([`JournalReader`]) hold their own positions and get every frame at least once. All of it is
//! plain blocking file I/O on a local file system; the caller owns the threads.
//!
//! # Specification, format version 1
//!
//! Everything here is enough to write a second implementation. All integers are little endian. `crc(a, b, ..)` is
//! CRC-32C (Castagnoli) over the concatenation of its arguments; `name` is the process name as ASCII.
//!
//! ## Files
//!
//! ```text
//! <journal>/<name>/                          mode 0700; name: 1 to 32 of A-Z a-z 0-9 _ -, new for each journal
//!   lock                                     mode 0600, like all files; empty
//!   00000000000000000001.seg                 a segment, named by the number of its first frame, 20 digits
//!   00000000000000004711.seg
//!   00000000000000004711.1.seg               takes over from the segment of the same first number, see "Failed writes"
//!   ring                                     where the writer's shared memory is, see `sources::ring::files`; no part
//!                                            of the journal
//!   bell                                     grows by a byte when somebody asks something of the writer's runs, see
//!                                            `store::files::requests`; no part of the journal
//!   positions/<reader>                       how far a reader is; reader: 1 to 64 of A-Z a-z 0-9 _ -
//! <journal>/.new-<name>-<n>/                 a journal being created, by the attempt <n>
//! <journal>/.gone-<name>/                    a journal being deleted
//! ```
//!
//! Readers ignore every other name. Segments are ordered by first number, then by the take-over count.
//!
//! ## Lock
//!
//! The writer holds an exclusive `flock` on `lock` from before the directory gets its name until it dies. Whoever gets
//! the lock knows that the writer is dead; process ids say nothing and are not used. After locking, the file behind
//! the descriptor must still be the one at the path, else the journal was removed meanwhile. A shared `flock` that is
//! granted and closed at once asks whether the writer lives. The lock belongs to the open file: see [`lock`] for what
//! `fork` does to it.
//!
//! ## Segment header, 80 bytes
//!
//! | offset | size | |
//! |---|---|---|
//! | 0 | 8 | `RSPNJRN1` |
//! | 8 | 2 | format version, 1. A larger one in a header whose checksum is right: refuse, change nothing |
//! | 10 | 2 | flags; readers ignore all but 1: written with [`Durability::Power`] |
//! | 12 | 4 | length of the header, 80: where the first frame begins |
//! | 16 | 32 | the process name, padded with zeros |
//! | 48 | 8 | first number: the one in the file name |
//! | 56 | 8 | creation time, nanoseconds since 1970 |
//! | 64 | 8 | the largest `source` of all segments before this one |
//! | 72 | 4 | 0 |
//! | 76 | 4 | `crc(bytes 0..76)` |
//!
//! A header with a right checksum and another name or first number makes the file foreign: a copy that is no part of
//! this journal, to be ignored. A header with a wrong checksum costs nothing but itself: the file name says the first
//! number, and frames prove themselves.
//!
//! ## Frame
//!
//! Frames follow each other; each begins at a multiple of 8 bytes and is padded with zeros that no length counts.
//!
//! | offset | size | |
//! |---|---|---|
//! | 0 | 4 | `len`: bytes of payload, at most 16 MiB |
//! | 4 | 4 | `crc(name, bytes 0..4, bytes 8..32 + len)` |
//! | 8 | 1 | kind, never 0 |
//! | 9 | 1 | flags, 0; handed to the reader |
//! | 10 | 2 | header check: the low 16 bits of `crc(name, bytes 0..4, bytes 8..10, bytes 12..32)` |
//! | 12 | 4 | `resource`: id of a resource frame earlier in this segment, 0 for none |
//! | 16 | 8 | `seq`: the frame's number |
//! | 24 | 8 | `source`: the caller's own position, opaque; see "Recovery" |
//! | 32 | len | payload |
//!
//! The name in the checksum binds a frame to its journal: the bytes of a frame inside somebody's payload do not pass
//! for one when a reader searches behind damage. The header check keeps that search cheap.
//!
//! | kind | | payload |
//! |---|---|---|
//! | 1 | started | OTLP `ScopeSpans` with exactly one span |
//! | 2 | event | the same |
//! | 3 | ended | the same |
//! | 4 | resource | OTLP `Resource`; its own id is in `resource` |
//! | 5 | mark | JSON, such as counts of dropped records |
//! | 6 | passing | `ScopeSpans` with one span that ended and that the store has from elsewhere: for targets alone |
//! | 7 | metrics | OTLP `ExportMetricsServiceRequest` as it came: for targets alone |
//!
//! Numbers begin at 1 and have no gap, across segments. Only resource frames take none: their `seq` is the number of
//! the next numbered frame. A resource stands in each segment before the first frame that refers to it, so no segment
//! needs another one. Unknown kinds are numbered; a consumer passes over them.
//!
//! ## Group commit
//!
//! Appending collects frames in memory. A commit writes them with one `write`: into the last segment when they fit
//! below its size limit, else into a new one, together with its header. With [`Durability::Process`] that is all. With
//! [`Durability::Power`] `fdatasync` follows, and `fsync` of the directory when the segment is new. Only then is the
//! commit done. A reader may see frames a moment before their commit is.
//!
//! ## Failed writes
//!
//! After a failed or short write or a failed sync the segment is never written again: what the kernel did with the
//! pages is unknown, and a later `fsync` that succeeds would prove nothing. It is cut to its last good length (deleted
//! if that is 0) as far as that works. The same frames with the same numbers go to a new segment. Hence the rule:
//! **a segment's frames count only below the first number of the segment after it**; what stands there at or above it
//! is a remnant. With the same first number nothing of the earlier segment counts, so a new segment's take-over count is
//! one above the largest one present.
//!
//! ## Reading
//!
//! For the next wanted number take the last segment whose first number is not above it, and go through its frames. A
//! frame is valid when its kind is not 0, its length fits, both checksums are right, and its number is neither below
//! the next one expected in the segment nor 2^24 or more above it. Where no valid frame stands, try every later
//! multiple of 8 up to the end of the file. If one is found, the numbers left out are damaged frames (or one resource
//! frame, if none is left out). If none is found and a later segment exists, this segment has ended, and the numbers up
//! to the next segment's first one are damaged; if it is the last segment, its writer is in the middle of a write: not
//! yet. Numbers before the oldest segment were removed. Frames whose numbers the reader had before are passed over.
//!
//! ## Positions, 64 bytes
//!
//! Two slots of 32 bytes, written in turn and in place, so that a torn write leaves the older one: 0: `RSPNPOS1`,
//! 8: version u16 (1), 10: zero u16, 12: `crc(name, bytes 0..12, bytes 16..32)`, 16: generation u64, 24: `seq` u64, the
//! last frame the reader is done with. The valid slot with the larger generation counts, and generation `g` is written
//! to slot `g % 2`. Without a valid slot reading begins at the oldest segment. A reader holds an exclusive `flock` on
//! its file. Positions are not synced: a lost one means that frames come again.
//!
//! ## Recovery
//!
//! Who gets the lock of a dead writer goes through the last segment (and back, as long as headers are damaged), takes
//! the largest number of frames and of positions, and the largest `source` of frames and header; cuts from the last
//! segment what stands behind its last valid frame; and goes on with the next number in a new segment. Positions count
//! because a reader may be ahead of what a power failure left: its numbers must not be given again. `source` tells the
//! adopter up to where the dead writer's input has been appended. A journal that was written with [`Durability::Power`]
//! is gone on with under it, whatever the adopter asks for: what it holds was promised to last. With it what is left of
//! the last segment is written once more, in place, and synced: a sync that failed under the dead writer leaves bytes that can be
//! read and that no later sync brings to the disk.
//!
//! ## Retention
//!
//! A segment may be deleted when it is not the last one and every reader's position has reached the first number of
//! the next, less 1; oldest first. The last segment stays, for it holds the number and the source. A whole journal goes
//! when its lock is free and each reader is done: rename to `.gone-<name>`, then delete. Whoever lists journals may
//! delete `.new-` and `.gone-` directories whose lock is free; a creator that loses its directory so begins again.
//!
//! ## A bridge's journal
//!
//! A file `bridge` beside the segments says that the records tell of other processes than the journal's own. The next
//! bridge takes the lock and goes on with it; whoever else finds it may take in what it holds, and does not take the
//! runs in it for crashed.

mod check;
mod error;
pub mod lock;
mod position;
mod reader;
mod recovery;
mod resume;
mod segment;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use crate::model::run::UnknownWord;

pub use check::{Checked, Damage, check_in};
pub use error::JournalError;
pub use reader::{Batch, Frame, JournalReader};
#[cfg(feature = "server")]
pub(crate) use recovery::behind;
pub(crate) use recovery::readers_in;
pub use recovery::{
    ProcessJournal, Recovered, list_processes, list_processes_in, look_at_end, look_at_end_in, remove_journal,
    remove_journal_in, remove_oldest_segments, remove_passed_segments, remove_passed_segments_in,
};
#[cfg(feature = "server")]
pub(crate) use resume::mark_command;
#[cfg(test)]
pub(crate) use resume::mark_resumable_in;
pub(crate) use resume::{TakenIn, has_mark_in, is_of_command_in, is_resumable_in, note_taken_in, taken_in};
#[cfg(feature = "server")]
pub(crate) use resume::{is_imported_into, is_served};
pub use resume::{is_resumable, mark_resumable};
pub use segment::{FrameKind, MAX_PAYLOAD_BYTES};
pub use writer::{Committed, JournalWriter, Options};

/// What an acknowledged record survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// The death of the process at any moment: the kernel has the bytes.
    #[default]
    Process,
    /// Loss of power too: the disk has them.
    Power,
}

impl std::str::FromStr for Durability {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        match word.to_ascii_lowercase().as_str() {
            "process" => Ok(Self::Process),
            "power" => Ok(Self::Power),
            _ => Err(UnknownWord { word: word.to_owned(), known: &["process", "power"] }),
        }
    }
}

/// Names beginning like this are journals in the making.
const NEW_PREFIX: &str = ".new-";
/// Names beginning like this are journals being deleted.
const GONE_PREFIX: &str = ".gone-";
const POSITIONS: &str = "positions";

fn checked_name(name: &str, max: usize) -> Result<&str, JournalError> {
    let fits = (1..=max).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if fits { Ok(name) } else { Err(JournalError::BadName { name: name.to_owned(), max }) }
}

/// Returns the directory of a process's journal, once the name is known to be harmless in a path.
fn process_dir(journal_dir: &Path, process: &str) -> Result<PathBuf, JournalError> {
    Ok(journal_dir.join(checked_name(process, segment::NAME_BYTES)?))
}
