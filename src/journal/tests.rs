//! The journal as a whole, on a real file system and through one that makes trouble.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::fs::{Access, Entry, Fs, FsFile, OsFs, Stat};

const PROCESS: &str = "01KE9BZH80BGEY5ABZ7D0DHDQ1";

const SMALL: Options = Options { durability: Durability::Process, segment_bytes: 1024, max_bytes: 1 << 20 };

/// What a reader got, comparable and printable: number, payload and resource.
type Got = (u64, String, Option<String>);

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn got(batch: &Batch) -> Vec<Got> {
    batch.frames().map(|f| (f.seq, text(f.payload), f.resource.map(|bytes| text(bytes)))).collect()
}

fn read_all(reader: &mut JournalReader) -> (Vec<Got>, u64) {
    let (mut all, mut damaged) = (Vec::new(), 0);
    loop {
        let batch = reader.next_batch(100).unwrap();
        damaged += batch.damaged();
        if batch.is_empty() {
            return (all, damaged);
        }
        all.extend(got(&batch));
    }
}

/// Reads everything without leaving a trace.
fn look(dir: &Path) -> (Vec<Got>, u64) {
    read_all(&mut JournalReader::open_read_only(dir, PROCESS, "nobody").unwrap())
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir.join(PROCESS))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    // As segments are ordered: by first number, then by the take-over count.
    paths.sort_by_key(|path| {
        (text(path.file_name().unwrap().as_encoded_bytes())[..20].to_owned(), path.as_os_str().len(), path.clone())
    });
    paths
}

