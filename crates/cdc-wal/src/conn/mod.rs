//! How a connection to the source is made: the URL, the credential, TLS, the socket and the
//! settings that every session pins.

mod settings;

pub use settings::{PINNED_SETTINGS, assert_pinned, pinned_options};
