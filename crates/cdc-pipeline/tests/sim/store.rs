//! The object store as a daemon sees it: memory that never forgets, behind a network that does
//! everything a network does.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};

use crate::check::Watch;
use crate::gate::is_blocking_job;
use crate::world::{Life, World, sleep_ms};

/// The objects that may change under their name.
const MUTABLE: [&str; 3] = ["manifest.json", "refs.json", "live.json"];

/// What is durable, shared by all daemons of a seed.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) objects: Arc<InMemory>,
    pub(crate) world: Arc<World>,
    pub(crate) watch: Arc<Watch>,
}

/// One daemon's connection to it.
#[derive(Clone)]
pub(crate) struct FaultStore {
    disk: Disk,
    life: Arc<Life>,
}

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Well,
    FailsBefore,
    FailsAfter,
    Late(u64),
    Twice,
}

impl fmt::Debug for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultStore({})", self.life.number)
    }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fault store")
    }
}

fn failed(what: &str) -> Error {
    Error::Generic { store: "fault store", source: what.to_owned().into() }
}

impl Disk {
    /// Applies a write and looks at what it did.
    async fn put(
        &self,
        by: u32,
        path: &Path,
        payload: PutPayload,
        mode: PutMode,
    ) -> Result<PutResult> {
        let key = path.as_ref();
        let is_mutable = MUTABLE.contains(&key);
        let known = !is_mutable && self.objects.head(path).await.is_ok();
        let bytes: Bytes = payload.clone().into();
        let verb = match &mode {
            PutMode::Overwrite => "put",
            PutMode::Create => "create",
            PutMode::Update(_) => "update",
        };
        let done = self.objects.put_opts(path, payload, PutOptions::from(mode)).await;
        let outcome = if done.is_ok() { "ok" } else { "refused" };
        let content = if key.ends_with(".parquet") { digest(&bytes) } else { 0 };
        self.world.log(format_args!("store {by} {verb} {key} {outcome} {content:08x}"));
        if done.is_ok() {
            if known {
                self.world.violation(format!("object {key} was written twice"));
            }
            self.watch.stored(&self.world, key, &bytes);
        }
        done
    }
}

fn digest(bytes: &[u8]) -> u32 {
    use std::hash::Hasher;
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(bytes);
    u32::try_from(hasher.finish() & u64::from(u32::MAX)).unwrap_or(0)
}

impl FaultStore {
    pub(crate) fn new(disk: Disk, life: Arc<Life>) -> FaultStore {
        FaultStore { disk, life }
    }

    fn world(&self) -> &World {
        &self.disk.world
    }

    /// The way of a request to the store. False if it was lost there.
    async fn arrive(&self) -> bool {
        let faults = self.world().faults();
        let lost = self.world().chance(|rng| rng.ppm(faults.store_before));
        if is_blocking_job() {
            return !lost;
        }
        self.life.pass().await;
        sleep_ms(self.world().chance(latency)).await;
        // an outage has no effect on a process that is gone by then
        self.life.pass().await;
        if self.life.burns_down() {
            self.world().log(format_args!("kill {} at the store", self.life.number));
            self.life.kill();
            self.life.pass().await;
        }
        !lost
    }

    fn fate(&self) -> Fate {
        let faults = self.world().faults();
        let rates =
            [faults.store_before, faults.store_after, faults.store_late, faults.store_twice];
        self.world().chance(|rng| draw_fate(rng, rates))
    }
}

/// Milliseconds to the store or the catalog and back: mostly a few, sometimes a second.
pub(crate) fn latency(rng: &mut crate::rng::Rng) -> u64 {
    if rng.percent(2) { rng.between(100, 1500) } else { rng.between(1, 12) }
}

pub(crate) fn draw_fate(rng: &mut crate::rng::Rng, rates: [u64; 4]) -> Fate {
    let [before, after, late, twice] = rates;
    let drawn = rng.below(1_000_000);
    let delay = rng.between(50, 20_000);
    match drawn {
        at if at < before => Fate::FailsBefore,
        at if at < before + after => Fate::FailsAfter,
        at if at < before + after + late => Fate::Late(delay),
        at if at < before + after + late + twice => Fate::Twice,
        _ => Fate::Well,
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.life.pass().await;
        sleep_ms(self.world().chance(latency)).await;
        let by = self.life.number;
        let fate = self.fate();
        // a request that was on its way when its process died may arrive
        let is_killed = self.life.burns_down();
        if is_killed {
            self.world().log(format_args!("kill {by} at write of {location}"));
            self.life.kill();
            if self.world().chance(|rng| rng.percent(50)) {
                let _ = self.disk.put(by, location, payload, options.mode).await;
            }
            self.life.pass().await;
            return Err(failed("killed"));
        }
        self.life.pass().await;
        match fate {
            Fate::Well => self.disk.put(by, location, payload, options.mode).await,
            Fate::FailsBefore => {
                self.world().log(format_args!("store {by} lost {location}"));
                Err(failed("the request was lost"))
            }
            Fate::FailsAfter => {
                let _ = self.disk.put(by, location, payload, options.mode).await;
                Err(failed("the answer was lost"))
            }
            Fate::Late(delay) => {
                self.world().log(format_args!("store {by} late {location} {delay}"));
                let (disk, location) = (self.disk.clone(), location.clone());
                tokio::spawn(async move {
                    sleep_ms(delay).await;
                    let _ = disk.put(by, &location, payload, options.mode).await;
                });
                Err(failed("the request timed out"))
            }
            Fate::Twice => {
                let _ = self.disk.put(by, location, payload.clone(), options.mode.clone()).await;
                if options.mode == PutMode::Overwrite && !MUTABLE.contains(&location.as_ref()) {
                    return Err(failed("the answer was lost"));
                }
                self.disk.put(by, location, payload, options.mode).await
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        _location: &Path,
        _options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(failed("the simulation makes no file that is large enough for parts"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if !self.arrive().await {
            return Err(failed("the read was lost"));
        }
        let faults = self.world().faults();
        let mut found = self.disk.objects.get_opts(location, options).await?;
        if self.world().chance(|rng| rng.ppm(faults.store_before)) {
            let broken =
                futures::stream::iter([Ok(Bytes::new()), Err(failed("the body ended too early"))]);
            found.payload = GetResultPayload::Stream(broken.boxed());
        }
        Ok(found)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let world = self.disk.world.clone();
        locations
            .map(move |location| {
                let location = location?;
                world.violation(format!("object {location} was deleted"));
                Ok(location)
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.disk.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        if !self.arrive().await {
            return Err(failed("the listing was lost"));
        }
        self.disk.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _from: &Path, _to: &Path, _options: CopyOptions) -> Result<()> {
        Err(failed("the write plane's stream copies nothing"))
    }
}