fn names(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

/// Appends and commits `frame 1`, `frame 2` and so on, two in a commit, with one of two resources.
fn fill(writer: &mut JournalWriter, count: u64) -> Vec<Got> {
    let mut expected = Vec::new();
    for n in 0..count {
        let resource = format!("service {}", n % 2);
        let id = writer.register_resource(resource.as_bytes()).unwrap();
        let seq = writer.committed_seq() + 1 + n % 2;
        let payload = format!("frame {seq}");
        assert_eq!(writer.append(FrameKind::Ended, id, seq * 10, payload.as_bytes()).unwrap(), seq);
        expected.push((seq, payload, Some(resource)));
        if n % 2 == 1 || n + 1 == count {
            assert_eq!(writer.commit().unwrap().seq, seq);
        }
    }
    expected
}

fn journal(options: Options) -> (TempDir, JournalWriter) {
    let dir = tempfile::tempdir().unwrap();
    let writer = JournalWriter::create(dir.path(), PROCESS, options).unwrap();
    (dir, writer)
}

#[test]
fn who_knows_that_nothing_was_committed_since_does_not_ask_the_disk() {
    let (dir, mut writer) = journal(Options::default());
    let mut reader = JournalReader::open(dir.path(), PROCESS, "store").unwrap();
    fill(&mut writer, 4);
    let mut read_to =
        |committed| reader.next_batch_up_to(committed, 1000).map(|batch| (got(&batch).len(), batch.last_seq()));
    assert_eq!(read_to(0).unwrap(), (0, 0));
    assert_eq!(read_to(4).unwrap(), (4, 4));
    std::fs::remove_dir_all(dir.path()).unwrap();
    assert_eq!(read_to(4).unwrap(), (0, 4));
    assert!(read_to(5).is_err());
    // Who goes back reads again what was read before.
    reader.rewind();
    assert!(reader.next_batch_up_to(4, 1000).is_err());
}

#[test]
fn what_was_committed_is_read_with_its_resource_and_the_rest_is_not_there_yet() {
    let (dir, mut writer) = journal(Options::default());
    let mut reader = JournalReader::open(dir.path(), PROCESS, "store").unwrap();
    assert!(reader.next_batch(1000).unwrap().is_empty());

    let service = writer.register_resource(b"service").unwrap();
    assert_eq!(writer.register_resource(b"service").unwrap(), service);
    writer.append(FrameKind::Started, service, 64, b"a starts").unwrap();
    assert!(reader.next_batch(1000).unwrap().is_empty());
    assert_eq!(writer.commit().unwrap(), Committed { seq: 1 });
    writer.append(FrameKind::Mark, 0, 96, b"{}").unwrap();
    writer.append(FrameKind::Unknown(77), service, 128, b"").unwrap();
    assert_eq!(writer.commit().unwrap(), Committed { seq: 3 });
    assert_eq!(writer.commit().unwrap(), Committed { seq: 3 });

    let batch = reader.next_batch(1000).unwrap();
    let frames: Vec<_> = batch.frames().map(|f| (f.kind, f.seq, f.source, text(f.payload), f.resource_id)).collect();
    assert_eq!(
        frames,
        [
            (FrameKind::Started, 1, 64, "a starts".to_owned(), service),
            (FrameKind::Mark, 2, 96, "{}".to_owned(), 0),
            (FrameKind::Unknown(77), 3, 128, String::new(), service),
        ]
    );
    let resources: Vec<_> = batch.frames().map(|f| f.resource.map(|bytes| text(bytes))).collect();
    assert_eq!(resources, [Some("service".to_owned()), None, Some("service".to_owned())]);
    assert_eq!((batch.last_seq(), batch.damaged(), batch.removed()), (3, 0, 0));
    assert!(!batch.frames().any(|frame| frame.has_lost_resource()));
}

#[test]
fn everything_belongs_to_the_user_alone() {
    let (dir, mut writer) = journal(SMALL);
    fill(&mut writer, 2);
    let _reader = JournalReader::open(dir.path(), PROCESS, "store").unwrap();
    let mode = |path: &str| fs::metadata(dir.path().join(PROCESS).join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!([mode(""), mode("positions")], [0o700; 2]);
    assert_eq!([mode("lock"), mode("positions/store"), mode("00000000000000000001.seg")], [0o600; 3]);
}

#[test]
fn each_segment_can_be_read_without_the_others() {
    let (dir, mut writer) = journal(SMALL);
    let expected = fill(&mut writer, 60);
    let paths = segments(dir.path());
    assert!(paths.len() > 3, "{paths:?}");
    assert!(paths.iter().all(|path| fs::metadata(path).unwrap().len() <= SMALL.segment_bytes));
    assert_eq!(look(dir.path()), (expected.clone(), 0));

    fs::remove_file(&paths[0]).unwrap();
    let (rest, damaged) = look(dir.path());
    assert_eq!(damaged, 0, "segments at the beginning are removed, not damaged");
    assert_eq!(rest, expected[expected.len() - rest.len()..]);
}

#[test]
fn readers_have_their_own_positions_and_what_is_not_acknowledged_comes_again() {
    let (dir, mut writer) = journal(SMALL);
    let expected = fill(&mut writer, 40);
    // A process that another test is starting has what is open here for a moment, and so its lock.
    let open = |name| {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            match JournalReader::open(dir.path(), PROCESS, name) {
                Err(JournalError::Locked { .. }) if Instant::now() < until => std::thread::yield_now(),
                opened => return opened.unwrap(),
            }
        }
    };

    let (mut store, mut metrics) = (open("store"), open("metrics"));
    let batch = store.next_batch(50).unwrap();
    assert_eq!(got(&batch), expected[..7], "as much as fits");
    store.acknowledge(batch.last_seq() - 2).unwrap();
    assert_eq!(got(&store.next_batch(1).unwrap()), expected[7..8], "at least one");
    store.rewind();
    assert_eq!(read_all(&mut store).0, expected[5..]);
    assert_eq!(read_all(&mut metrics).0, expected);
    assert!(matches!(metrics.acknowledge(41), Err(JournalError::NotDelivered { seq: 41, delivered: 40 })));
    metrics.acknowledge(40).unwrap();
    metrics.acknowledge(3).unwrap();

    drop((store, metrics));
    assert_eq!(read_all(&mut open("store")).0, expected[5..]);
    assert_eq!(open("metrics").acknowledged(), 40);
    assert!(open("metrics").next_batch(1000).unwrap().is_empty());
}

#[test]
fn one_reader_of_a_name_at_a_time_and_looking_disturbs_nobody() {
    let (dir, mut writer) = journal(SMALL);
    let expected = fill(&mut writer, 4);
    let mut first = JournalReader::open(dir.path(), PROCESS, "store").unwrap();
    first.next_batch(1000).unwrap();
    first.acknowledge(2).unwrap();
    assert!(JournalReader::open(dir.path(), PROCESS, "store").unwrap_err().is_locked());
    let mut looking = JournalReader::open_read_only(dir.path(), PROCESS, "store").unwrap();
    assert_eq!(read_all(&mut looking).0, expected[2..]);
    assert!(matches!(looking.acknowledge(4), Err(JournalError::ReadOnly)));
}

#[test]
fn a_torn_position_leaves_the_one_before_and_a_broken_one_begins_anew() {
    let (dir, mut writer) = journal(SMALL);
    fill(&mut writer, 4);
    let path = dir.path().join(PROCESS).join("positions/store");
    let mut reader = JournalReader::open(dir.path(), PROCESS, "store").unwrap();
    reader.next_batch(1000).unwrap();
    reader.acknowledge(2).unwrap();
    let before = fs::read(&path).unwrap();
    reader.acknowledge(3).unwrap();
    let after = fs::read(&path).unwrap();
    drop(reader);

    for at in 0..after.len() {
        let mut torn = before.clone();
        torn.resize(after.len(), 0);
        torn[..at].copy_from_slice(&after[..at]);
        fs::write(&path, &torn).unwrap();
        let seq = JournalReader::open(dir.path(), PROCESS, "store").unwrap().acknowledged();
        assert!(seq == 2 || seq == 3, "cut at {at}: {seq}");
        let mut flipped = after.clone();
        flipped[at] ^= 1;
        fs::write(&path, &flipped).unwrap();
        let seq = JournalReader::open(dir.path(), PROCESS, "store").unwrap().acknowledged();
        assert!(seq == 2 || seq == 3, "flipped at {at}: {seq}");
    }
    fs::write(&path, "rubbish").unwrap();
    assert_eq!(JournalReader::open(dir.path(), PROCESS, "store").unwrap().acknowledged(), 0);
}

#[test]
fn an_adopter_goes_on_where_the_dead_writer_stopped() {
    let (dir, mut writer) = journal(SMALL);
    let mut expected = fill(&mut writer, 5);
    writer.append(FrameKind::Ended, 0, 999, b"never committed").unwrap();
    assert!(JournalWriter::reopen(dir.path(), PROCESS, SMALL).unwrap_err().is_locked());
    assert_eq!(list_processes(dir.path()).unwrap(), [ProcessJournal { name: PROCESS.to_owned(), alive: true }]);
    drop(writer);
    assert_eq!(list_processes(dir.path()).unwrap(), [ProcessJournal { name: PROCESS.to_owned(), alive: false }]);

    let (mut writer, recovered) = JournalWriter::reopen(dir.path(), PROCESS, SMALL).unwrap();
    assert_eq!(
        recovered,
        Recovered { durability: Durability::Process, last_seq: 5, last_source: 50, cut_bytes: 0, damaged_frames: 0 }
    );
    expected.extend(fill(&mut writer, 4));
    assert_eq!(look(dir.path()), (expected, 0));
    assert_eq!(names(&segments(dir.path())), ["00000000000000000001.seg", "00000000000000000006.seg"]);
}

#[test]
fn what_was_promised_to_outlive_the_power_is_gone_on_with_as_that() {
    let power = Options { durability: Durability::Power, ..SMALL };
    let (dir, mut writer) = journal(power);
    let mut expected = fill(&mut writer, 3);
    drop(writer);
    // Again and again: what the adopter writes is promised the same.
    for frames in [2, 1] {
        let (mut writer, recovered) = JournalWriter::reopen(dir.path(), PROCESS, SMALL).unwrap();
        assert_eq!(recovered.durability, Durability::Power);
        expected.extend(fill(&mut writer, frames));
    }
    // A header that cannot be read may have said so.
    let last = segments(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&last).unwrap();
    bytes[0] ^= 1;
    fs::write(&last, bytes).unwrap();
    assert_eq!(look_at_end(dir.path(), PROCESS).unwrap().durability, Durability::Power);
    for segment in segments(dir.path()) {
        let mut bytes = fs::read(&segment).unwrap();
        bytes[0] ^= 1;
        fs::write(&segment, bytes).unwrap();
    }
    assert_eq!(look_at_end(dir.path(), PROCESS).unwrap().durability, Durability::Power);
    assert_eq!(look(dir.path()), (expected, 0));
}

#[test]
fn the_largest_source_outlives_the_segments_it_stood_in() {
    let (dir, mut writer) = journal(SMALL);
    fill(&mut writer, 60);
    writer.append(FrameKind::Mark, 0, 0, b"a source that is no larger").unwrap();
    // Large enough for a segment of its own.
    writer.commit().unwrap();
    writer.append(FrameKind::Mark, 0, 0, &[b'x'; 980]).unwrap();
    writer.commit().unwrap();
    let mut reader = JournalReader::open(dir.path(), PROCESS, "store").unwrap();
    read_all(&mut reader);
    reader.acknowledge(62).unwrap();
    drop(writer);
    assert!(remove_passed_segments(dir.path(), PROCESS, &["store"]).unwrap() > 0);
    assert_eq!(names(&segments(dir.path())), ["00000000000000000062.seg"]);
    let (_, recovered) = JournalWriter::reopen(dir.path(), PROCESS, SMALL).unwrap();
    assert_eq!((recovered.last_seq, recovered.last_source), (62, 600));
}

#[test]
fn a_number_that_a_reader_acknowledged_is_not_given_again() {
    let (dir, mut writer) = journal(SMALL);
    fill(&mut writer, 6);
    let mut reader = JournalReader::open(dir.path(), PROCESS, "store").unwrap();
    read_all(&mut reader);
    reader.acknowledge(6).unwrap();
    drop(writer);
    // As a loss of power leaves it: the position is on the disk and the frames are not.
    let path = &segments(dir.path())[0];
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(260).unwrap();
    let (mut writer, recovered) = JournalWriter::reopen(dir.path(), PROCESS, SMALL).unwrap();
    assert_eq!(recovered.last_seq, 6);
    let expected = fill(&mut writer, 2);
    assert_eq!(read_all(&mut reader), (expected, 0));
    assert_eq!(look(dir.path()).1, 4, "what the power failure took is counted");
}

#[test]
fn cut_at_every_length_the_whole_frames_stay() {
    let (dir, mut writer) = journal(SMALL);
    let expected = fill(&mut writer, 6);
    drop(writer);
    let path = segments(dir.path()).remove(0);
    let whole = fs::read(&path).unwrap();
    let mut most = 0;
    for len in 0..=whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        let (read, damaged) = look(dir.path());
        assert_eq!((read.as_slice(), damaged), (&expected[..read.len()], 0), "cut at {len}");
        assert!(read.len() >= most, "a longer file holds no fewer frames");
        most = read.len();

        let (mut writer, recovered) = JournalWriter::reopen(dir.path(), PROCESS, SMALL).unwrap();
        assert_eq!(recovered.last_seq, read.len() as u64, "cut at {len}");
        assert_eq!(fs::metadata(&path).unwrap().len() + recovered.cut_bytes, len as u64);
        let mut all = read;
        all.extend(fill(&mut writer, 2));
        assert_eq!(look(dir.path()), (all, 0), "cut at {len}");
        segments(dir.path()).iter().filter(|made| **made != path).for_each(|made| fs::remove_file(made).unwrap());
    }
    assert_eq!(most, expected.len());
}

