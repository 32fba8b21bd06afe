//! The one road to a decision: the policy of one version in memory, looked up again as soon as the
//! backend's version moved, and no answer at all once the backend has not answered for too long.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cdc_core::Clock;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use crate::effective::{administers, effective, explain, next_boundary};
use crate::{
    Caller, EnforcementPlane, Error, Explanation, IntentRegistry, Policy, PolicySettings,
    Principal, ResourceId, Result, TableShape, Verdict,
};

/// Decisions that are remembered; with one more all are forgotten.
const DECISIONS_MAX: usize = 4096;
/// How far the stored time may lag behind, in seconds.
const TIME_LAG_SECONDS_MAX: i64 = 60;

/// A backend: where intent is kept and where it is enforced.
#[derive(Clone)]
pub struct Backend {
    /// Intent.
    pub registry: Arc<dyn IntentRegistry>,
    /// Enforcement.
    pub plane: Arc<dyn EnforcementPlane>,
}

/// How long what was read may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    /// How often the policy version is looked at. A change reaches readers within this and one read.
    pub poll: Duration,
    /// After this the policy is read anew even if its version stayed, and a policy that could not be
    /// confirmed is no longer used.
    pub ttl: Duration,
    /// For how long beyond `ttl` a policy is used while the backend does not answer.
    pub grace: Duration,
}

impl Default for CacheOptions {
    fn default() -> Self {
        let (poll, ttl) = (Duration::from_millis(500), Duration::from_secs(60));
        Self { poll, ttl, grace: Duration::ZERO }
    }
}

/// Decides for callers, from a policy that it keeps up to date.
pub struct PolicyEngine {
    backend: Backend,
    settings: PolicySettings,
    options: CacheOptions,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

impl fmt::Debug for PolicyEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyEngine").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    polled_at: Option<Instant>,
    /// The latest time, and when it was.
    time: Option<(DateTime<Utc>, Instant)>,
    /// The time that the backend remembers.
    time_stored: Option<DateTime<Utc>>,
    decisions: HashMap<DecisionKey, Remembered>,
}

/// A policy and for how long it may be used.
struct Held {
    policy: Arc<Policy>,
    /// When it was read.
    read_at: Instant,
    /// When the backend last said that its version is still the current one.
    confirmed_at: Instant,
}

#[derive(PartialEq, Eq, Hash)]
struct DecisionKey {
    principals: Vec<Principal>,
    table: ResourceId,
    relation: u32,
    schema_version: u32,
    policy_version: u64,
}

struct Remembered {
    verdict: Arc<Verdict>,
    /// The caller's next grant begins or ends then.
    until: Option<DateTime<Utc>>,
}

impl PolicyEngine {
    /// An engine that has read nothing yet.
    pub fn new(
        backend: Backend,
        settings: PolicySettings,
        options: CacheOptions,
        clock: Arc<dyn Clock>,
    ) -> PolicyEngine {
        PolicyEngine { backend, settings, options, clock, state: Mutex::default() }
    }

    /// The deployment's policy version, as decisions use it now.
    ///
    /// # Errors
    /// If the backend cannot be read and what was read before is too old.
    pub async fn policy_version(&self) -> Result<u64> {
        Ok(self.policy().await?.version())
    }

    /// Decides what a caller may see of a table; `None` for a table that the lake does not have. An
    /// unreadable policy is [`Verdict::Unavailable`], whether there is such a table or not.
    pub async fn resolve(&self, caller: &Caller, table: Option<&TableShape>) -> Arc<Verdict> {
        let policy = self.policy().await.ok();
        let now = self.now(policy.as_deref());
        let (Some(policy), Some(table)) = (&policy, table) else {
            let policy = policy.as_deref();
            return Arc::new(effective(policy, &self.settings, caller, table, now));
        };
        let key = DecisionKey {
            principals: caller.principals().into_iter().cloned().collect(),
            table: table.resource(),
            relation: table.relation,
            schema_version: table.schema_version,
            policy_version: policy.version(),
        };
        if let Some(known) = self.state().decisions.get(&key)
            && known.until.is_none_or(|until| now < until)
        {
            return Arc::clone(&known.verdict);
        }
        let verdict = effective(Some(policy), &self.settings, caller, Some(table), now);
        let verdict = Arc::new(verdict);
        let until = next_boundary(policy, caller, now);
        self.remember(policy, key, Remembered { verdict: Arc::clone(&verdict), until });
        verdict
    }

