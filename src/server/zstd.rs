//! Bodies compressed with zstd: frame by frame, each within a window that is accounted for before it is made.

use std::io::{self, Read};

use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use super::budget::{NoRoom, Share};

/// The largest window that a frame may ask for. Senders use up to 8 MiB unless they are told to go to great lengths.
pub(super) const MAX_WINDOW_BYTES: u64 = 32 << 20;

/// Why a body cannot be decompressed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadFrame {
    /// There is no room for its window now.
    NoRoom,
    /// It is not zstd, or asks for more than it may.
    Wrong(String),
}

/// Reads all frames of a body, one behind the other.
pub(super) struct Frames<'a> {
    decoder: Option<StreamingDecoder<&'a [u8], FrameDecoder>>,
    rest: &'a [u8],
    /// What the window takes.
    share: Share,
}

impl<'a> Frames<'a> {
    /// Begins with the first frame.
    pub fn new(body: &'a [u8], share: Share) -> Result<Self, BadFrame> {
        let mut frames = Self { decoder: None, rest: body, share };
        frames.open()?;
        Ok(frames)
    }

    fn open(&mut self) -> Result<(), BadFrame> {
        let wrong = |why: String| BadFrame::Wrong(why);
        self.rest = after_skippable(self.rest);
        if self.rest.is_empty() {
            return Ok(());
        }
        let window = window_bytes(self.rest).ok_or_else(|| wrong("it is not a zstd frame".to_owned()))?;
        if window > MAX_WINDOW_BYTES {
            let why =
                format!("its window has {window} bytes, and may have {MAX_WINDOW_BYTES}: compress at a lower level");
            return Err(wrong(why));
        }
        // The decoder goes some way beyond its window before it lets go of what is old.
        let room = usize::try_from(window).unwrap_or(usize::MAX).saturating_add(256 << 10);
        self.share = self.share.fresh();
        self.share.grow(room).map_err(|NoRoom| BadFrame::NoRoom)?;
        let decoder = StreamingDecoder::new_with_max_window_size(self.rest, MAX_WINDOW_BYTES);
        self.decoder = Some(decoder.map_err(|error| wrong(error.to_string()))?);
        Ok(())
    }
}

impl Read for Frames<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.decoder {
            let read = decoder.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            self.rest = self.decoder.take().map(StreamingDecoder::into_inner).unwrap_or_default();
            self.open().map_err(|bad| match bad {
                BadFrame::NoRoom => io::ErrorKind::OutOfMemory.into(),
                BadFrame::Wrong(why) => io::Error::new(io::ErrorKind::InvalidData, why),
            })?;
        }
        Ok(0)
    }
}

/// Passes over frames that hold nothing to decompress.
fn after_skippable(mut body: &[u8]) -> &[u8] {
    while let Some(([kind, 0x2a, 0x4d, 0x18, length @ ..], rest)) = body.split_first_chunk::<8>()
        && kind >> 4 == 5
    {
        let length = u32::from_le_bytes(*length) as usize;
        body = rest.get(length..).unwrap_or_default();
    }
    body
}

/// Returns the window that a frame's header asks for; `None` where it is not one.
fn window_bytes(frame: &[u8]) -> Option<u64> {
    let ([0x28, 0xb5, 0x2f, 0xfd, descriptor], rest) = frame.split_first_chunk::<5>()? else { return None };
    let is_single = descriptor & 0x20 != 0;
    if !is_single {
        let byte = *rest.first()?;
        let base = 1u64 << (10 + u32::from(byte >> 3));
        return Some(base + base / 8 * u64::from(byte & 7));
    }
    // Without a window the content is one, and says how long it is behind the dictionary's id.
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let length = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let mut bytes = [0; 8];
    bytes.get_mut(..length)?.copy_from_slice(rest.get(dictionary..dictionary + length)?);
    let size = u64::from_le_bytes(bytes);
    Some(if length == 2 { size + 256 } else { size })
}

#[cfg(test)]
mod tests {
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;
    use crate::server::budget::Budget;

    fn read(body: &[u8], budget: usize) -> Result<Vec<u8>, String> {
        let budget = Budget::new(budget);
        let mut frames = Frames::new(body, budget.share()).map_err(|bad| format!("{bad:?}"))?;
        let mut out = Vec::new();
        frames.read_to_end(&mut out).map_err(|error| error.to_string())?;
        drop(frames);
        assert_eq!(budget.taken(), 0, "all is given back");
        Ok(out)
    }

    #[test]
    fn frames_stand_behind_each_other_and_between_what_is_skipped() {
        let packed = |text: &str| compress_to_vec(text.as_bytes(), CompressionLevel::Fastest);
        let skipped = [&[0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        let (one, two) = ("one ".repeat(100_000), "two ".repeat(10));
        let body = [&skipped[..], &packed(&one), &skipped, &packed(&two), &skipped].concat();
        assert_eq!(read(&body, 64 << 20), Ok(format!("{one}{two}").into_bytes()));
        assert_eq!(read(b"", 0), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_frame_or_wants_too_much_is_refused() {
        // A window of 2^41 bytes and more, in five bytes.
        let vast = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0, 0, 0];
        assert!(
            read(&vast, 64 << 20).unwrap_err().contains("its window has 4123168604160 bytes, and may have 33554432")
        );
        // 8 MiB, where only one is left.
        let large = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 13 << 3, 1, 0, 0];
        assert_eq!(read(&large, 1 << 20), Err("NoRoom".to_owned()));
        assert_eq!(read(b"no zstd", 1 << 20), Err("Wrong(\"it is not a zstd frame\")".to_owned()));
        let mut broken = compress_to_vec(&b"text ".repeat(1000)[..], CompressionLevel::Fastest);
        broken.truncate(broken.len() / 2);
        assert!(read(&broken, 64 << 20).is_err());
    }
}
