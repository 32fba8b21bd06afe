//! The engine of one process and the session of one request: bounded, without files, tables,
//! functions or settings that were not put there on purpose.

use std::sync::Arc;
use std::time::Duration;

use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList,
    MemorySchemaProvider, SchemaProvider, TableProvider,
};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::context::SessionContext;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::object_store::{ObjectStoreRegistry, ObjectStoreUrl};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::SessionConfig;
use object_store::ObjectStore;
use object_store::memory::InMemory;

use crate::functions;
use crate::{Error, Result};

/// Bounds of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryLimits {
    /// Memory for all queries of the process together.
    pub memory_bytes: u64,
    /// Time for one query, from planning to its last batch.
    pub timeout: Duration,
    /// Threads that scan and compute for one query.
    pub parallelism: usize,
}

impl Default for QueryLimits {
    /// The defaults of the configuration, on all processors of the machine.
    fn default() -> Self {
        let parallelism = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { memory_bytes: 256 * 1024 * 1024, timeout: Duration::from_secs(30), parallelism }
    }
}

/// What queries share: memory, and nothing else. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    runtime: Arc<RuntimeEnv>,
    limits: QueryLimits,
}

/// The catalog of a session.
const CATALOG: &str = "lake";
/// The schema of names that were written without one. Not a name that PostgreSQL would store.
const BARE: &str = "\u{1}";

/// A table under the name that the request's SQL uses.
#[derive(Debug)]
pub(crate) struct NamedTable {
    /// `None` for a name written without schema.
    pub(crate) schema: Option<String>,
    pub(crate) name: String,
    pub(crate) provider: Arc<dyn TableProvider>,
}

impl Engine {
    /// An engine with these bounds.
    ///
    /// # Errors
    /// [`Error::Engine`] when the runtime cannot be built.
    pub fn new(limits: QueryLimits) -> Result<Engine> {
        let bytes = usize::try_from(limits.memory_bytes).unwrap_or(usize::MAX);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(bytes)))
            .with_disk_manager_builder(
                DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled),
            )
            .with_object_store_registry(Arc::new(NoStores))
            .build_arc()
            .map_err(|source| Error::Engine { operation: "start", source })?;
        Ok(Engine { runtime, limits })
    }

    /// The bounds.
    pub fn limits(&self) -> &QueryLimits {
        &self.limits
    }

    /// A session that knows these tables and the functions of the allow-list.
    pub(crate) fn session(&self, tables: Vec<NamedTable>) -> Result<SessionContext> {
        let state = SessionStateBuilder::new()
            .with_config(self.config())
            .with_runtime_env(self.runtime.clone())
            .with_catalog_list(catalog(tables).map_err(|error| Error::engine("plan", error))?)
            .with_expr_planners(SessionStateDefaults::default_expr_planners())
            .with_scalar_functions(functions::scalar())
            .with_aggregate_functions(functions::aggregate())
            .with_window_functions(functions::window())
            .build();
        Ok(SessionContext::new_with_state(state))
    }

    fn config(&self) -> SessionConfig {
        let mut config = SessionConfig::new()
            .with_target_partitions(self.limits.parallelism)
            .with_information_schema(false)
            .with_create_default_catalog_and_schema(false)
            .with_default_catalog_and_schema(CATALOG, BARE)
            // a scan splits its files along row groups itself
            .with_repartition_file_scans(false);
        let options = config.options_mut();
        options.sql_parser.dialect = datafusion::config::Dialect::PostgreSQL;
        options.execution.time_zone = Some("UTC".to_owned());
        options.execution.parquet.pushdown_filters = true;
        options.execution.parquet.reorder_filters = true;
        config
    }
}

fn catalog(tables: Vec<NamedTable>) -> Result<Arc<dyn CatalogProviderList>, DataFusionError> {
    let lake = MemoryCatalogProvider::new();
    for NamedTable { schema, name, provider } in tables {
        let schema = schema.unwrap_or_else(|| BARE.to_owned());
        let provider_of = match lake.schema(&schema) {
            Some(known) => known,
            None => {
                let new: Arc<dyn SchemaProvider> = Arc::new(MemorySchemaProvider::new());
                lake.register_schema(&schema, new.clone())?;
                new
            }
        };
        provider_of.register_table(name, provider)?;
    }
    let list = MemoryCatalogProviderList::new();
    list.register_catalog(CATALOG.to_owned(), Arc::new(lake));
    Ok(Arc::new(list))
}

/// The URL under which scans ask for a store. Readers hold the lake's store themselves, so what is
/// found there is empty.
pub(crate) fn store_url() -> ObjectStoreUrl {
    ObjectStoreUrl::parse("lake://").expect("the constant is a URL without a path")
}

/// A registry in which no store can be registered or found.
#[derive(Debug)]
struct NoStores;

impl ObjectStoreRegistry for NoStores {
    fn register_store(
        &self,
        _url: &url::Url,
        _store: Arc<dyn ObjectStore>,
    ) -> Option<Arc<dyn ObjectStore>> {
        None
    }

    fn get_store(&self, url: &url::Url) -> datafusion::error::Result<Arc<dyn ObjectStore>> {
        if url.scheme() == "lake" {
            return Ok(Arc::new(InMemory::new()));
        }
        Err(DataFusionError::Plan("there are no object stores".to_owned()))
    }
}
