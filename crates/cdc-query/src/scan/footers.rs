//! Parquet readers of one request that read each footer once, however many byte ranges a file is
//! split into, and that hold their own store: the engine's registry of stores stays empty.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::ParquetFileMetrics;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::ObjectStore;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::{AsyncFileReader, ParquetObjectReader};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use tokio::sync::OnceCell;

/// Bytes asked for at the end of a file at first: enough for the footer and page index of a usual
/// delta file in one request.
pub(crate) const FOOTER_HINT_BYTES: usize = 64 * 1024;

type Footer = Arc<OnceCell<Arc<ParquetMetaData>>>;

/// The footers of the files of one request, loaded at most once each.
pub(crate) struct Footers {
    store: Arc<dyn ObjectStore>,
    page_index: PageIndexPolicy,
    loaded: Mutex<HashMap<Path, Footer>>,
}

impl Footers {
    /// Over the lake's store. Page indexes are read along only for a scan that can use them.
    pub(crate) fn new(store: Arc<dyn ObjectStore>, filtered: bool) -> Self {
        let page_index = if filtered { PageIndexPolicy::Optional } else { PageIndexPolicy::Skip };
        Self { store, page_index, loaded: Mutex::default() }
    }

    /// The footer of a file.
    pub(crate) async fn footer(
        &self,
        path: &Path,
        file_bytes: u64,
    ) -> parquet::errors::Result<Arc<ParquetMetaData>> {
        let cell = {
            let mut loaded = self.loaded.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            loaded.entry(path.clone()).or_default().clone()
        };
        let load = || async {
            let options = ArrowReaderOptions::new().with_page_index_policy(self.page_index);
            self.reader(path, file_bytes).get_metadata(Some(&options)).await
        };
        cell.get_or_try_init(load).await.cloned()
    }

    fn reader(&self, path: &Path, file_bytes: u64) -> ParquetObjectReader {
        ParquetObjectReader::new(self.store.clone(), path.clone())
            .with_file_size(file_bytes)
            .with_footer_size_hint(FOOTER_HINT_BYTES)
    }
}

impl fmt::Debug for Footers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Footers")
    }
}

/// [`Footers`] as the engine wants them.
#[derive(Debug)]
pub(crate) struct ReaderFactory(pub(crate) Arc<Footers>);

impl ParquetFileReaderFactory for ReaderFactory {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        _metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> datafusion::error::Result<Box<dyn AsyncFileReader + Send>> {
        let (path, bytes) = (file.object_meta.location, file.object_meta.size);
        Ok(Box::new(Reader {
            inner: self.0.reader(&path, bytes),
            footers: self.0.clone(),
            metrics: ParquetFileMetrics::new(partition, path.as_ref(), metrics),
            path,
            bytes,
        }))
    }
}

struct Reader {
    inner: ParquetObjectReader,
    footers: Arc<Footers>,
    metrics: ParquetFileMetrics,
    path: Path,
    bytes: u64,
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        self.count(std::slice::from_ref(&range));
        self.inner.get_bytes(range)
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        self.count(&ranges);
        self.inner.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move { self.footers.footer(&self.path, self.bytes).await }.boxed()
    }
}

impl Reader {
    fn count(&self, ranges: &[Range<u64>]) {
        let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        self.metrics.bytes_scanned.add(usize::try_from(bytes).unwrap_or(usize::MAX));
    }
}
