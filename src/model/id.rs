//! Ids: ULIDs for runs and events, W3C ids for traces and spans.
//!
//! Every id takes fresh randomness from the operating system. A predecessor plus one would collide between
//! processes that share a clock, and would repeat after `fork`.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::str::FromStr;
use std::sync::LazyLock;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::time::UnixNanos;

const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// The value of each digit, large or small; [`NO_DIGIT`] for all else.
const OF_CROCKFORD: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0;
    while value < CROCKFORD.len() {
        values[CROCKFORD[value] as usize] = value as u8;
        values[CROCKFORD[value].to_ascii_lowercase() as usize] = value as u8;
        value += 1;
    }
    values
};
const NO_DIGIT: u8 = u8::MAX;

macro_rules! ulid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// Makes a new id: `at` in milliseconds, then 80 fresh random bits.
            pub fn fresh(at: UnixNanos) -> Self {
                let mut random = [0; 10];
                fill_random(&mut random);
                Self::from_parts(at.millis(), random)
            }

            /// Joins 48 bits of milliseconds and 80 bits of randomness.
            pub fn from_parts(millis: u64, random: [u8; 10]) -> Self {
                let mut bytes = [0; 16];
                bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
                bytes[6..].copy_from_slice(&random);
                Self(bytes)
            }

            /// Returns the text of the id.
            fn digits(self) -> [u8; 26] {
                let mut text = [0u8; 26];
                let mut value = u128::from_be_bytes(self.0);
                for place in text.iter_mut().rev() {
                    *place = CROCKFORD[(value & 31) as usize];
                    value >>= 5;
                }
                text
            }

            /// Appends the id as JSON text.
            #[allow(dead_code, reason = "not every id is written so often that it matters")]
            pub(crate) fn write_quoted(self, out: &mut Vec<u8>) {
                out.push(b'"');
                out.extend_from_slice(&self.digits());
                out.push(b'"');
            }

            /// Returns the moment in the id, to the millisecond.
            pub fn time(self) -> UnixNanos {
                let mut millis = [0; 8];
                millis[2..].copy_from_slice(&self.0[..6]);
                UnixNanos::from_millis(u64::from_be_bytes(millis))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(std::str::from_utf8(&self.digits()).unwrap_or_default())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                let bytes = text.as_bytes();
                // The first digit holds the top 3 bits only.
                if bytes.len() != 26 || !matches!(bytes[0], b'0'..=b'7') {
                    return Err(NotAnId);
                }
                let mut value: u128 = 0;
                for byte in bytes {
                    let digit = OF_CROCKFORD[usize::from(*byte)];
                    if digit == NO_DIGIT {
                        return Err(NotAnId);
                    }
                    value = value << 5 | u128::from(digit);
                }
                Ok(Self(value.to_be_bytes()))
            }
        }

        text_serde!($name);
    };
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Makes a new random id, never all zeros.
            pub fn fresh() -> Self {
                let mut bytes = [0; $len];
                while bytes == [0; $len] {
                    fill_random(&mut bytes);
                }
                Self(bytes)
            }

            /// Reads an id from OTLP bytes; `None` when the length is wrong or all bits are zero.
            pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
                let bytes: [u8; $len] = bytes.try_into().ok()?;
                (bytes != [0; $len]).then_some(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&super::hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                let mut bytes = [0; $len];
                decode_hex(text, &mut bytes).ok_or(NotAnId)?;
                Self::from_bytes(&bytes).ok_or(NotAnId)
            }
        }

        text_serde!($name);
    };
}

macro_rules! text_serde {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a string")
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}

ulid_id! {
    /// A run's id: a ULID, 26 characters of Crockford base 32, sortable by start.
    RunId
}

ulid_id! {
    /// An event's id: a ULID.
    EventId
}

hex_id! {
    /// A W3C trace id: 16 bytes, 32 hex digits.
    TraceId, 16
}

hex_id! {
    /// A W3C span id: 8 bytes, 16 hex digits.
    SpanId, 8
}

