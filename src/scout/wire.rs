//! Frames on the socket between daemon and scout: a length of four bytes, little-endian, and that many bytes of postcard.
//! Both ends are one binary, so there is no version.
//!
//! * To the scout: `(AskId, Question)`.
//! * From the scout: `(AskId, Option<Answer>)`. `None`: a process of its own works on it, and its answer may take as
//!   long as the file is big.

use postcard::ser_flavors::Flavor;
use serde::Serialize;

/// The longest frame: a name is at most 255 bytes, a path 4096, a part of a listing about 8 KiB.
const FRAME_MAX: usize = 1 << 20;

const LENGTH: usize = 4;

struct Append<'a>(&'a mut Vec<u8>);

impl Flavor for Append<'_> {
    type Output = ();

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Appends a frame.
///
/// # Errors
/// The value cannot be written or is too long; nothing was appended then.
pub(super) fn put<T: Serialize>(out: &mut Vec<u8>, value: &T) -> Result<(), Malformed> {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH]);
    let result = postcard::serialize_with_flavor(value, Append(out));
    let length = out.len() - start - LENGTH;
    let slot = out.get_mut(start..start + LENGTH);
    match (result, slot, u32::try_from(length)) {
        (Ok(()), Some(slot), Ok(bytes)) if length <= FRAME_MAX => {
            slot.copy_from_slice(&bytes.to_le_bytes());
            Ok(())
        }
        _ => {
            out.truncate(start);
            Err(Malformed)
        }
    }
}

/// What arrived is no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Takes the first frame off `bytes`; `None` if it is not complete yet.
///
/// # Errors
/// Too long to be one.
pub(super) fn take<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Malformed> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*length) as usize;
    if length > FRAME_MAX {
        return Err(Malformed);
    }
    let Some((frame, rest)) = rest.split_at_checked(length) else {
        return Ok(None);
    };
    *bytes = rest;
    Ok(Some(frame))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_whole_or_not_at_all() {
        let mut bytes = Vec::new();
        put(&mut bytes, &(7u64, "seven")).unwrap();
        put(&mut bytes, &(8u64, "")).unwrap();
        for end in 0..bytes.len() {
            let mut rest = &bytes[..end];
            let first = take(&mut rest).unwrap();
            assert_eq!(first.is_some(), end >= 11, "{end}");
        }
        let mut rest = bytes.as_slice();
        let first: (u64, &str) = postcard::from_bytes(take(&mut rest).unwrap().unwrap()).unwrap();
        let second: (u64, &str) = postcard::from_bytes(take(&mut rest).unwrap().unwrap()).unwrap();
        assert_eq!((first, second), ((7, "seven"), (8, "")));
        assert_eq!(take(&mut rest), Ok(None));
        assert_eq!(take(&mut [0xff; 8].as_slice()), Err(Malformed));
    }

    #[test]
    fn too_long_is_refused_and_leaves_nothing() {
        let mut bytes = vec![1];
        assert_eq!(put(&mut bytes, &vec![0u8; FRAME_MAX + 1]), Err(Malformed));
        assert_eq!(bytes, [1]);
    }
}
