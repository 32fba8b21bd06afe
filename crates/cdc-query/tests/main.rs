//! Reads lakes that the tests write.

#![expect(clippy::unwrap_used, reason = "a failed test should panic, in helpers too")]

mod lake;
mod reading;
mod refusing;
mod shop;