#[test]
fn a_flip_at_any_byte_costs_one_frame_at_most() {
    let (dir, mut writer) = journal(SMALL);
    let expected = fill(&mut writer, 30);
    drop(writer);
    let paths = segments(dir.path());
    assert!(paths.len() >= 2);
    let last = paths.len() - 1;
    for (n, path) in paths.iter().enumerate() {
        let whole = fs::read(path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            fs::write(path, &flipped).unwrap();
            let (read, damaged) = look(dir.path());
            let lost: Vec<_> = expected.iter().filter(|frame| !read.iter().any(|got| got.0 == frame.0)).collect();
            assert!(lost.len() <= 1, "byte {at} of segment {n} costs {lost:?}");
            // Behind the last frame of the last segment nothing can tell a damaged frame from an unfinished one.
            let is_tail = n == last && lost.first().is_some_and(|frame| frame.0 == 30);
            let lost_resource = read.iter().any(|got| got.2.is_none());
            assert_eq!(damaged, u64::from((!lost.is_empty() && !is_tail) || lost_resource), "byte {at} of segment {n}");
            for frame in read {
                let (_, payload, resource) = &expected[frame.0 as usize - 1];
                assert_eq!(&frame.1, payload);
                assert!(frame.2.is_none() || frame.2 == *resource);
            }
        }
        fs::write(path, &whole).unwrap();
    }
}

#[test]
fn adoption_survives_a_flip_at_any_byte() {
    let (dir, mut writer) = journal(SMALL);
    fill(&mut writer, 8);
    drop(writer);
    let path = segments(dir.path()).remove(0);
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        fs::write(&path, &flipped).unwrap();
        let (mut writer, recovered) = JournalWriter::reopen(dir.path(), PROCESS, SMALL).unwrap();
        assert!(recovered.last_seq >= 7 && recovered.damaged_frames <= 1, "byte {at}: {recovered:?}");
        let new = fill(&mut writer, 2);
        let (read, damaged) = look(dir.path());
        assert_eq!(read[read.len() - 2..], new, "byte {at}");
        assert!(read.len() as u64 + damaged >= new[1].0, "byte {at}: every missing number is counted");
        segments(dir.path()).iter().filter(|made| **made != path).for_each(|made| fs::remove_file(made).unwrap());
    }
}

#[test]
fn a_zeroed_page_and_exchanged_frames_cost_no_others() {
    let (dir, mut writer) = journal(Options::default());
    for n in 0..2000 {
        writer.append(FrameKind::Ended, 0, 0, format!("frame {n:05}").as_bytes()).unwrap();
    }
    writer.commit().unwrap();
    let path = segments(dir.path()).remove(0);
    let whole = fs::read(&path).unwrap();

    let mut zeroed = whole.clone();
    zeroed[8192..12288].fill(0);
    fs::write(&path, &zeroed).unwrap();
    let (read, damaged) = look(dir.path());
    assert_eq!(read.len() as u64 + damaged, 2000);
    assert!(damaged <= 4096 / 48 + 2, "{damaged}");

    let mut exchanged = whole.clone();
    exchanged[80..128].copy_from_slice(&whole[128..176]);
    exchanged[128..176].copy_from_slice(&whole[80..128]);
    fs::write(&path, &exchanged).unwrap();
    assert_eq!(look(dir.path()).0.len(), 1999);
}

