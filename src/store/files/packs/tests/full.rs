//! A disk without a byte to spare: runs go out of packs all the same, and the disk gets its space back.

use std::path::Path;

use super::super::room;
use super::space::{NOW, before, clean, pack_bytes, runs, write_pack};
use super::*;
use crate::store::files::cleanup::{Options, cleanup};

/// A store on a disk with room enough for now.
fn store() -> FaultyFs {
    let fs = super::space::store();
    fs.set_free(Some(1 << 30));
    fs
}

/// How long the file is that keeps room.
fn kept(fs: &FaultyFs) -> u64 {
    let path = Path::new("/store/packs").join(room::NAME);
    fs.files().get(path.to_str().unwrap()).map_or(0, |bytes| bytes.len() as u64)
}

#[test]
fn one_run_goes_out_of_a_pack_on_a_disk_with_no_byte_free_whenever_a_kill_comes() {
    let take_out = |crash_at: Option<u64>, end| {
        let fs = store();
        write_pack(&fs, 0..RUNS);
        fs.set_free(Some(0));
        let from = fs.count();
        fs.plan(Plan { crash_at: crash_at.map(|step| from + step), ..Plan::default() });
        let cleaned = cleanup(&layout(&fs), &before(1), Options::default(), NOW, || true);
        if crash_at.is_none() {
            let cleaned = cleaned.unwrap();
            assert_eq!((cleaned.removed.len(), cleaned.stayed), (1, Vec::new()));
        }
        (fs.count() - from, fs.restart(end))
    };
    let full = take_out(None, End::Kill);
    let left: Vec<u8> = (1..RUNS).collect();
    assert_eq!(runs(&full.1), left);
    for end in [End::Kill, End::PowerLoss] {
        for step in (1..=full.0).step_by(3) {
            let (_, fs) = take_out(Some(step), end);
            let found = runs(&fs);
            assert!(found == left || found == (0..RUNS).collect::<Vec<_>>(), "{end:?} {step}: {found:?}");
            // And goes on where it was, without a byte more.
            clean(&fs, &before(1));
            assert_eq!(runs(&fs), left, "{end:?} {step}");
        }
    }
    // With room again it is kept for the next time.
    let (fs, whole) = (full.1, kept(&take_out(Some(1), End::Kill).1));
    assert!(kept(&fs) < whole, "{} of {whole}", kept(&fs));
    fs.set_free(Some(1 << 30));
    clean(&fs, &Policy::default());
    assert_eq!((kept(&fs), problems(&fs)), (whole, Vec::new()));
}

#[test]
fn packs_are_written_anew_on_a_disk_with_no_byte_free_one_after_the_other() {
    let fs = store();
    // The newest in each stay.
    (0..3).for_each(|pack| write_pack(&fs, (0..40).map(|nth| 3 * nth + pack)));
    let full = pack_bytes(&fs);
    // Less than what all that is left takes at a time, and enough for any of them.
    let file = fs.shared().open(&Path::new("/store/packs").join(room::NAME), Access::ReadWrite).unwrap();
    file.set_len(3 * 4096 + 16_384).unwrap();
    fs.set_free(Some(0));
    let cleaned = clean(&fs, &before(90));
    assert_eq!((cleaned.removed.len(), cleaned.stayed.len()), (90, 0));
    assert_eq!((cleaned.packs_rewritten, cleaned.packs_written, cleaned.packs_pending_bytes), (3, 3, 0), "{cleaned:?}");
    assert_eq!(runs(&fs), (90..120).collect::<Vec<_>>());
    assert!(pack_bytes(&fs) < full / 3, "{} of {full}", pack_bytes(&fs));
}

#[test]
fn room_is_kept_where_there_is_much_more_as_long_as_there_are_packs() {
    let fs = store();
    fs.set_free(Some(200_000));
    write_pack(&fs, 0..RUNS);
    assert_eq!(kept(&fs), 0, "who writes to the disk needs it more");
    fs.set_free(Some(2_000_000));
    clean(&fs, &Policy::default());
    assert!(kept(&fs) >= 65_536);
    // It is no part of a store, and nothing is wrong without it.
    assert_eq!(problems(&fs), [""; 0]);
    fs.shared().remove_file(&Path::new("/store/packs").join(room::NAME)).unwrap();
    assert_eq!((runs(&fs).len(), problems(&fs)), (usize::from(RUNS), Vec::new()));
    clean(&fs, &Policy::default());
    assert!(kept(&fs) >= 65_536);
    clean(&fs, &before(200));
    assert_eq!(fs.shared().list(Path::new("/store/packs")).unwrap().len(), 0);
}

#[test]
fn what_would_not_be_enough_is_not_given_away() {
    let fs = store();
    write_pack(&fs, 0..RUNS);
    let file = fs.shared().open(&Path::new("/store/packs").join(room::NAME), Access::ReadWrite).unwrap();
    file.set_len(4096).unwrap();
    fs.set_free(Some(0));
    let full = || -> std::io::Result<()> { Err(std::io::Error::from_raw_os_error(libc::ENOSPC)) };
    room::with_room(&*fs.shared(), Path::new("/store/packs"), 8192, full).unwrap_err();
    assert_eq!(kept(&fs), 4096);
    // What fails all the same ends with it.
    file.set_len(8192).unwrap();
    fs.set_free(Some(0));
    room::with_room(&*fs.shared(), Path::new("/store/packs"), 10, full).unwrap_err();
    assert_eq!(kept(&fs), 0);
    // A file that may not get longer is not helped by room.
    file.set_len(8192).unwrap();
    let too_long = || -> std::io::Result<()> { Err(std::io::Error::from_raw_os_error(libc::EFBIG)) };
    room::with_room(&*fs.shared(), Path::new("/store/packs"), 10, too_long).unwrap_err();
    assert_eq!(kept(&fs), 8192);
}
