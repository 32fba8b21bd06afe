//! Failpoints: the named places of the write plane where a test ends the process, or makes a step
//! fail (docs/reliability.md lists them). Without the feature `failpoints`, which no shipped binary
//! has, the question is a constant and every place costs nothing.

#[cfg(all(feature = "failpoints", not(debug_assertions)))]
compile_error!("failpoints are for tests: an optimised build must not have them");

/// Asks the failpoint `name` what to do: whether the step behind it is to fail. A test that ends
/// the process does so inside this call.
///
/// A step whose *reply* is to be lost asks after its effect.
#[cfg(feature = "failpoints")]
pub fn failpoint(name: &str) -> bool {
    fail::fail_point!(name, |_| {
        // the harness must know that the point was reached, also where the failure heals unseen
        eprintln!("failpoint {name}: error");
        true
    });
    false
}

/// Asks nobody: this build has no failpoints.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn failpoint(_name: &str) -> bool {
    false
}

#[cfg(all(test, feature = "failpoints"))]
mod tests {
    use super::failpoint;

    #[test]
    fn only_the_chosen_hit_of_the_chosen_point_fails() {
        fail::cfg("a point", "2*off->1*return->off").unwrap();
        let hits: Vec<bool> = (0..4).map(|_| failpoint("a point")).collect();
        assert_eq!(hits, [false, false, true, false]);
        assert!(!failpoint("another point"));
    }
}
