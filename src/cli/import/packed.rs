//! Files that are packed.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

/// How gzip begins.
pub(super) const GZIP: [u8; 2] = [0x1f, 0x8b];
/// How zstd begins.
pub(super) const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Reads all members of gzip, one behind the other. Zeros behind them are passed over as gzip does it: tapes and blocks are
/// filled up with them.
pub(super) struct Gunzip<R> {
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Gunzip<R> {
    pub fn new(reader: R) -> Self {
        Self { member: Some(GzDecoder::new(reader)) }
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let read = member.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some(mut rest) = self.member.take().map(GzDecoder::into_inner) else { break };
            match after_zeros(&mut rest)? {
                None => {}
                Some(byte) if byte == GZIP[0] => self.member = Some(GzDecoder::new(rest)),
                Some(_) => {
                    let why = "behind its end there is something else, which was not read";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                }
            }
        }
        Ok(0)
    }
}

/// Passes over zeros, and returns the byte behind them.
fn after_zeros(reader: &mut impl BufRead) -> io::Result<Option<u8>> {
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(None);
        }
        if let Some(place) = bytes.iter().position(|byte| *byte != 0) {
            let byte = bytes[place];
            reader.consume(place);
            return Ok(Some(byte));
        }
        let length = bytes.len();
        reader.consume(length);
    }
}
