//! What the receiver of an error does next, the same words in every crate.

/// The class of an error. Retry, stop and exit code are decided from it and from nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// May succeed if tried again: a cut connection, a busy server, a full queue.
    Transient,
    /// Somebody else changed the object first: read again, rebase, try again.
    Conflict,
    /// The request, the configuration or the source is wrong and stays so until somebody acts.
    Invalid,
    /// The caller may not do this.
    Denied,
    /// The named object does not exist.
    NotFound,
    /// Stored bytes contradict themselves or what they must agree with.
    Corrupt,
    /// The position asked for no longer exists at the source: changes would be lost.
    Gap,
    /// A service that the operator configured cannot be reached.
    Unreachable,
    /// A defect of pgcdc.
    Internal,
}

/// An error and its sources on one line, for the one place that reports it.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