#[test]
fn foreign_segments_are_passed_over() {
    let (dir, mut writer) = journal(SMALL);
    let mut expected = fill(&mut writer, 4);
    let other = JournalWriter::create(dir.path(), "another", SMALL);
    let mut other = other.unwrap();
    other.append(FrameKind::Ended, 0, 7777, b"not ours").unwrap();
    other.commit().unwrap();
    let own = dir.path().join(PROCESS);
    let copy = own.join("00000000000000000900.seg");
    fs::copy(dir.path().join("another/00000000000000000001.seg"), own.join("00000000000000000003.seg")).unwrap();
    fs::copy(&segments(dir.path())[0], &copy).unwrap();
    assert_eq!(look(dir.path()), (expected.clone(), 0));
    drop(writer);
    let (mut writer, recovered) = JournalWriter::reopen(dir.path(), PROCESS, SMALL).unwrap();
    assert_eq!((recovered.last_seq, recovered.last_source), (4, 40));
    expected.extend(fill(&mut writer, 2));
    assert_eq!(look(dir.path()), (expected, 0));
    assert!(copy.exists());
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let (dir, mut writer) = journal(SMALL);
    fill(&mut writer, 2);
    drop(writer);
    let path = segments(dir.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 2;
    let crc = crc32c::crc32c(&bytes[..76]);
    bytes[76..80].copy_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(b"torn, as version 1 sees it");
    fs::write(&path, &bytes).unwrap();

    let error = JournalWriter::reopen(dir.path(), PROCESS, SMALL).unwrap_err();
    assert!(error.is_newer_format());
    let text = error.to_string().replace(&*path.to_string_lossy(), "PATH");
    assert_eq!(text, "PATH has format version 2, newer than 1; read it with a newer runspan");
    let mut reader = JournalReader::open(dir.path(), PROCESS, "store").unwrap();
    assert!(reader.next_batch(1000).unwrap_err().is_newer_format());
    assert!(remove_journal(dir.path(), PROCESS, &[]).unwrap_err().is_newer_format());
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn frames_inside_a_payload_do_not_pass_for_frames() {
    let (dir, mut writer) = journal(Options::default());
    let mut fake = Vec::new();
    for seq in 1..50 {
        let frame =
            segment::FrameHeader { len: 4, kind: FrameKind::Ended, flags: 0, resource: 0, seq, source: 1 << 60 };
        frame.encode(segment::salt("guessed"), b"fake", &mut fake);
    }
    writer.append(FrameKind::Ended, 0, 1, &fake).unwrap();
    writer.append(FrameKind::Ended, 0, 2, b"true").unwrap();
    writer.commit().unwrap();
    let path = segments(dir.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[81] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(look(dir.path()), (vec![(2, "true".to_owned(), None)], 1));
}

#[test]
fn segments_go_when_every_reader_has_passed_them() {
    let (dir, mut writer) = journal(SMALL);
    let expected = fill(&mut writer, 60);
    let before = segments(dir.path());
    let mut store = JournalReader::open(dir.path(), PROCESS, "store").unwrap();
    let mut forward = JournalReader::open(dir.path(), PROCESS, "forward").unwrap();
    assert_eq!(remove_passed_segments(dir.path(), PROCESS, &[]).unwrap(), 0);
    assert_eq!(remove_passed_segments(dir.path(), PROCESS, &["store", "forward"]).unwrap(), 0);
    read_all(&mut store);
    store.acknowledge(60).unwrap();
    assert_eq!(remove_passed_segments(dir.path(), PROCESS, &["store", "forward"]).unwrap(), 0);
    let batch = forward.next_batch(200).unwrap();
    forward.acknowledge(batch.last_seq()).unwrap();
    assert!(remove_passed_segments(dir.path(), PROCESS, &["store", "forward"]).unwrap() > 0);
    assert!(segments(dir.path()).len() < before.len());
    assert_eq!(read_all(&mut forward), (expected[batch.len()..].to_vec(), 0));

    // A reader that was not named comes too late for some, and knows how many.
    forward.rewind();
    remove_passed_segments(dir.path(), PROCESS, &["store"]).unwrap();
    assert_eq!(segments(dir.path()), before[before.len() - 1..]);
    let batch = forward.next_batch(10_000).unwrap();
    assert_eq!((batch.removed() + batch.len() as u64, batch.damaged()), (60 - forward.acknowledged(), 0));
}

#[test]
fn what_a_removal_leaves_is_told_before_and_no_more_goes_than_that() {
    let (dir, mut writer) = journal(SMALL);
    let expected = fill(&mut writer, 200);
    let mut store = JournalReader::open(dir.path(), PROCESS, "store").unwrap();
    read_all(&mut store);
    let remove = |enough: u64, tell: &mut dyn FnMut(u64)| {
        remove_oldest_segments(dir.path(), PROCESS, &["store"], enough, tell).unwrap();
    };
    remove(u64::MAX, &mut |_| panic!("nothing goes"));
    store.acknowledge(50).unwrap();
    for (enough, store_comes_to) in [(1, 50), (u64::MAX, 150), (1500, 150), (u64::MAX, 200)] {
        let mut told = None;
        remove(enough, &mut |first_left| {
            told = Some(first_left as usize);
            // The reader that is named goes on at its own pace.
            store.acknowledge(store_comes_to).unwrap();
        });
        assert_eq!(look(dir.path()), (expected[told.unwrap() - 1..].to_vec(), 0), "{enough} bytes");
    }
}

#[test]
fn a_reader_goes_where_it_is_told_but_not_behind_what_it_acknowledged() {
    let (dir, mut writer) = journal(SMALL);
    let expected = fill(&mut writer, 60);
    let mut reader = JournalReader::open(dir.path(), PROCESS, "store").unwrap();
    read_all(&mut reader);
    reader.acknowledge(10).unwrap();
    for (to, first) in [(50, 50), (20, 20), (20, 20), (3, 11), (61, 61)] {
        reader.seek(to);
        assert_eq!(read_all(&mut reader), (expected[first - 1..].to_vec(), 0), "{to}");
    }
    reader.seek(30);
    assert!(reader.acknowledge(30).is_err(), "it has not been handed out again");
    assert!(reader.acknowledge(29).is_ok());
}

#[test]
fn the_bound_is_an_answer_and_room_comes_back() {
    let options = Options { max_bytes: 8192, segment_bytes: 1 << 20, ..SMALL };
    let (dir, mut writer) = journal(options);
    let full = loop {
        if let Err(error) = writer.append(FrameKind::Ended, 0, 0, &[b'x'; 100]) {
            if error.is_buffer_full() {
                writer.commit().unwrap();
                continue;
            }
            break error;
        }
    };
    assert!(full.is_full(), "{full}");
    writer.commit().unwrap();
    let stored: u64 = segments(dir.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!((7000..=8192).contains(&stored), "{stored}");
    assert!(writer.append(FrameKind::Ended, 0, 0, &[b'x'; 1000]).unwrap_err().is_full());

    let mut reader = JournalReader::open(dir.path(), PROCESS, "store").unwrap();
    let (read, _) = read_all(&mut reader);
    reader.acknowledge(read.len() as u64).unwrap();
    remove_passed_segments(dir.path(), PROCESS, &["store"]).unwrap();
    writer.commit().unwrap();
    let seq = writer.append(FrameKind::Ended, 0, 0, b"again").unwrap();
    assert_eq!(seq, read.len() as u64 + 1, "what was refused took no number");
}

#[test]
fn what_cannot_be_appended_changes_nothing() {
    let (_dir, mut writer) = journal(SMALL);
    let append = |writer: &mut JournalWriter, kind, resource, payload: &[u8]| {
        writer.append(kind, resource, 0, payload).map_err(|error| error.to_string())
    };
    assert_eq!(append(&mut writer, FrameKind::Resource, 0, b""), Err("frames of kind 4 are not appended".into()));
    assert_eq!(append(&mut writer, FrameKind::Unknown(0), 0, b""), Err("frames of kind 0 are not appended".into()));
    assert_eq!(append(&mut writer, FrameKind::Ended, 9, b""), Err("resource 9 is not registered".into()));
    let huge = vec![0; MAX_PAYLOAD_BYTES + 1];
    assert!(matches!(writer.append(FrameKind::Ended, 0, 0, &huge), Err(JournalError::PayloadTooLarge { .. })));
    assert_eq!(append(&mut writer, FrameKind::Ended, 0, b"first"), Ok(1));
    for name in ["", "..", "a/b", ".new-x", "a b", &"x".repeat(33)] {
        let made = JournalWriter::create(Path::new("/nowhere"), name, SMALL);
        assert!(matches!(made, Err(JournalError::BadName { .. })), "{name}");
    }
}

#[test]
fn a_frame_larger_than_a_segment_has_one_for_itself() {
    let (dir, mut writer) = journal(SMALL);
    writer.append(FrameKind::Ended, 0, 0, b"small").unwrap();
    writer.commit().unwrap();
    writer.append(FrameKind::Ended, 0, 0, &vec![b'x'; 300_000]).unwrap();
    writer.commit().unwrap();
    writer.append(FrameKind::Ended, 0, 0, b"small").unwrap();
    writer.commit().unwrap();
    assert_eq!(segments(dir.path()).len(), 3);
    let sizes: Vec<_> = look(dir.path()).0.iter().map(|frame| frame.1.len()).collect();
    assert_eq!(sizes, [5, 300_000, 5]);
}

#[test]
fn many_resources_are_forgotten_in_the_order_of_their_use() {
    let (_dir, mut writer) = journal(Options::default());
    let first = writer.register_resource(b"first").unwrap();
    let second = writer.register_resource(b"second").unwrap();
    for n in 0..1022 {
        writer.register_resource(format!("{n}").as_bytes()).unwrap();
    }
    writer.append(FrameKind::Ended, first, 0, b"").unwrap();
    writer.register_resource(b"one more").unwrap();
    writer.append(FrameKind::Ended, first, 0, b"").unwrap();
    let forgotten = writer.append(FrameKind::Ended, second, 0, b"");
    assert!(matches!(forgotten, Err(JournalError::UnknownResource { .. })));
    assert_ne!(writer.register_resource(b"second").unwrap(), second);
    writer.commit().unwrap();
}

#[test]
fn a_journal_is_made_once_and_removed_when_it_is_read_and_its_writer_dead() {
    let (dir, mut writer) = journal(SMALL);
    assert!(matches!(JournalWriter::create(dir.path(), PROCESS, SMALL), Err(JournalError::Exists { .. })));
    fill(&mut writer, 3);
    assert!(remove_journal(dir.path(), PROCESS, &["store"]).unwrap_err().is_locked());
    drop(writer);
    let left = remove_journal(dir.path(), PROCESS, &["store"]);
    assert!(matches!(left, Err(JournalError::NotPassed { position: 0, last_seq: 3, .. })), "{left:?}");
    let mut reader = JournalReader::open(dir.path(), PROCESS, "store").unwrap();
    read_all(&mut reader);
    reader.acknowledge(3).unwrap();
    remove_journal(dir.path(), PROCESS, &["store"]).unwrap();
    assert!(reader.next_batch(1000).unwrap_err().is_gone());
    assert!(JournalWriter::reopen(dir.path(), PROCESS, SMALL).unwrap_err().is_gone());
    assert!(JournalReader::open(dir.path(), PROCESS, "store").unwrap_err().is_gone());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn leftovers_are_cleared_away_and_journals_in_the_making_are_not() {
    let dir = tempfile::tempdir().unwrap();
    for name in [".new-dead", ".gone-dead", ".new-alive"] {
        fs::create_dir_all(dir.path().join(name).join("positions")).unwrap();
        fs::write(dir.path().join(name).join("lock"), "").unwrap();
        fs::write(dir.path().join(name).join("positions/store"), "").unwrap();
    }
    fs::create_dir(dir.path().join(".new-empty")).unwrap();
    let alive = fs::File::open(dir.path().join(".new-alive/lock")).unwrap();
    alive.lock().unwrap();
    assert_eq!(list_processes(dir.path()).unwrap(), []);
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [".new-alive"]);
    assert_eq!(list_processes(&dir.path().join("missing")).unwrap(), []);
}

#[test]
fn who_clears_leftovers_away_keeps_nobody_from_making_a_journal() {
    let dir = tempfile::tempdir().unwrap();
    let trouble = Arc::new(Trouble::default());
    (0..3).for_each(|_| trouble.next("taken", 0, 0));
    let writer = JournalWriter::create_in(trouble.clone(), dir.path(), PROCESS, SMALL).unwrap();
    let others = std::mem::take(&mut *trouble.others.lock().unwrap());
    assert_eq!(others.len(), 3);
    drop(others);
    assert_eq!(list_processes(dir.path()).unwrap().len(), 1);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "what was begun in vain is cleared away");
    drop(writer);
}

#[test]
fn a_store_removed_under_the_writer_is_noticed() {
    let (dir, mut writer) = journal(SMALL);
    fill(&mut writer, 2);
    writer.append(FrameKind::Ended, 0, 0, b"kept in memory").unwrap();
    fs::remove_dir_all(dir.path().join(PROCESS)).unwrap();
    assert!(writer.commit().unwrap_err().is_gone());
    assert!(writer.commit().unwrap_err().is_gone());
    fs::create_dir(dir.path().join(PROCESS)).unwrap();
    assert_eq!(writer.commit().unwrap(), Committed { seq: 3 });
    assert_eq!(look(dir.path()).0, [(3, "kept in memory".to_owned(), None)]);
}

#[test]
fn a_reader_keeps_up_with_a_writer_at_work() {
    let (dir, mut writer) = journal(SMALL);
    const FRAMES: u64 = 3000;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..=FRAMES {
                let id = writer.register_resource(b"service").unwrap();
                writer.append(FrameKind::Ended, id, n, format!("frame {n}").as_bytes()).unwrap();
                if n % 3 == 0 {
                    writer.commit().unwrap();
                }
            }
        });
        scope.spawn(|| {
            let mut reader = JournalReader::open(dir.path(), PROCESS, "store").unwrap();
            let mut next = 1;
            while next <= FRAMES {
                let batch = reader.next_batch(500).unwrap();
                assert_eq!((batch.damaged(), batch.removed()), (0, 0));
                for frame in batch.frames() {
                    assert_eq!((frame.seq, text(frame.payload)), (next, format!("frame {next}")));
                    assert_eq!(frame.resource.map(|bytes| &**bytes), Some(&b"service"[..]));
                    next += 1;
                }
                reader.acknowledge(batch.last_seq()).unwrap();
                remove_passed_segments(dir.path(), PROCESS, &["store"]).unwrap();
            }
        });
    });
}