    /// The tables that exist for a caller, in the order given.
    ///
    /// # Errors
    /// If the policy cannot be read.
    pub async fn visible_tables<'t>(
        &self,
        caller: &Caller,
        tables: &'t [TableShape],
    ) -> Result<Vec<(&'t TableShape, Arc<Verdict>)>> {
        self.policy().await?;
        let mut visible = Vec::new();
        for table in tables {
            let verdict = self.resolve(caller, Some(table)).await;
            if matches!(*verdict, Verdict::Allow(_)) {
                visible.push((table, verdict));
            }
        }
        Ok(visible)
    }

    /// Says why a caller sees what he sees. For administrators.
    ///
    /// # Errors
    /// If the policy cannot be read.
    pub async fn explain(&self, caller: &Caller, table: &TableShape) -> Result<Explanation> {
        let policy = self.policy().await?;
        let now = self.now(Some(&policy));
        Ok(explain(&policy, &self.settings, caller, table, now))
    }

    /// Whether a caller administers a database. An unreadable policy makes nobody an administrator.
    pub async fn administers(&self, caller: &Caller, database: &ResourceId) -> bool {
        let Ok(policy) = self.policy().await else { return false };
        let now = self.now(Some(&policy));
        administers(&policy, caller, database, now)
    }

    /// Makes sure that decisions use at least a policy version that another process has seen.
    ///
    /// # Errors
    /// [`Error::StalePolicy`] if the backend does not have it yet.
    pub async fn catch_up(&self, known: u64) -> Result<()> {
        let held = self.policy().await?.version();
        if held >= known {
            return Ok(());
        }
        self.state().polled_at = None;
        let found = self.policy().await?.version();
        if found >= known { Ok(()) } else { Err(Error::StalePolicy { found, known }) }
    }

    /// The policy as decisions use it now.
    ///
    /// # Errors
    /// If the backend cannot be read and what was read before is too old.
    pub async fn policy(&self) -> Result<Arc<Policy>> {
        let started = Instant::now();
        if !self.is_poll_due(started)
            && let Some(policy) = self.usable(started)
        {
            return Ok(policy);
        }
        match self.refresh(started).await {
            Ok(policy) => Ok(policy),
            // asked again, for the refresh may have taken long
            Err(error) => self.usable(Instant::now()).ok_or(error),
        }
    }

    /// Whether it is time to look at the version. Says yes to one asker only.
    fn is_poll_due(&self, now: Instant) -> bool {
        let mut state = self.state();
        let is_due = state.polled_at.is_none_or(|at| now.duration_since(at) >= self.options.poll);
        if is_due {
            state.polled_at = Some(now);
        }
        is_due
    }

    /// The policy that is held, if it was confirmed lately enough.
    fn usable(&self, now: Instant) -> Option<Arc<Policy>> {
        let state = self.state();
        let held = state.held.as_ref()?;
        let age = now.duration_since(held.confirmed_at);
        (age < self.options.ttl + self.options.grace).then(|| Arc::clone(&held.policy))
    }

    async fn refresh(&self, started: Instant) -> Result<Arc<Policy>> {
        let found = self.backend.registry.policy_version().await?;
        if let Some(policy) = self.confirm(found, started)? {
            self.store_time(&policy).await?;
            return Ok(policy);
        }
        // in this order: what is enforced may be newer than the intent, and both must admit
        let intent = self.backend.registry.load().await?;
        let enforced = self.backend.plane.read().await?;
        let policy = self.hold(Arc::new(Policy::new(intent, enforced)), started)?;
        self.store_time(&policy).await?;
        Ok(policy)
    }

    /// Takes note that a version is still the current one; `None` if the policy must be read anew.
    fn confirm(&self, found: u64, started: Instant) -> Result<Option<Arc<Policy>>> {
        let mut state = self.state();
        let Some(held) = &mut state.held else { return Ok(None) };
        let known = held.policy.version();
        if found < known {
            return Err(Error::StalePolicy { found, known });
        }
        if found > known || started.duration_since(held.read_at) >= self.options.ttl {
            return Ok(None);
        }
        held.confirmed_at = started.max(held.confirmed_at);
        Ok(Some(Arc::clone(&held.policy)))
    }

    /// Puts a policy in the place of the one that is held, unless that is newer.
    fn hold(&self, policy: Arc<Policy>, started: Instant) -> Result<Arc<Policy>> {
        let mut state = self.state();
        if let Some(held) = &state.held
            && held.policy.version() > policy.version()
        {
            let (found, known) = (policy.version(), held.policy.version());
            return Err(Error::StalePolicy { found, known });
        }
        state.decisions.clear();
        state.time_stored = Some(policy.time_high_water);
        let held = Held { policy: Arc::clone(&policy), read_at: started, confirmed_at: started };
        state.held = Some(held);
        Ok(policy)
    }

    /// Keeps a decision, unless its policy was replaced meanwhile: what is enforced may have changed
    /// under the same version.
    fn remember(&self, policy: &Arc<Policy>, key: DecisionKey, remembered: Remembered) {
        let mut state = self.state();
        if !state.held.as_ref().is_some_and(|held| Arc::ptr_eq(&held.policy, policy)) {
            return;
        }
        if state.decisions.len() >= DECISIONS_MAX {
            state.decisions.clear();
        }
        state.decisions.insert(key, remembered);
    }

    /// The time for decisions. It goes on at least as fast as it really does, so that a clock which
    /// is set back, or stands, extends nothing.
    fn now(&self, policy: Option<&Policy>) -> DateTime<Utc> {
        let wall = self.clock.now();
        let stored = policy.map_or(wall, |policy| policy.time_high_water.max(wall));
        let instant = Instant::now();
        let mut state = self.state();
        let steady = state.time.map(|(time, at)| {
            let passed = TimeDelta::from_std(instant.duration_since(at)).unwrap_or(TimeDelta::MAX);
            time.checked_add_signed(passed).unwrap_or(DateTime::<Utc>::MAX_UTC)
        });
        let now = steady.map_or(stored, |steady| steady.max(stored));
        state.time = Some((now, instant));
        now
    }

    /// Lets the backend remember the time, once it lags.
    async fn store_time(&self, policy: &Policy) -> Result<()> {
        let now = self.now(Some(policy));
        let stored = self.state().time_stored.unwrap_or(policy.time_high_water);
        if now - stored < TimeDelta::seconds(TIME_LAG_SECONDS_MAX) {
            return Ok(());
        }
        self.backend.registry.advance_time(now).await?;
        self.state().time_stored = Some(now);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // what a panic left behind is whole: every field is replaced in one assignment
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