impl RunId {
    /// Returns the trace id of a root run that this library starts: the same 128 bits.
    pub fn as_trace_id(self) -> TraceId {
        TraceId(self.0)
    }
}

impl TraceId {
    /// Returns the run id with the same 128 bits, the id of a root run whose trace this library started.
    pub fn as_run_id(self) -> RunId {
        RunId(self.0)
    }
}

/// Makes the id of a run whose trace somebody else began: the first span's moment, then 80 bits of a hash of the trace.
pub fn foreign_run_id(trace: TraceId, start_unix_nano: u64) -> RunId {
    let digest = Sha256::digest(trace.0);
    let mut bits = [0; 10];
    bits.copy_from_slice(&digest[..10]);
    RunId::from_parts(UnixNanos(start_unix_nano).millis(), bits)
}

/// Tells whether a run's id is one that [`foreign_run_id`] makes of a trace.
pub(crate) fn is_foreign_run_id(run: RunId, trace: TraceId) -> bool {
    run.0[6..] == foreign_run_id(trace, 0).0[6..]
}

/// The text is not an id of the wanted kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnId;

/// A map with ids as keys, or names. Not with numbers of the size of an address: those are not hashed, see [`IdHasher`].
pub(crate) type IdMap<K, V> = HashMap<K, V, IdHash>;
/// A set of ids.
pub(crate) type IdSet<K> = HashSet<K, IdHash>;

/// Hashes ids and names by a multiplication that begins with a number which nobody outside of this process knows, where the standard
/// hasher would take longer than all the rest of a look-up. Maps whose keys a sender makes up have bounds of their own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IdHash {
    seed: u64,
}

impl Default for IdHash {
    fn default() -> Self {
        static SEED: LazyLock<u64> = LazyLock::new(|| {
            let mut bytes = [0; 8];
            // Tests want to meet their ids in the same order every time.
            if !cfg!(test) {
                fill_random(&mut bytes);
            }
            u64::from_le_bytes(bytes)
        });
        Self { seed: *SEED }
    }
}

impl BuildHasher for IdHash {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher { state: self.seed }
    }
}

/// Hashes one id. Of a text its bytes are hashed eight at a time, its length and what a discriminant says are not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IdHasher {
    state: u64,
}

impl IdHasher {
    fn mix(&mut self, word: u64) {
        // Both halves of the product: every bit of the word reaches the bits that a table looks at.
        let product = u128::from(self.state ^ word) * 0x9e37_79b9_7f4a_7c15;
        self.state = (product as u64) ^ ((product >> 64) as u64);
    }
}

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        // Whole words are read as such: a copy of so many bytes as there are is a call of its own.
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.mix(u64::from_le_bytes(*word)));
        match (rest, bytes.last_chunk::<8>(), bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
            ([], ..) => {}
            (_, Some(last), ..) => self.mix(u64::from_le_bytes(*last)),
            (_, None, Some(first), Some(last)) => {
                self.mix(u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last)));
            }
            (few, ..) => self.mix(few.iter().fold(1, |word, byte| word << 8 | u64::from(*byte))),
        }
    }

    fn write_usize(&mut self, _: usize) {
        // The length of an id, the same for all in one map.
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

impl fmt::Display for NotAnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an id")
    }
}

impl std::error::Error for NotAnId {}

fn decode_hex(text: &str, into: &mut [u8]) -> Option<()> {
    let digits = text.as_bytes();
    if digits.len() != into.len() * 2 {
        return None;
    }
    for (byte, pair) in into.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = (high * 16 + low) as u8;
    }
    Some(())
}