/// Operation, error number, and bytes taken before it.
type Plan = Mutex<Vec<(&'static str, i32, usize)>>;

#[test]
fn a_forked_child_leaves_the_journal_to_its_parent() {
    let (dir, mut writer) = journal(SMALL);
    let expected = fill(&mut writer, 2);
    // SAFETY: the child only compares a counter, closes what it inherited, and leaves without running anything else.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = matches!(writer.commit(), Err(JournalError::Forked))
            && matches!(writer.append(FrameKind::Ended, 0, 0, b"child"), Err(JournalError::Forked));
        drop(writer);
        // SAFETY: ends the child at once, without the test harness's handlers.
        unsafe { libc::_exit(i32::from(!refused)) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0);
    assert!(list_processes(dir.path()).unwrap()[0].alive, "the child's end did not free the parent's lock");
    assert_eq!(look(dir.path()), (expected, 0));
}

/// A file system on which the next calls of some operations fail.
#[derive(Debug, Default)]
struct Trouble {
    plan: Arc<Plan>,
    /// Files that somebody else has locked the moment they were made, as who clears leftovers away does.
    others: Mutex<Vec<Box<dyn FsFile>>>,
}

impl Trouble {
    /// Lets the next `operation` fail with `errno`; a write takes `bytes` before.
    fn next(&self, operation: &'static str, errno: i32, bytes: usize) {
        self.plan.lock().unwrap().push((operation, errno, bytes));
    }

    fn file(&self, inner: Box<dyn FsFile>) -> Box<dyn FsFile> {
        Box::new(TroubledFile { inner, plan: self.plan.clone() })
    }
}

fn due(plan: &Plan, operation: &str) -> Option<(io::Error, usize)> {
    let mut plan = plan.lock().unwrap();
    let at = plan.iter().position(|(name, ..)| *name == operation)?;
    let (_, errno, bytes) = plan.remove(at);
    Some((io::Error::from_raw_os_error(errno), bytes))
}

impl Fs for Trouble {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        OsFs.create_dir(path)
    }
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        due(&self.plan, "create").map_or(Ok(()), |(error, _)| Err(error))?;
        let made = OsFs.create_new(path)?;
        if due(&self.plan, "taken").is_some() {
            let other = OsFs.open(path, Access::Read)?;
            assert!(other.try_lock(true)?);
            self.others.lock().unwrap().push(other);
        }
        Ok(self.file(made))
    }
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn FsFile>> {
        Ok(self.file(OsFs.open(path, access)?))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        OsFs.list(dir)
    }
    fn stat(&self, path: &Path) -> io::Result<Stat> {
        OsFs.stat(path)
    }
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsFs.hard_link(from, to)
    }
    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        OsFs.remove_tree(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsFs.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        due(&self.plan, "remove").map_or(Ok(()), |(error, _)| Err(error))?;
        OsFs.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        OsFs.remove_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        due(&self.plan, "sync_dir").map_or(Ok(()), |(error, _)| Err(error))?;
        OsFs.sync_dir(path)
    }

    fn touch(&self, path: &Path) -> io::Result<()> {
        OsFs.touch(path)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        OsFs.free_bytes(dir)
    }
}

