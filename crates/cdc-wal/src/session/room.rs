//! Room for the next read in a buffer of frames.

use bytes::BytesMut;

use super::frame::frame_len;

/// Room made for one read.
const READ_BYTES: usize = 256 * 1024;
/// Less room than this is enlarged before the next read.
pub(super) const READ_BYTES_MIN: usize = 64 * 1024;
/// A frame of which so much has come is large.
const LARGE_BYTES: usize = 1024 * 1024;

/// The buffer, whose first `whole` bytes are whole frames, with room for a read; of a large frame
/// whose length is known, for what is missing of it and no more (in steps, so that a forged length
/// allocates no more than twice what arrived).
pub(super) fn with_room(buf: &mut BytesMut, whole: usize) -> &mut BytesMut {
    let spare = buf.capacity() - buf.len();
    let partial = buf.len() - whole;
    if partial < LARGE_BYTES {
        if spare < READ_BYTES_MIN {
            buf.reserve(READ_BYTES);
        }
        return buf;
    }
    let length = frame_len(&buf[whole..]).ok().flatten();
    let missing = length.map_or(0, |length| length.saturating_sub(partial));
    if spare < missing.clamp(1, READ_BYTES_MIN) {
        // growing by doubling would leave half of a buffer unused that may stay for long
        let more = missing.min(partial).max(1);
        let mut exact = BytesMut::with_capacity(buf.len() + more);
        exact.extend_from_slice(buf);
        *buf = exact;
    }
    buf
}
