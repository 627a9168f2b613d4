//! Reads a request's body within bounds: on the wire, after decompression, in time, and of all requests together.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use super::answer::{Problem, Refusal};
use super::budget::{Budget, NoRoom, Share};
use super::zstd;

/// A body is decompressed piece by piece, and the place for it accounted for before it is made.
const PIECE: usize = 64 << 10;

/// How long a client may go on sending what is not wanted, until it hears so.
pub(super) const UNWANTED_LIMIT: Duration = Duration::from_secs(2);

/// A body, and the share of memory that it takes.
#[derive(Debug)]
pub(super) struct Held {
    pub bytes: Vec<u8>,
    pub share: Share,
}

impl Held {
    /// Moves to a place of so many bytes, which is accounted for beside the old one: for a moment both are there.
    fn moved_to(self, bytes: usize) -> Result<Self, NoRoom> {
        let mut share = self.share.fresh();
        share.grow(bytes)?;
        let mut place = Vec::with_capacity(bytes);
        place.extend_from_slice(&self.bytes);
        Ok(Self { bytes: place, share })
    }
}

/// What stands before a message of gRPC: whether it is compressed, and its length.
#[derive(Debug, Default)]
pub(super) struct Head {
    bytes: [u8; Self::BYTES],
    /// How much of it has come.
    filled: usize,
}

impl Head {
    /// Bytes of a head.
    pub const BYTES: usize = 5;

    /// Takes what is its own off the beginning of what came.
    fn take(&mut self, data: &mut Bytes) {
        let own = data.split_to(data.len().min(Self::BYTES - self.filled));
        self.bytes[self.filled..self.filled + own.len()].copy_from_slice(&own);
        self.filled += own.len();
    }

    /// Returns the flag and the length, or how many bytes there are of it.
    pub fn whole(&self) -> Result<(u8, usize), usize> {
        let [flag, length @ ..] = self.bytes;
        if self.filled < Self::BYTES { Err(self.filled) } else { Ok((flag, u32::from_be_bytes(length) as usize)) }
    }
}

/// Reads all of a body, within `limit`; what stands before its message goes to `head`, where it has one.
pub(super) async fn read(
    body: &mut Incoming,
    max_bytes: usize,
    limit: Duration,
    budget: &Arc<Budget>,
    mut head: Option<&mut Head>,
) -> Result<Held, Refusal> {
    let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if declared.saturating_sub(head.as_ref().map_or(0, |_| Head::BYTES)) > max_bytes {
        return Err(too_large(max_bytes));
    }
    let mut held = Held { bytes: Vec::new(), share: budget.share() };
    // Refused before it is sent, where that can be seen.
    held.share.grow(declared).map_err(|NoRoom| busy())?;
    held.bytes.reserve(declared);
    let mut accounted = declared;
    let all = async {
        while let Some(frame) = body.frame().await {
            let frame = frame
                .map_err(|error| Refusal::new(Problem::Malformed, format!("the request's body broke off: {error}")))?;
            let Ok(mut data) = frame.into_data() else { continue };
            if let Some(head) = head.as_mut().filter(|head| head.filled < Head::BYTES) {
                head.take(&mut data);
                // The place for all of it at once: one that grows is moved, over and over.
                if let Ok((_, told)) = head.whole() {
                    if told > max_bytes {
                        return Err(too_large(max_bytes));
                    }
                    held.share.grow(told.saturating_sub(accounted)).map_err(|NoRoom| busy())?;
                    accounted = accounted.max(told);
                    held.bytes.reserve_exact(told);
                }
            }
            let length = held.bytes.len() + data.remaining();
            if length > max_bytes {
                return Err(too_large(max_bytes));
            }
            if length > accounted {
                held.share.grow(length - accounted).map_err(|NoRoom| busy())?;
                accounted = length;
            }
            held.bytes.extend_from_slice(&data);
        }
        Ok(())
    };
    match tokio::time::timeout(limit, all).await {
        Ok(read) => read.map(|()| held),
        Err(_) => Err(Refusal::new(
            Problem::TooSlow,
            format!("the request's body did not arrive within {} s", limit.as_secs()),
        )),
    }
}