#[derive(Debug)]
struct TroubledFile {
    inner: Box<dyn FsFile>,
    plan: Arc<Plan>,
}

impl FsFile for TroubledFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        due(&self.plan, "read").map_or(Ok(()), |(error, _)| Err(error))?;
        let found = self.inner.read_at(into, offset)?;
        if let Some((_, at)) = due(&self.plan, "stale") {
            // Read while it was being written: some bytes are not there yet, though later ones are.
            into[at..at + 8].fill(0);
        }
        Ok(found)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        match due(&self.plan, "write") {
            Some((error, 0)) => Err(error),
            Some((error, taken)) => {
                // The system takes what fits and fails when it is called for the rest.
                let taken = self.inner.write_at(&bytes[..taken.min(bytes.len() - 1)], offset)?;
                self.plan.lock().unwrap().insert(0, ("write", error.raw_os_error().unwrap(), 0));
                Ok(taken)
            }
            None => self.inner.write_at(bytes, offset),
        }
    }
    fn sync_data(&self) -> io::Result<()> {
        due(&self.plan, "sync").map_or(Ok(()), |(error, _)| Err(error))?;
        self.inner.sync_data()
    }
    fn stat(&self) -> io::Result<Stat> {
        self.inner.stat()
    }
    fn append(&self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.append(bytes)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        due(&self.plan, "cut").map_or(Ok(()), |(error, _)| Err(error))?;
        self.inner.set_len(len)
    }
    fn try_lock(&self, exclusive: bool) -> io::Result<bool> {
        self.inner.try_lock(exclusive)
    }
}

fn troubled_journal(options: Options) -> (TempDir, Arc<Trouble>, JournalWriter) {
    let (dir, trouble) = (tempfile::tempdir().unwrap(), Arc::new(Trouble::default()));
    let writer = JournalWriter::create_in(trouble.clone(), dir.path(), PROCESS, options).unwrap();
    (dir, trouble, writer)
}

#[test]
fn a_full_disk_keeps_the_frames_for_a_later_commit() {
    let (dir, trouble, mut writer) = troubled_journal(SMALL);
    let mut expected = fill(&mut writer, 4);
    let mut reader = JournalReader::open(dir.path(), PROCESS, "store").unwrap();
    let mut read = read_all(&mut reader).0;
    for payload in ["one", "two"] {
        let seq = writer.append(FrameKind::Ended, 0, 50, payload.as_bytes()).unwrap();
        expected.push((seq, payload.to_owned(), None));
    }
    let good = fs::metadata(&segments(dir.path())[0]).unwrap().len();
    trouble.next("write", libc::ENOSPC, 50);
    let error = writer.commit().unwrap_err();
    assert!(error.is_out_of_space() && error.is_temporary(), "{error}");
    assert_eq!(fs::metadata(&segments(dir.path())[0]).unwrap().len(), good, "cut to the last good length");
    for _ in 0..3 {
        trouble.next("write", libc::EDQUOT, 0);
        assert!(writer.commit().unwrap_err().is_out_of_space());
    }
    trouble.next("create", libc::ENOSPC, 0);
    assert!(writer.commit().unwrap_err().is_out_of_space());
    assert_eq!(segments(dir.path()).len(), 1, "attempts leave nothing behind");
    read.extend(read_all(&mut reader).0);

    let seq = writer.append(FrameKind::Ended, 0, 60, b"three").unwrap();
    expected.push((seq, "three".to_owned(), None));
    assert_eq!(writer.commit().unwrap(), Committed { seq: 7 });
    assert_eq!(look(dir.path()), (expected.clone(), 0));
    read.extend(read_all(&mut reader).0);
    assert_eq!(read, expected, "a reader at work saw each frame once");
}

#[test]
fn frames_that_wait_are_bounded() {
    let (_dir, trouble, mut writer) = troubled_journal(SMALL);
    let refused = loop {
        trouble.next("write", libc::ENOSPC, 0);
        assert!(writer.pending_bytes() == 0 || writer.commit().is_err());
        if let Err(error) = writer.append(FrameKind::Ended, 0, 0, &[b'x'; 100]) {
            break error;
        }
    };
    assert!(refused.is_buffer_full());
    assert!(writer.pending_bytes() <= 1024);
}

