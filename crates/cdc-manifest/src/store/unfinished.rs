//! Uploads in parts that ended early. A store keeps and bills their parts until they are aborted,
//! so one that could not be aborted, the store being away, is remembered until it can.

use std::sync::{Mutex, PoisonError};

use object_store::MultipartUpload;

use super::LakeStore;

/// Uploads remembered at most; the bucket's own rule must see to the rest.
const UNFINISHED_MAX: usize = 1024;

/// The uploads of one lake and process that wait to be aborted.
#[derive(Debug, Default)]
pub(super) struct Unfinished(Mutex<Vec<Box<dyn MultipartUpload>>>);

impl Unfinished {
    fn push(&self, upload: Box<dyn MultipartUpload>) {
        // the list is whole whatever a thread did that held it
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < UNFINISHED_MAX {
            waiting.push(upload);
        } else {
            tracing::warn!(
                "too many unfinished uploads; the bucket's lifecycle rule must end them"
            );
        }
    }

    fn pop(&self) -> Option<Box<dyn MultipartUpload>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

/// An upload that is remembered unless it is finished, whatever becomes of the task that sends it.
#[derive(Debug)]
pub(super) struct OpenUpload<'l> {
    upload: Option<Box<dyn MultipartUpload>>,
    unfinished: &'l Unfinished,
}

impl<'l> OpenUpload<'l> {
    pub(super) fn new(lake: &'l LakeStore, upload: Box<dyn MultipartUpload>) -> Self {
        Self { upload: Some(upload), unfinished: &lake.unfinished }
    }

    pub(super) fn get(&mut self) -> Option<&mut dyn MultipartUpload> {
        match &mut self.upload {
            Some(upload) => Some(upload.as_mut()),
            None => None,
        }
    }

    /// The object stands: there is nothing to abort.
    pub(super) fn finish(mut self) {
        self.upload = None;
    }
}

impl Drop for OpenUpload<'_> {
    fn drop(&mut self) {
        if let Some(upload) = self.upload.take() {
            self.unfinished.push(upload);
        }
    }
}

impl LakeStore {
    /// Aborts uploads of this process that ended early. One that cannot be aborted now waits for
    /// the next call; uploads of a killed process are left to the bucket's lifecycle rule.
    pub async fn abort_unfinished(&self) {
        while let Some(mut upload) = self.unfinished.pop() {
            match upload.abort().await {
                // an upload that the store no longer knows has ended
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => {
                    tracing::debug!(%error, "an upload could not be aborted yet");
                    self.unfinished.push(upload);
                    return;
                }
            }
        }
    }
}
