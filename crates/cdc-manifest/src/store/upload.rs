//! A multipart upload into a temporary file, durable when it completes.

use std::io::{self, Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::FutureExt;
use object_store::{Error, MultipartUpload, PutMode, PutPayload, PutResult, Result, UploadPart};

use super::durable::{Target, blocking, generic};
use super::temp::TempFile;

/// Parts go to the offsets at which they were handed in; dropping it removes what was written.
#[derive(Debug)]
pub(super) struct DurableUpload {
    /// Taken by the end of the upload. Parts hold the lock while they write, on blocking threads.
    temp: Arc<Mutex<Option<TempFile>>>,
    target: Target,
    offset: u64,
}

impl DurableUpload {
    pub(super) fn new(temp: TempFile, target: Target) -> Self {
        Self { temp: Arc::new(Mutex::new(Some(temp))), target, offset: 0 }
    }
}

fn aborted() -> Error {
    let source = io::Error::other("the upload has ended");
    Error::Generic { store: "DurableFs", source: source.into() }
}

fn take(temp: &Mutex<Option<TempFile>>) -> Result<TempFile> {
    // a part that panicked leaves a file of unknown content, so a poisoned lock ends the upload
    temp.lock().ok().and_then(|mut temp| temp.take()).ok_or_else(aborted)
}

fn write_at(temp: &Mutex<Option<TempFile>>, offset: u64, data: &PutPayload) -> Result<()> {
    let guard = temp.lock().map_err(|_| aborted())?;
    let mut file = guard.as_ref().ok_or_else(aborted)?.file();
    let mut write = || {
        file.seek(SeekFrom::Start(offset))?;
        data.iter().try_for_each(|chunk| file.write_all(chunk))
    };
    write().map_err(|error| generic("a part of an upload".as_ref(), error))
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let offset = self.offset;
        self.offset += data.content_length() as u64;
        let temp = self.temp.clone();
        blocking(move || write_at(&temp, offset, &data)).boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let (temp, target) = (self.temp.clone(), self.target.clone());
        blocking(move || target.place(take(&temp)?, &PutMode::Overwrite)).await
    }

    async fn abort(&mut self) -> Result<()> {
        let temp = self.temp.clone();
        blocking(move || take(&temp).map(drop)).await
    }
}