#[test]
fn a_failed_sync_is_never_taken_for_a_later_one() {
    let options = Options { durability: Durability::Power, ..SMALL };
    for operation in ["sync", "sync_dir", "write"] {
        let (dir, trouble, mut writer) = troubled_journal(options);
        let mut expected = if operation == "sync_dir" { Vec::new() } else { fill(&mut writer, 4) };
        let next = expected.len() as u64 + 1;
        let mut reader = JournalReader::open(dir.path(), PROCESS, "store").unwrap();
        let mut read = read_all(&mut reader).0;

        // Once: the same frames go to a fresh segment at once. The remnant cannot even be cut off.
        trouble.next(operation, libc::EIO, 40);
        trouble.next("cut", libc::EIO, 0);
        trouble.next("remove", libc::EIO, 0);
        expected.extend(fill(&mut writer, 2));
        assert_eq!(writer.given_up_segments(), 1, "{operation}");
        assert_eq!(look(dir.path()), (expected.clone(), 0), "{operation}");
        read.extend(read_all(&mut reader).0);

        // Twice: the caller hears of it, and the frames wait.
        for _ in 0..2 {
            trouble.next(if operation == "sync_dir" { "sync" } else { operation }, libc::EIO, 40);
            trouble.next("cut", libc::EIO, 0);
            trouble.next("remove", libc::EIO, 0);
        }
        writer.append(FrameKind::Ended, 0, 0, b"waits").unwrap();
        writer.commit().unwrap_err();
        read.extend(read_all(&mut reader).0);
        assert_eq!(writer.committed_seq(), next + 1);
        assert_eq!(writer.commit().unwrap(), Committed { seq: next + 2 });
        expected.push((next + 2, "waits".to_owned(), None));
        assert_eq!(look(dir.path()), (expected.clone(), 0), "{operation}");
        read.extend(read_all(&mut reader).0);
        assert_eq!(read, expected, "{operation}: a reader at work saw each frame once");

        drop(writer);
        let (mut writer, recovered) = JournalWriter::reopen(dir.path(), PROCESS, options).unwrap();
        assert_eq!((recovered.last_seq, recovered.damaged_frames), (next + 2, 0), "{operation}");
        expected.extend(fill(&mut writer, 1));
        assert_eq!(look(dir.path()), (expected, 0), "{operation}");
    }
}

#[test]
fn a_damaged_remnant_costs_nothing() {
    let options = Options { durability: Durability::Power, ..SMALL };
    let (dir, trouble, mut writer) = troubled_journal(options);
    let mut expected = fill(&mut writer, 2);
    let good = fs::metadata(&segments(dir.path())[0]).unwrap().len() as usize;
    trouble.next("sync", libc::EIO, 0);
    trouble.next("cut", libc::EIO, 0);
    expected.extend(fill(&mut writer, 2));
    // The disk kept the second frame of the failed write and not the first.
    let path = &segments(dir.path())[0];
    let mut bytes = fs::read(path).unwrap();
    bytes[good..good + 40].fill(0);
    fs::write(path, &bytes).unwrap();
    assert_eq!(look(dir.path()), (expected, 0));
}

#[test]
fn a_frame_read_in_the_middle_of_its_write_is_read_again() {
    let (dir, trouble, mut writer) = troubled_journal(SMALL);
    let mut reader = JournalReader::open_in(trouble.clone(), dir.path(), PROCESS, "store").unwrap();
    fill(&mut writer, 2);
    read_all(&mut reader);
    let expected = fill(&mut writer, 4);
    trouble.next("stale", 0, 8);
    assert_eq!(read_all(&mut reader), (expected, 0));
}

#[test]
fn a_failed_read_passes_nothing_over() {
    let (dir, trouble, mut writer) = troubled_journal(SMALL);
    let expected = fill(&mut writer, 40);
    let mut reader = JournalReader::open_in(trouble.clone(), dir.path(), PROCESS, "store").unwrap();
    let first = reader.next_batch(100).unwrap();
    trouble.next("read", libc::EIO, 0);
    reader.next_batch(10_000).unwrap_err();
    let mut read = got(&first);
    read.extend(read_all(&mut reader).0);
    assert_eq!(read, expected);
}

#[test]
fn remnants_below_an_empty_segment_do_not_count_as_committed() {
    let (dir, trouble, mut writer) = troubled_journal(SMALL);
    for payload in ["", "remnant"] {
        writer.append(FrameKind::Ended, 0, 70, payload.as_bytes()).unwrap();
    }
    // Both frames whole, but for the padding; then a second segment in which nothing stands. Neither can be removed.
    for taken in [80 + 32 + 32 + 7, 0] {
        trouble.next("write", libc::ENOSPC, taken);
        trouble.next("cut", libc::EIO, 0);
        trouble.next("remove", libc::EIO, 0);
        writer.commit().unwrap_err();
    }
    drop(writer);
    assert_eq!(look(dir.path()), (Vec::new(), 0), "no reader gets them");
    let (mut writer, recovered) = JournalWriter::reopen(dir.path(), PROCESS, SMALL).unwrap();
    assert_eq!((recovered.last_seq, recovered.last_source), (0, 0), "so whoever adopts appends them again");
    let expected = fill(&mut writer, 2);
    assert_eq!(look(dir.path()), (expected, 0));
}

#[derive(Clone, Debug)]
enum Action {
    Append(usize, u8),
    Commit,
    FailingCommit(usize, bool),
    Read(usize),
    Acknowledge,
    Rewind,
    OpenReader,
    Adopt,
    TearTail(u64),
    Flip(usize, usize, u8),
    RemovePassed,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        10 => (0..300usize, 0..3u8).prop_map(|(len, resource)| Action::Append(len, resource)),
        5 => Just(Action::Commit),
        1 => (0..500usize, any::<bool>()).prop_map(|(taken, cut)| Action::FailingCommit(taken, cut)),
        4 => (0..1000usize).prop_map(Action::Read),
        2 => Just(Action::Acknowledge),
        1 => Just(Action::Rewind),
        1 => Just(Action::OpenReader),
        1 => Just(Action::Adopt),
        1 => (0..600u64).prop_map(Action::TearTail),
        1 => (any::<usize>(), any::<usize>(), 0..8u8).prop_map(|(segment, at, bit)| Action::Flip(segment, at, bit)),
        1 => Just(Action::RemovePassed),
    ]
}

/// The journal and, beside it, what it should hold.
struct Model {
    dir: TempDir,
    trouble: Arc<Trouble>,
    writer: Option<JournalWriter>,
    reader: Option<JournalReader>,
    pending: Vec<(u64, Vec<u8>, u8)>,
    /// Everything that was ever committed and not since torn off.
    committed: BTreeMap<u64, (Vec<u8>, u8)>,
    last_batch: u64,
    delivered: u64,
    /// The numbers in the last batch.
    seen: BTreeSet<u64>,
    flips: usize,
}

impl Model {
    fn new() -> Self {
        let (dir, trouble, writer) = troubled_journal(SMALL);
        let reader = Some(JournalReader::open(dir.path(), PROCESS, "store").unwrap());
        Self {
            dir,
            trouble,
            writer: Some(writer),
            reader,
            pending: Vec::new(),
            committed: BTreeMap::new(),
            last_batch: 0,
            delivered: 0,
            seen: BTreeSet::new(),
            flips: 0,
        }
    }

    fn writer(&mut self) -> &mut JournalWriter {
        self.writer.as_mut().unwrap()
    }

