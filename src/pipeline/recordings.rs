//! The spans of the recordings in `tests/data/corpus` through normalize and price, and back.

use std::path::{Path, PathBuf};

use super::cost::Pricer;
use super::normalize::{normalize, restore_original};
use crate::model::record::{Record, RecordKind};
use crate::sources::otlp::{self, Encoding, Limits};

/// Returns the spans of each request.
pub(super) fn recordings() -> Vec<(PathBuf, Vec<Record>)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus")];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap().to_str().unwrap();
            let encoding = match name.split_once("-traces.").map(|(_, end)| end) {
                Some("json") => Encoding::Json,
                Some("pb") => Encoding::Protobuf,
                _ if path.is_dir() => {
                    folders.push(path);
                    continue;
                }
                _ => continue,
            };
            let received = otlp::traces(&std::fs::read(&path).unwrap(), encoding, &Limits::default()).unwrap();
            found.push((path, received.records));
        }
    }
    found
}

#[test]
fn the_original_comes_back_attribute_for_attribute() {
    let mut pricer = Pricer::new();
    let mut changed = 0;
    for (path, records) in recordings() {
        for original in records {
            let mut record = original.clone();
            normalize(&mut record);
            pricer.price(&mut record);
            let mut twice = record.clone();
            normalize(&mut twice);
            pricer.price(&mut twice);
            assert_eq!(twice, record, "{}: a second pass changes nothing", path.display());
            changed += u64::from(record != original);
            restore_original(&mut record.span);
            assert_eq!(record.kind, RecordKind::Ended, "{}", path.display());
            assert_eq!(record, original, "{}", path.display());
        }
    }
    assert!(changed > 500, "only {changed} spans were changed at all");
}
