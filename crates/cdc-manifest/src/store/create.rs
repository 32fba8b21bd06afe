//! New objects of any size: whole, or in parts above a size. Writing the same object again is
//! harmless, so a caller that does not know how a try ended tries again.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;

use super::unfinished::OpenUpload;
use super::{LakeStore, Swap, failpoints, object_path};
use crate::{Error, Result};

/// The content of an object to be written.
#[derive(Clone)]
struct Content<R> {
    size: u64,
    read: R,
}

/// What stands under a name.
enum Standing {
    Nothing,
    Same,
    Other,
}

impl LakeStore {
    /// Writes a new object of `size` bytes that `read(start, length)` gives, on blocking threads;
    /// durable when it returns. An object that holds exactly this already is taken for an earlier
    /// try. At most `upload_concurrency` parts of the lake are in memory and on their way at once.
    ///
    /// # Errors
    /// [`Error::NameTaken`] if the name holds something else, [`Error::Content`],
    /// [`Error::Object`]: call it again if that may pass.
    pub async fn create<R>(&self, key: &str, size: u64, read: R) -> Result<()>
    where
        R: Fn(u64, usize) -> io::Result<Bytes> + Clone + Send + 'static,
    {
        let content = Content { size, read };
        if size > self.transfer.upload_part_bytes {
            self.create_in_parts(key, &content).await
        } else {
            self.create_whole(key, &content).await
        }
    }

    async fn create_whole<R>(&self, key: &str, content: &Content<R>) -> Result<()>
    where
        R: Fn(u64, usize) -> io::Result<Bytes> + Clone + Send + 'static,
    {
        let _slot = self.upload_slot().await;
        let bytes = content.range(key, 0, content.size).await?;
        match self.swap(key, bytes, None).await? {
            Swap::Stored(_) => Ok(()),
            Swap::Conflict => Err(Error::NameTaken { key: key.to_owned() }),
            Swap::Unknown(error) => Err(error),
        }
    }

    /// Completing has no precondition on every store, so what is there is looked at first.
    async fn create_in_parts<R>(&self, key: &str, content: &Content<R>) -> Result<()>
    where
        R: Fn(u64, usize) -> io::Result<Bytes> + Clone + Send + 'static,
    {
        let path = object_path(key)?;
        match self.standing(key, &path, content).await? {
            Standing::Nothing => {}
            Standing::Same => return Ok(()),
            Standing::Other => return Err(Error::NameTaken { key: key.to_owned() }),
        }
        self.abort_unfinished().await;
        let begun = self.store().put_multipart(&path).await;
        let upload = begun.map_err(|source| Error::object("begin to write", key, source))?;
        let mut upload = OpenUpload::new(self, upload);
        let sent = self.send_parts(key, content, &mut upload).await;
        if let Err(error) = sent {
            // an answer may have been lost on the way back
            let landed = matches!(error, Error::Object { operation: "complete", .. })
                && matches!(self.standing(key, &path, content).await, Ok(Standing::Same));
            if !landed {
                drop(upload);
                self.abort_unfinished().await;
                return Err(error);
            }
        }
        upload.finish();
        Ok(())
    }

    async fn send_parts<R>(
        &self,
        key: &str,
        content: &Content<R>,
        open: &mut OpenUpload<'_>,
    ) -> Result<()>
    where
        R: Fn(u64, usize) -> io::Result<Bytes> + Clone + Send + 'static,
    {
        let failed = |operation| move |source| Error::object(operation, key, source);
        let Some(upload) = open.get() else { return Ok(()) };
        let mut parts = JoinSet::new();
        for (start, end) in content.parts(self.transfer.upload_part_bytes) {
            let slot = self.upload_slot().await;
            while let Some(sent) = parts.try_join_next() {
                joined(key, sent)?;
            }
            let part =
                upload.put_part(PutPayload::from_bytes(content.range(key, start, end).await?));
            parts.spawn(async move {
                let sent = part.await;
                drop(slot);
                sent
            });
        }
        while let Some(sent) = parts.join_next().await {
            joined(key, sent)?;
        }
        let completed = upload.complete().await.and_then(|_| failpoints::complete_reply(key));
        completed.map_err(failed("complete"))
    }

    async fn upload_slot(&self) -> Option<OwnedSemaphorePermit> {
        // the semaphore is never closed, so there always is a permit
        Arc::clone(&self.upload_slots).acquire_owned().await.ok()
    }

    /// Compares what stands under the name with the content, part by part.
    async fn standing<R>(&self, key: &str, path: &Path, content: &Content<R>) -> Result<Standing>
    where
        R: Fn(u64, usize) -> io::Result<Bytes> + Clone + Send + 'static,
    {
        let failed = |source| Error::object("read", key, source);
        match self.store().head(path).await {
            Ok(found) if found.size != content.size => return Ok(Standing::Other),
            Ok(_) => {}
            Err(object_store::Error::NotFound { .. }) => return Ok(Standing::Nothing),
            Err(source) => return Err(failed(source)),
        }
        for (start, end) in content.parts(self.transfer.upload_part_bytes) {
            let _slot = self.upload_slot().await;
            let found = self.store().get_range(path, start..end).await.map_err(failed)?;
            if found != content.range(key, start, end).await? {
                return Ok(Standing::Other);
            }
        }
        Ok(Standing::Same)
    }
}

impl<R> Content<R>
where
    R: Fn(u64, usize) -> io::Result<Bytes> + Clone + Send + 'static,
{
    /// Start and end of each part.
    fn parts(&self, part_bytes: u64) -> impl Iterator<Item = (u64, u64)> + use<R> {
        let (size, step) = (self.size, part_bytes.max(1));
        (0..size.div_ceil(step)).map(move |part| (part * step, size.min((part + 1) * step)))
    }

    async fn range(&self, key: &str, start: u64, end: u64) -> Result<Bytes> {
        let length = usize::try_from(end - start).unwrap_or(usize::MAX);
        let read = self.read.clone();
        let read = tokio::task::spawn_blocking(move || read(start, length)).await;
        read.map_err(io::Error::from)
            .flatten()
            .map_err(|source| Error::Content { key: key.to_owned(), source })
    }
}

fn joined(
    key: &str,
    sent: std::result::Result<object_store::Result<()>, tokio::task::JoinError>,
) -> Result<()> {
    let sent = sent.map_err(object_store::Error::from).flatten();
    let sent = sent.and_then(|()| failpoints::part_reply(key));
    sent.map_err(|source| Error::object("write a part of", key, source))
}