    fn reader(&mut self) -> &mut JournalReader {
        self.reader.as_mut().unwrap()
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Append(len, resource) => self.append(len, resource),
            Action::Commit => self.commit(),
            Action::FailingCommit(taken, cut) => {
                self.trouble.next("write", libc::ENOSPC, taken);
                if !cut {
                    self.trouble.next("cut", libc::EIO, 0);
                    self.trouble.next("remove", libc::EIO, 0);
                }
                let failed = self.writer().commit().is_err();
                assert_eq!(failed, !self.pending.is_empty());
                self.trouble.plan.lock().unwrap().clear();
            }
            Action::Read(max_bytes) => {
                self.read(max_bytes);
            }
            Action::Acknowledge => {
                let seq = self.last_batch;
                self.reader().acknowledge(seq).unwrap();
            }
            Action::Rewind => {
                self.reader().rewind();
                self.delivered = self.reader().acknowledged();
                self.last_batch = self.delivered;
            }
            Action::OpenReader => {
                self.reader = None;
                self.reader = Some(JournalReader::open(self.dir.path(), PROCESS, "store").unwrap());
                self.delivered = self.reader().acknowledged();
                self.last_batch = self.delivered;
            }
            Action::Adopt => self.adopt(false),
            Action::TearTail(bytes) => {
                self.tear_tail(bytes);
                self.adopt(true);
            }
            Action::Flip(segment, at, bit) => self.flip(segment, at, bit),
            Action::RemovePassed => {
                remove_passed_segments(self.dir.path(), PROCESS, &["store"]).unwrap();
            }
        }
    }

    fn append(&mut self, len: usize, resource: u8) {
        let payload = vec![b'a' + resource; len];
        let id = if resource == 0 { 0 } else { self.writer().register_resource(&[resource; 20]).unwrap() };
        let next = self.writer().committed_seq() + self.pending.len() as u64 + 1;
        match self.writer().append(FrameKind::Ended, id, next, &payload) {
            Ok(seq) => {
                assert_eq!(seq, next, "numbers have no gap");
                self.pending.push((seq, payload, resource));
            }
            Err(error) => assert!(error.is_buffer_full() || error.is_full(), "{error}"),
        }
    }

    fn commit(&mut self) {
        let last = self.writer().commit().unwrap().seq;
        if let Some((seq, ..)) = self.pending.last() {
            assert_eq!(last, *seq);
        }
        self.committed.extend(self.pending.drain(..).map(|(seq, payload, resource)| (seq, (payload, resource))));
    }

    fn read(&mut self, max_bytes: usize) -> usize {
        let batch = self.reader().next_batch(max_bytes).unwrap();
        self.seen.clear();
        let pending: BTreeMap<_, _> =
            self.pending.iter().map(|(seq, payload, resource)| (*seq, (payload.clone(), *resource))).collect();
        for frame in batch.frames() {
            assert!(frame.seq > self.delivered, "in order, and each once");
            self.delivered = frame.seq;
            self.seen.insert(frame.seq);
            // A commit that failed may have left whole frames.
            let told = self.committed.get(&frame.seq).or_else(|| pending.get(&frame.seq));
            let (payload, resource) = told.expect("nothing is invented");
            assert_eq!(frame.payload, payload);
            match frame.resource {
                Some(bytes) => assert_eq!(**bytes, [*resource; 20]),
                None => assert!(*resource == 0 || self.flips > 0),
            }
        }
        self.last_batch = batch.last_seq();
        batch.len()
    }

    fn adopt(&mut self, torn: bool) {
        self.writer = None;
        let (writer, recovered) =
            JournalWriter::reopen_in(self.trouble.clone(), self.dir.path(), PROCESS, SMALL).unwrap();
        self.writer = Some(writer);
        // Frames of a failed commit may turn out to be there after all.
        for (seq, payload, resource) in self.pending.drain(..) {
            if seq <= recovered.last_seq {
                self.committed.insert(seq, (payload, resource));
            }
        }
        let lost = self.committed.split_off(&(recovered.last_seq + 1));
        let seen_for_nothing = self.delivered > recovered.last_seq;
        // A flip in the last frames looks like a torn write.
        assert!(torn || lost.len() <= self.flips, "{lost:?}");
        assert!(torn || self.flips > 0 || self.committed.keys().last().is_none_or(|seq| *seq == recovered.last_seq));
        if !lost.is_empty() || seen_for_nothing {
            // What a reader saw of the lost frames, and of those of a failed commit, in memory is gone with its process.
            self.act(Action::OpenReader);
        }
    }

    fn tear_tail(&mut self, bytes: u64) {
        self.reader = None;
        if let Some(path) = segments(self.dir.path()).last() {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            let len = file.metadata().unwrap().len();
            file.set_len(len.saturating_sub(bytes)).unwrap();
        }
        self.reader = Some(JournalReader::open(self.dir.path(), PROCESS, "store").unwrap());
        self.delivered = self.reader().acknowledged();
        self.last_batch = self.delivered;
        // Whatever can still be read is what is there now; the rest of the committed frames may be torn.
        let there: Vec<_> = look(self.dir.path()).0.into_iter().map(|frame| frame.0).collect();
        let keep = there.last().copied().unwrap_or(0).max(self.delivered);
        self.committed.retain(|seq, _| *seq <= keep);
        self.flips += 1;
    }

    fn flip(&mut self, segment: usize, at: usize, bit: u8) {
        let paths = segments(self.dir.path());
        let Some(path) = paths.get(segment % paths.len().max(1)) else { return };
        let mut bytes = fs::read(path).unwrap();
        if !bytes.is_empty() {
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            // In place: the writer has the file open.
            fs::OpenOptions::new().write(true).open(path).unwrap().set_len(bytes.len() as u64).unwrap();
            std::os::unix::fs::FileExt::write_all_at(
                &fs::OpenOptions::new().write(true).open(path).unwrap(),
                &bytes[at..=at],
                at as u64,
            )
            .unwrap();
            self.flips += 1;
        }
    }

    /// Reads to the end; everything that was committed behind where it began comes, but for what the faults hit.
    fn drain(&mut self) {
        let begin = self.delivered.max(self.last_batch);
        let mut missing = self.committed.clone().split_off(&(begin + 1));
        loop {
            let batch_begin = self.delivered;
            if self.read(200) == 0 {
                break;
            }
            for seq in batch_begin + 1..=self.delivered {
                if self.seen.contains(&seq) {
                    missing.remove(&seq);
                }
            }
        }
        assert!(missing.len() <= self.flips, "{:?} lost by {} faults", missing.keys(), self.flips);
    }

    fn finish(mut self) {
        self.commit();
        self.drain();
        self.act(Action::Rewind);
        self.drain();
        self.act(Action::OpenReader);
        self.drain();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]
    #[test]
    fn the_journal_agrees_with_its_model(actions in prop::collection::vec(action(), 1..80)) {
        let mut model = Model::new();
        for action in actions {
            model.act(action);
        }
        model.finish();
    }
}