/// Fills `out` with fresh randomness.
///
/// A small buffer a thread spares a system call an id. It is thrown away when the process has forked, so a child
/// never repeats its parent's ids.
pub fn fill_random(out: &mut [u8]) {
    const POOL: usize = 512;
    struct Pool {
        bytes: [u8; POOL],
        used: usize,
        generation: u32,
    }
    thread_local! {
        static POOLED: RefCell<Pool> = const { RefCell::new(Pool { bytes: [0; POOL], used: POOL, generation: 0 }) };
    }
    if out.len() > POOL {
        if getrandom::fill(out).is_err() {
            fallback_random(out);
        }
        return;
    }
    let generation = crate::sources::fork::generation();
    let pooled = POOLED.try_with(|pool| {
        let mut pool = pool.try_borrow_mut().ok()?;
        if pool.used + out.len() > POOL || pool.generation != generation {
            getrandom::fill(&mut pool.bytes).ok()?;
            pool.used = 0;
            pool.generation = generation;
        }
        let (start, end) = (pool.used, pool.used + out.len());
        out.copy_from_slice(&pool.bytes[start..end]);
        pool.bytes[start..end].fill(0);
        pool.used = end;
        Some(())
    });
    // The thread is going away.
    if !matches!(pooled, Ok(Some(()))) && getrandom::fill(out).is_err() {
        fallback_random(out);
    }
}

/// Hashes clock, address and a counter: only reached where the operating system gives no randomness at all, where a
/// weaker id still beats a run that is not recorded.
fn fallback_random(out: &mut [u8]) {
    use std::hash::{BuildHasher, Hasher};
    for chunk in out.chunks_mut(8) {
        let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
        hasher.write_u64(UnixNanos::now().0);
        hasher.write_usize(chunk.as_ptr() as usize);
        let bytes = hasher.finish().to_le_bytes();
        chunk.copy_from_slice(&bytes[..chunk.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        #[test]
        fn a_text_is_an_id_only_if_it_is_one_as_it_is_written(
            id in any::<[u8; 16]>(), at in 0..32_usize, odd in prop_oneof![any::<char>(), proptest::char::range('!', 'z')], text in "\\PC{0,40}|[0-9A-Za-z]{15,33}",
        ) {
            prop_assert_eq!(RunId(id).to_string().parse(), Ok(RunId(id)));
            let changed = [RunId(id).to_string(), TraceId(id).to_string(), TraceId(id).to_string()[..16].to_owned()];
            let changed = changed.map(|mut text| {
                let at = at % text.len();
                text.replace_range(at..=at, odd.encode_utf8(&mut [0; 4]));
                text
            });
            for text in changed.into_iter().chain([text]) {
                if let Ok(run) = text.parse::<RunId>() {
                    prop_assert_eq!(run.to_string(), text.to_ascii_uppercase());
                }
                if let Ok(trace) = text.parse::<TraceId>() {
                    prop_assert_eq!(trace.to_string(), text.to_ascii_lowercase());
                }
                if let Ok(span) = text.parse::<SpanId>() {
                    prop_assert_eq!(span.to_string(), text.to_ascii_lowercase());
                }
            }
        }
    }

    #[test]
    fn a_ulid_keeps_its_text_and_its_time() {
        let text = "01KE9BZH80BGEY5ABZ7D0DHDQ1";
        let id: RunId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(id.time().rfc3339_millis(), "2026-01-06T10:00:00.000Z");
        assert_eq!(id.as_trace_id().to_string(), "019b92bfc5005c1de2a97f3b40d8b6e1");
        assert_eq!(text.to_lowercase().parse(), Ok(id));
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        for text in ["", "latest", "../../etc/passwd", "81KE9BZH80BGEY5ABZ7D0DHDQ1", "01KE9BZH80BGEY5ABZ7D0DHDQU"] {
            assert_eq!(text.parse::<RunId>(), Err(NotAnId), "{text}");
        }
        assert_eq!("00000000000000000000000000000000".parse::<TraceId>(), Err(NotAnId));
        assert_eq!("019b92bfc5005c1de2a97f3b40d8b6eg".parse::<TraceId>(), Err(NotAnId));
    }

    #[test]
    fn ids_of_one_millisecond_are_distinct() {
        let at = UnixNanos::from_millis(1_767_693_600_000);
        let ids: HashSet<RunId> = (0..100_000).map(|_| RunId::fresh(at)).collect();
        assert_eq!(ids.len(), 100_000);
    }
}
