//! Failpoints: the named places of the write plane where a test ends the process, or makes a step
//! fail (docs/reliability.md lists them). Without the feature `failpoints`, which no shipped binary
//! has, the question is a constant and every place costs nothing.
//!
//! There is no dependency behind them: one more would change the features of the crates below, and
//! everything would be built twice.

#[cfg(all(feature = "failpoints", not(debug_assertions)))]
compile_error!("failpoints are for tests: a release build must not have them");

/// Asks the failpoint `name` what to do: whether the step behind it is to fail. A test that ends
/// the process does so inside this call.
///
/// A step whose *reply* is to be lost asks after its effect.
#[cfg(feature = "failpoints")]
pub fn failpoint(name: &str) -> bool {
    armed::ask(name)
}

/// Asks nobody: this build has no failpoints.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn failpoint(_name: &str) -> bool {
    false
}

#[cfg(feature = "failpoints")]
pub use armed::{ArmedFailpoint, arm_failpoints};

#[cfg(any(test, feature = "failpoints"))]
#[cfg_attr(
    not(feature = "failpoints"),
    expect(unreachable_pub, reason = "the tests build it without the feature that exports it")
)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static ARMED: OnceLock<Vec<ArmedFailpoint>> = OnceLock::new();

    /// What one hit of one failpoint does.
    #[derive(Debug)]
    pub struct ArmedFailpoint {
        point: String,
        hit: u64,
        action: fn(&str) -> bool,
        hits: AtomicU64,
    }

    impl ArmedFailpoint {
        /// At hit number `hit`, from 1, of `point` the `action` is given the point's name, and says
        /// whether the step fails.
        pub fn new(point: &str, hit: u64, action: fn(&str) -> bool) -> Self {
            Self { point: point.to_owned(), hit, action, hits: AtomicU64::new(0) }
        }
    }

    /// Arms these failpoints of this process; false if some were armed before, which stay.
    pub fn arm_failpoints(points: Vec<ArmedFailpoint>) -> bool {
        ARMED.set(points).is_ok()
    }

    pub(super) fn ask(name: &str) -> bool {
        let armed = ARMED.get().into_iter().flatten().filter(|armed| armed.point == name);
        let mut fails = false;
        for armed in armed {
            let hit = armed.hits.fetch_add(1, Ordering::Relaxed) + 1;
            fails |= hit == armed.hit && (armed.action)(name);
        }
        fails
    }
}

#[cfg(test)]
mod tests {
    use super::armed::{ArmedFailpoint, arm_failpoints, ask};

    #[test]
    fn only_the_chosen_hit_of_the_chosen_point_fails() {
        assert!(arm_failpoints(vec![ArmedFailpoint::new("a point", 3, |_| true)]));
        let hits: Vec<bool> = (0..4).map(|_| ask("a point")).collect();
        assert_eq!(hits, [false, false, true, false]);
        assert!(!ask("another point"));
    }
}
