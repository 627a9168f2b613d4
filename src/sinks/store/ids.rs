//! Ids that are made of what they name: the same however often it is told.

use sha2::{Digest, Sha256};

pub use crate::model::id::foreign_run_id;
pub(super) use crate::model::id::is_foreign_run_id;
use crate::model::{EventId, RunId, UnixNanos};

/// Makes an event's id: its moment, then 80 bits of a hash of the process's own random id and the event's place.
///
/// Fresh for each event, and the same when a record is told again after a crash.
pub(super) fn event_id(process: RunId, seq: u64, sub: u64, at: UnixNanos) -> EventId {
    let digest =
        Sha256::new_with_prefix(process.0).chain_update(seq.to_le_bytes()).chain_update(sub.to_le_bytes()).finalize();
    let mut random = [0; 10];
    random.copy_from_slice(&digest[..10]);
    EventId::from_parts(at.millis(), random)
}

/// Makes a number of what a record tells, the same whenever it comes.
pub(super) fn hash_of(parts: &[&[u8]]) -> u64 {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    let digest = hash.finalize();
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(bytes)
}

/// Makes the id of the run of `process` that stands in the place of another: the same whoever tells it again.
pub(super) fn run_id_in_place_of(run: RunId, process: RunId) -> RunId {
    let digest =
        Sha256::new_with_prefix(b"runspan in place of ").chain_update(run.0).chain_update(process.0).finalize();
    let mut bits = [0; 10];
    bits.copy_from_slice(&digest[..10]);
    RunId::from_parts(run.time().millis(), bits)
}