/// Reads the rest of a body that was refused, and forgets it: else the connection is closed while its client still writes, which
/// the system answers with a reset, and the answer may be lost with it.
pub(super) async fn forget(mut body: Incoming, max_bytes: usize) {
    let mut left = max_bytes;
    let all = async {
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, Buf::remaining);
            let Some(less) = left.checked_sub(bytes) else { break };
            left = less;
        }
    };
    // What becomes of it is the client's matter.
    let _ = tokio::time::timeout(UNWANTED_LIMIT, all).await;
}

/// Undoes the compression of a body, as its sender names it.
pub(super) fn decompress(held: Held, encoding: &str, max_bytes: usize) -> Result<Held, Refusal> {
    // Names of codings have no case, and one that changes nothing may stand beside another.
    let named = encoding.to_ascii_lowercase();
    let mut codings = named.split(',').map(str::trim).filter(|coding| !["", "identity"].contains(coding));
    let coding = match (codings.next(), codings.next()) {
        (coding, None) => coding.unwrap_or("identity"),
        (Some(_), Some(_)) => encoding.trim(),
        (None, Some(_)) => "identity",
    };
    match coding {
        "identity" => Ok(held),
        "gzip" | "x-gzip" => unpack(flate2::bufread::MultiGzDecoder::new(&held.bytes[..]), &held.share, max_bytes),
        "zstd" => {
            let frames = zstd::Frames::new(&held.bytes, held.share.fresh()).map_err(|bad| match bad {
                zstd::BadFrame::NoRoom => busy(),
                zstd::BadFrame::Wrong(why) => {
                    Refusal::new(Problem::Malformed, format!("the request's body cannot be decompressed: {why}"))
                }
            })?;
            unpack(frames, &held.share, max_bytes)
        }
        "deflate" => unpack(flate2::bufread::ZlibDecoder::new(&held.bytes[..]), &held.share, max_bytes),
        other => {
            let other: String = other.chars().take(40).collect();
            let why = format!("content encoding {other:?} is not understood: use gzip, zstd, deflate or none");
            Err(Refusal::new(Problem::UnknownEncoding, why))
        }
    }
}

fn unpack(mut packed: impl Read, share: &Share, max_bytes: usize) -> Result<Held, Refusal> {
    let mut held = Held { bytes: Vec::new(), share: share.fresh() };
    loop {
        let begin = held.bytes.len();
        // One byte more tells that there is more.
        let piece = PIECE.min(max_bytes + 1 - begin);
        if held.bytes.capacity() < begin + piece {
            let twice = 2 * begin;
            let next = if twice < max_bytes { twice.max(begin + piece) } else { max_bytes + 1 };
            held = held.moved_to(next).map_err(|NoRoom| busy())?;
        }
        held.bytes.resize(begin + piece, 0);
        let read = packed.read(&mut held.bytes[begin..]).map_err(|error| {
            if error.kind() == std::io::ErrorKind::OutOfMemory {
                return busy();
            }
            Refusal::new(Problem::Malformed, format!("the request's body cannot be decompressed: {error}"))
        })?;
        held.bytes.truncate(begin + read);
        if read == 0 {
            return Ok(held);
        }
        if held.bytes.len() > max_bytes {
            return Err(too_large(max_bytes));
        }
    }
}

pub(super) fn too_large(max_bytes: usize) -> Refusal {
    let why = format!(
        "the request is larger than {max_bytes} bytes, which holds after decompression too: send smaller batches"
    );
    Refusal::new(Problem::TooLarge, why)
}

pub(super) fn busy() -> Refusal {
    Refusal::new(Problem::Busy, "the server has as many bytes of requests in memory as it may: come again".to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn codings_are_known_however_they_are_written() {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(b"text").unwrap();
        let packed = packed.finish().unwrap();
        let told = |coding: &str, bytes: &[u8]| {
            let held = Held { bytes: bytes.to_vec(), share: Budget::new(1 << 20).share() };
            let text = decompress(held, coding, 1 << 10).map(|held| String::from_utf8(held.bytes).unwrap());
            text.unwrap_or_else(|refusal| refusal.why)
        };
        for coding in ["gzip", "GZIP", "X-Gzip", "identity, gzip", " gzip ,", "gzip, Identity"] {
            assert_eq!(told(coding, &packed), "text", "{coding}");
        }
        for coding in ["", "Identity", ",", "identity,identity"] {
            assert_eq!(told(coding, b"text"), "text", "{coding}");
        }
        let why = r#"content encoding "gzip, gzip" is not understood: use gzip, zstd, deflate or none"#;
        assert_eq!(told("gzip, gzip", &packed), why);
    }
}
