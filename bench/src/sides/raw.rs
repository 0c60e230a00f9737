//! A file: what gathers is appended with one write and synced once, as a journal does, without anything else.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, Sender, channel};

use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Batch, Client};
use crate::error::{Error, Outcome};
use crate::process::folder;

struct Raw {
    writes: Sender<(Batch, oneshot::Sender<()>)>,
    _dir: TempDir,
}

pub(super) fn start() -> Outcome<Arc<dyn Client>> {
    let dir = folder()?;
    let file = File::create(dir.path().join("raw"))?;
    let (writes, waiting) = channel();
    std::thread::spawn(move || write(file, &waiting));
    Ok(Arc::new(Raw { writes, _dir: dir }))
}

/// Ends when there is nothing more to come, or a write fails: whoever waits then learns that nobody answers.
fn write(mut file: File, waiting: &Receiver<(Batch, oneshot::Sender<()>)>) {
    let mut buffer = Vec::new();
    while let Ok(first) = waiting.recv() {
        buffer.clear();
        let gathered: Vec<_> = std::iter::once(first).chain(waiting.try_iter()).collect();
        for (batch, _) in &gathered {
            (0..batch.messages).for_each(|_| buffer.extend_from_slice(&batch.body));
        }
        if file.write_all(&buffer).and_then(|()| file.sync_data()).is_err() {
            return;
        }
        for (_, done) in gathered {
            done.send(()).ok();
        }
    }
}

#[tonic::async_trait]
impl Client for Raw {
    async fn prepare(&self, _: usize, _: usize) -> Outcome {
        Ok(())
    }

    async fn publish(&self, _: usize, batch: &Batch) -> Outcome {
        let (done, written) = oneshot::channel();
        self.writes.send((batch.clone(), done)).map_err(Error::server)?;
        written.await.map_err(Error::server)
    }

    async fn consume(&self, _: usize, _: &AtomicU64, _: CancellationToken) -> Outcome {
        Err(Error::NotApplicable("a file delivers nothing"))
    }
}
