//! HTTP/1.1 messages as bytes: where one ends on its connection. Nothing in them is changed, so a
//! signature over them stays right.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest head of a message.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Longest body of a message; a part of an upload is far below.
const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Header lines of a message.
const HEADERS_MAX: usize = 100;

/// A message, byte for byte.
#[derive(Debug, Default)]
pub(super) struct Message {
    pub(super) head: Vec<u8>,
    pub(super) body: Vec<u8>,
}

/// A request and what rules ask of it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) message: Message,
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    /// Whether it has a precondition.
    pub(super) is_conditional: bool,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) message: Message,
    pub(super) status: u16,
    /// Whether the connection ends with it.
    pub(super) is_last: bool,
}

/// How a body ends.
enum End {
    After(usize),
    Chunked,
    WithConnection,
}

/// Reads a request; `None` when the connection ended between two.
pub(super) async fn read_request(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<Request>> {
    let Some(head) = read_head(stream).await? else { return Ok(None) };
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    parsed.parse(&head).map_err(io::Error::other)?;
    let method = parsed.method.unwrap_or_default().to_owned();
    let target = parsed.path.unwrap_or_default().to_owned();
    let is_conditional =
        ["if-match", "if-none-match"].iter().any(|name| header(parsed.headers, name).is_some());
    let end = match end_of(parsed.headers)? {
        End::WithConnection => End::After(0),
        told => told,
    };
    let body = read_body(stream, end).await?;
    Ok(Some(Request { message: Message { head, body }, method, target, is_conditional }))
}

/// Reads the answer to a request of this method.
pub(super) async fn read_answer(
    stream: &mut (impl AsyncRead + Unpin),
    method: &str,
) -> io::Result<Answer> {
    let head = read_head(stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut headers);
    parsed.parse(&head).map_err(io::Error::other)?;
    let status = parsed.code.unwrap_or_default();
    let has_no_body = method == "HEAD" || matches!(status, 100..=199 | 204 | 304);
    let end = if has_no_body { End::After(0) } else { end_of(parsed.headers)? };
    let closes = header(parsed.headers, "connection").is_some_and(|text| text == "close");
    let is_last = closes || matches!(end, End::WithConnection);
    let body = read_body(stream, end).await?;
    Ok(Answer { message: Message { head, body }, status, is_last })
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && head.is_empty() => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        if head.len() > HEAD_BYTES_MAX {
            return Err(io::Error::other("the head of a message is too long"));
        }
    }
    Ok(Some(head))
}

fn header<'h>(headers: &[httparse::Header<'h>], name: &str) -> Option<&'h str> {
    let found = headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(found.value).ok()
}

fn end_of(headers: &[httparse::Header<'_>]) -> io::Result<End> {
    if header(headers, "transfer-encoding").is_some_and(|text| text.contains("chunked")) {
        return Ok(End::Chunked);
    }
    match header(headers, "content-length") {
        Some(text) => text.trim().parse().map(End::After).map_err(io::Error::other),
        None => Ok(End::WithConnection),
    }
}

async fn read_body(stream: &mut (impl AsyncRead + Unpin), end: End) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    match end {
        End::After(length) => append(stream, &mut body, length).await?,
        End::WithConnection => {
            stream.take(BODY_BYTES_MAX as u64).read_to_end(&mut body).await?;
        }
        End::Chunked => loop {
            let from = body.len();
            while !body[from..].ends_with(b"\r\n") {
                append(stream, &mut body, 1).await?;
            }
            let line = std::str::from_utf8(&body[from..]).map_err(io::Error::other)?;
            let digits = line.trim().split(';').next().unwrap_or_default();
            let length = usize::from_str_radix(digits, 16).map_err(io::Error::other)?;
            append(stream, &mut body, length + 2).await?;
            if length == 0 {
                break;
            }
        },
    }
    Ok(body)
}

async fn append(
    stream: &mut (impl AsyncRead + Unpin),
    body: &mut Vec<u8>,
    length: usize,
) -> io::Result<()> {
    let from = body.len();
    if from.saturating_add(length) > BODY_BYTES_MAX {
        return Err(io::Error::other("the body of a message is too long"));
    }
    body.resize(from + length, 0);
    stream.read_exact(&mut body[from..]).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(work: impl Future<Output = T>) -> Result<T, io::Error> {
        Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?.block_on(work))
    }

    #[test]
    fn messages_end_where_their_heads_say() -> io::Result<()> {
        let put =
            b"PUT /b/k?partNumber=1 HTTP/1.1\r\nIf-Match: \"x\"\r\nContent-Length: 3\r\n\r\nabcGET";
        let request = block_on(read_request(&mut put.as_slice()))??;
        let Some(request) = request else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        assert_eq!((request.method.as_str(), request.is_conditional), ("PUT", true));
        assert_eq!(
            (request.target.as_str(), request.message.body.as_slice()),
            ("/b/k?partNumber=1", b"abc".as_slice())
        );

        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nHTTP";
        let answer = block_on(read_answer(&mut chunked.as_slice(), "GET"))??;
        assert_eq!(answer.message.body, b"3\r\nabc\r\n0\r\n\r\n");
        assert!(!answer.is_last);

        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nConnection: close\r\n\r\n";
        let answer = block_on(read_answer(&mut head.as_slice(), "HEAD"))??;
        assert!(answer.message.body.is_empty() && answer.is_last);
        Ok(())
    }

    #[test]
    fn a_connection_may_end_only_between_messages() -> io::Result<()> {
        assert!(block_on(read_request(&mut b"".as_slice()))??.is_none());
        assert!(block_on(read_request(&mut b"GET / HT".as_slice()))?.is_err());
        Ok(())
    }
}
