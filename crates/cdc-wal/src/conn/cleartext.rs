//! Looks at the login that tokio-postgres does: a request for the password in clear must not be
//! answered on a connection that others can read.

/// The authentication request that asks for the password in clear
/// (<https://www.postgresql.org/docs/current/protocol-message-formats.html>).
const CLEARTEXT_PASSWORD: [u8; 4] = [0, 0, 0, 3];
/// Type and length of a message.
const HEADER_BYTES: usize = 5;
/// Bytes that tell which authentication is asked for: the header and the code behind it.
const REQUEST_BYTES: usize = HEADER_BYTES + 4;

/// The server asked for the password in clear and was not given it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the server asks for the password in clear over an unencrypted connection; hint: use sslmode=require"
)]
pub(super) struct CleartextRefused;

/// Follows the server's messages up to its first authentication request, in whatever pieces they
/// arrive.
#[derive(Debug, Default)]
pub(super) struct LoginWatch {
    /// What arrived of the message being looked at, as far as it matters.
    head: Vec<u8>,
    /// Bytes of a message of another type that are still to come.
    skip: usize,
    is_done: bool,
}

impl LoginWatch {
    /// Whether the kind of authentication is known, so that no further byte matters.
    pub(super) fn is_done(&self) -> bool {
        self.is_done
    }

    /// Takes the next bytes of the server.
    pub(super) fn see(&mut self, mut bytes: &[u8]) -> Result<(), CleartextRefused> {
        while !self.is_done && !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let wanted =
                if self.head.first() == Some(&b'R') { REQUEST_BYTES } else { HEADER_BYTES };
            let taken = (wanted - self.head.len()).min(bytes.len());
            self.head.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            self.judge()?;
        }
        Ok(())
    }

    fn judge(&mut self) -> Result<(), CleartextRefused> {
        let length: Option<[u8; 4]> =
            self.head.get(1..HEADER_BYTES).and_then(|b| b.try_into().ok());
        let Some(length) = length else { return Ok(()) };
        if self.head[0] != b'R' {
            // such as NegotiateProtocolVersion; an error ends the login anyway
            self.skip = (u32::from_be_bytes(length) as usize).saturating_sub(4);
            self.head.clear();
        } else if let Some(request) = self.head.get(HEADER_BYTES..REQUEST_BYTES) {
            self.is_done = true;
            if request == CLEARTEXT_PASSWORD {
                return Err(CleartextRefused);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEARTEXT: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
    const SASL: &[u8] = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0";
    const NEGOTIATE: &[u8] = b"v\0\0\0\x0c\0\0\0\x03\0\0\0\0";

    fn watch(chunks: &[&[u8]]) -> (Result<(), CleartextRefused>, bool) {
        let mut watch = LoginWatch::default();
        let seen = chunks.iter().try_for_each(|chunk| watch.see(chunk));
        (seen, watch.is_done())
    }

    #[test]
    fn a_request_for_the_password_in_clear_is_seen_in_any_pieces() {
        for size in 1..=CLEARTEXT.len() {
            let chunks: Vec<&[u8]> = CLEARTEXT.chunks(size).collect();
            assert_eq!(watch(&chunks), (Err(CleartextRefused), true), "{size}");
        }
        assert_eq!(watch(&[NEGOTIATE, CLEARTEXT]), (Err(CleartextRefused), true));
        let joined = [NEGOTIATE, CLEARTEXT].concat();
        for size in 1..=joined.len() {
            let chunks: Vec<&[u8]> = joined.chunks(size).collect();
            assert_eq!(watch(&chunks), (Err(CleartextRefused), true), "{size}");
        }
    }

    #[test]
    fn other_logins_go_on_and_are_not_watched_further() {
        assert_eq!(watch(&[SASL]), (Ok(()), true));
        assert_eq!(watch(&[SASL, CLEARTEXT]), (Ok(()), true));
        assert_eq!(watch(&[NEGOTIATE]), (Ok(()), false));
        assert_eq!(watch(&[b"R\0\0\0\x08\0\0"]), (Ok(()), false));
    }
}
