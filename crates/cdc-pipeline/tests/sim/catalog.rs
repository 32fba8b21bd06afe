//! The catalog as a daemon sees it, over the in-memory one that all share.

use std::sync::Arc;

use async_trait::async_trait;
use cdc_iceberg::{Catalog, CreateOutcome, Error, MemoryCatalog, Result, SwapOutcome, TableIdent};

use crate::store::{Fate, draw_fate, latency};
use crate::world::{Life, World, sleep_ms};

/// One daemon's connection to the catalog.
pub(crate) struct FaultCatalog {
    inner: Arc<MemoryCatalog>,
    world: Arc<World>,
    life: Arc<Life>,
}

impl std::fmt::Debug for FaultCatalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FaultCatalog({})", self.life.number)
    }
}

impl FaultCatalog {
    pub(crate) fn new(inner: Arc<MemoryCatalog>, world: Arc<World>, life: Arc<Life>) -> Self {
        Self { inner, world, life }
    }

    async fn travel(&self) {
        self.life.pass().await;
        sleep_ms(self.world.chance(latency)).await;
    }

    fn lost(&self) -> Error {
        Error::Catalog {
            catalog: "sim".into(),
            operation: "reach",
            object: "the network".into(),
            transient: true,
            source: "no answer".into(),
        }
    }
}

async fn apply(
    catalog: &MemoryCatalog,
    world: &World,
    by: u32,
    ident: &TableIdent,
    expected: &str,
    new: &str,
) -> Result<SwapOutcome> {
    let outcome = catalog.swap(ident, expected, new).await;
    let word = if matches!(outcome, Ok(SwapOutcome::Swapped)) { "swapped" } else { "refused" };
    world.log(format_args!("catalog {by} {ident} {word} {new}"));
    outcome
}

#[async_trait]
impl Catalog for FaultCatalog {
    async fn ensure_namespace(&self, namespace: &str) -> Result<()> {
        self.inner.ensure_namespace(namespace).await
    }

    async fn pointer(&self, ident: &TableIdent) -> Result<Option<String>> {
        self.travel().await;
        self.life.pass().await;
        let faults = self.world.faults();
        if self.world.chance(|rng| rng.ppm(faults.catalog_before)) {
            return Err(self.lost());
        }
        self.inner.pointer(ident).await
    }

    async fn create(&self, ident: &TableIdent, metadata_location: &str) -> Result<CreateOutcome> {
        self.inner.create(ident, metadata_location).await
    }

    async fn swap(&self, ident: &TableIdent, expected: &str, new: &str) -> Result<SwapOutcome> {
        self.travel().await;
        let (by, world) = (self.life.number, &*self.world);
        let faults = world.faults();
        let rates = [
            faults.catalog_before,
            faults.catalog_after,
            faults.catalog_late,
            faults.catalog_twice,
        ];
        let fate = world.chance(|rng| draw_fate(rng, rates));
        if self.life.burns_down() {
            world.log(format_args!("kill {by} at swap of {ident}"));
            self.life.kill();
            if world.chance(|rng| rng.percent(50)) {
                let _ = apply(&self.inner, world, by, ident, expected, new).await;
            }
        }
        self.life.pass().await;
        match fate {
            Fate::Well => apply(&self.inner, world, by, ident, expected, new).await,
            Fate::FailsBefore => {
                world.log(format_args!("catalog {by} lost {ident}"));
                Ok(SwapOutcome::Unknown(self.lost()))
            }
            Fate::FailsAfter => {
                let _ = apply(&self.inner, world, by, ident, expected, new).await;
                Ok(SwapOutcome::Unknown(self.lost()))
            }
            Fate::Late(delay) => {
                world.log(format_args!("catalog {by} late {ident} {delay}"));
                let (inner, world) = (Arc::clone(&self.inner), Arc::clone(&self.world));
                let (ident, expected, new) = (ident.clone(), expected.to_owned(), new.to_owned());
                tokio::spawn(async move {
                    sleep_ms(delay).await;
                    let _ = apply(&inner, &world, by, &ident, &expected, &new).await;
                });
                Ok(SwapOutcome::Unknown(self.lost()))
            }
            Fate::Twice => {
                let _ = apply(&self.inner, world, by, ident, expected, new).await;
                apply(&self.inner, world, by, ident, expected, new).await
            }
        }
    }

    async fn list(&self, namespace: &str) -> Result<Vec<TableIdent>> {
        self.inner.list(namespace).await
    }

    async fn drop_table(&self, ident: &TableIdent) -> Result<bool> {
        self.inner.drop_table(ident).await
    }
}
