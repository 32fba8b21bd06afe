//! What a proxy does to which calls. The choice is drawn from a seed, so that a run can be repeated
//! as far as the order of calls allows.

use std::collections::BTreeMap;
use std::time::Duration;

/// What is done to a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// The connection ends and the server never hears of the call.
    ResetBefore,
    /// The server never hears of the call; this status is answered.
    Refuse(u16),
    /// The server does what was asked, and the connection ends without an answer.
    ResetAfter,
    /// The server does what was asked, and no answer comes for this long; then the connection ends.
    SilentAfter(Duration),
    /// The server does what was asked, and this status is answered instead of its own.
    ErrorAfter(u16),
    /// The answer ends in the middle of its body.
    Truncate,
    /// The answer comes late.
    Slow(Duration),
    /// A precondition that does not hold is answered as if it held: a store without them.
    LieAboutConflict,
}

impl Fault {
    /// Its name in counts.
    pub(crate) fn name(self) -> String {
        match self {
            Fault::ResetBefore => "reset before".into(),
            Fault::Refuse(status) => format!("{status} before"),
            Fault::ResetAfter => "reset after".into(),
            Fault::SilentAfter(_) => "silent after".into(),
            Fault::ErrorAfter(status) => format!("{status} after"),
            Fault::Truncate => "truncated".into(),
            Fault::Slow(_) => "slow".into(),
            Fault::LieAboutConflict => "lie".into(),
        }
    }
}

/// Which calls a rule is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Which {
    /// Every call.
    All,
    /// Reads.
    Reads,
    /// Writes.
    Writes,
    /// Writes with a precondition.
    ConditionalWrites,
    /// Writes whose path or query contains this.
    WritesOf(&'static str),
}

impl Which {
    fn is_met(self, method: &str, target: &str, is_conditional: bool) -> bool {
        let is_read = matches!(method, "GET" | "HEAD");
        match self {
            Which::All => true,
            Which::Reads => is_read,
            Which::Writes => !is_read,
            Which::ConditionalWrites => !is_read && is_conditional,
            Which::WritesOf(part) => !is_read && target.contains(part),
        }
    }
}

/// Some share of some calls meets a fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    /// Which calls.
    pub(crate) which: Which,
    /// What is done to them.
    pub(crate) fault: Fault,
    /// Calls out of a hundred.
    pub(crate) percent: u32,
    /// Calls at most; none for no limit.
    pub(crate) times: Option<u32>,
}

impl Rule {
    /// Every such call.
    pub(crate) fn always(which: Which, fault: Fault) -> Self {
        Self { which, fault, percent: 100, times: None }
    }

    /// The next so many such calls.
    pub(crate) fn times(which: Which, fault: Fault, times: u32) -> Self {
        Self { which, fault, percent: 100, times: Some(times) }
    }

    /// About so many of a hundred such calls.
    pub(crate) fn some(which: Which, fault: Fault, percent: u32) -> Self {
        Self { which, fault, percent, times: None }
    }
}

/// The rules in force, the dice, and what was done so far.
#[derive(Debug)]
pub(super) struct Dice {
    rules: Vec<Rule>,
    state: u64,
    /// Calls seen.
    pub(super) calls: u64,
    /// Faults by name.
    pub(super) done: BTreeMap<String, u64>,
}

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self { rules: Vec::new(), state: seed, calls: 0, done: BTreeMap::new() }
    }

    pub(super) fn set(&mut self, rules: Vec<Rule>) {
        self.rules = rules;
    }

    /// The fault that a call meets: of the first rule that draws it.
    pub(super) fn draw(
        &mut self,
        method: &str,
        target: &str,
        is_conditional: bool,
    ) -> Option<Fault> {
        self.calls += 1;
        for index in 0..self.rules.len() {
            let rule = self.rules[index];
            if !rule.which.is_met(method, target, is_conditional) || rule.times == Some(0) {
                continue;
            }
            if self.roll() >= rule.percent {
                continue;
            }
            self.rules[index].times = rule.times.map(|times| times - 1);
            *self.done.entry(rule.fault.name()).or_default() += 1;
            return Some(rule.fault);
        }
        None
    }

    /// 0 to 99, by the generator splitmix64.
    fn roll(&mut self) -> u32 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        u32::try_from((mixed ^ (mixed >> 31)) % 100).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_met_and_limits_kept() {
        let mut dice = Dice::new(7);
        dice.set(vec![Rule::some(Which::Writes, Fault::ResetBefore, 30)]);
        let faults = (0..10_000).filter(|_| dice.draw("PUT", "/b/k", false).is_some()).count();
        assert!((2_700..3_300).contains(&faults), "{faults}");
        assert_eq!(dice.draw("GET", "/b/k", false), None);
        dice.set(vec![Rule::times(Which::WritesOf("uploadId"), Fault::Refuse(503), 2)]);
        let drawn = |dice: &mut Dice| dice.draw("PUT", "/b/k?uploadId=1", false);
        assert_eq!(drawn(&mut dice), Some(Fault::Refuse(503)));
        assert_eq!(drawn(&mut dice), Some(Fault::Refuse(503)));
        assert_eq!(drawn(&mut dice), None);
    }
}
