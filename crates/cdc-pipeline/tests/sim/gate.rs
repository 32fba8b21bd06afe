//! A runtime whose every step follows from the seed.
//!
//! One thread runs all tasks under paused time. Blocking jobs have a thread too, but never run
//! beside it: they wait until the runtime has nothing left to do, then run one after the other while
//! it waits for them. So whoever asks whether a job is done always gets the same answer.
//!
//! ```text
//! runtime:  tasks … tasks, nothing ready ──waits──────────────▶ tasks …
//! blocking:            (new thread waits) ──▶ job, job, end ──┘
//! ```

use std::cell::Cell;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use tokio::runtime::{Builder, Runtime};

thread_local! {
    static IS_BLOCKING: Cell<bool> = const { Cell::new(false) };
}

/// Whether the caller is a blocking job: nothing else runs meanwhile, and time stands still.
pub(crate) fn is_blocking_job() -> bool {
    IS_BLOCKING.get()
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Turn {
    /// The runtime runs, and there is no blocking thread.
    #[default]
    Runtime,
    /// The runtime runs; a blocking thread has jobs and waits for its turn.
    Asked,
    /// The blocking thread runs; the runtime waits.
    Blocking,
    /// The runtime is going away: nobody waits any more.
    Over,
}

#[derive(Default)]
struct Gate {
    turn: Mutex<Turn>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, from: Turn, to: Turn) {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if *turn == from {
            *turn = to;
            self.changed.notify_all();
        }
    }

    /// Called by the runtime when nothing is ready.
    fn let_jobs_run(&self) {
        self.set(Turn::Asked, Turn::Blocking);
        self.wait_while(Turn::Blocking);
    }

    fn wait_while(&self, held: Turn) {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(turn, |turn| *turn == held));
    }
}

/// The runtime and what ends it.
pub(crate) struct GatedRuntime {
    runtime: Option<Runtime>,
    gate: Arc<Gate>,
}

impl GatedRuntime {
    pub(crate) fn new() -> std::io::Result<GatedRuntime> {
        let gate = Arc::new(Gate::default());
        let [spawning, starting, stopping, parking] = std::array::from_fn(|_| gate.clone());
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .max_blocking_threads(1)
            .thread_keep_alive(std::time::Duration::ZERO)
            // the name is asked for by whoever hands in a job that needs a new thread
            .thread_name_fn(move || {
                spawning.set(Turn::Runtime, Turn::Asked);
                "sim-blocking".to_owned()
            })
            .on_thread_start(move || {
                IS_BLOCKING.set(true);
                starting.wait_while(Turn::Asked);
            })
            .on_thread_stop(move || stopping.set(Turn::Blocking, Turn::Runtime))
            .on_thread_park(move || parking.let_jobs_run())
            .build()?;
        Ok(GatedRuntime { runtime: Some(runtime), gate })
    }

    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        self.runtime.as_ref().map(|runtime| runtime.block_on(future))
    }
}

impl Drop for GatedRuntime {
    fn drop(&mut self) {
        {
            let mut turn = self.gate.turn.lock().unwrap_or_else(PoisonError::into_inner);
            *turn = Turn::Over;
            self.gate.changed.notify_all();
        }
        drop(self.runtime.take());
    }
}
