//! The only place where asynchronous code runs. Callers block in [`Engine::wait`], which ends with their context.

use std::future::Future;
use std::pin::pin;

use tokio::runtime::{Builder, Runtime};

use crate::context::Context;
use crate::error::{Error, Result};

/// Threads that move bytes; the callers' threads do the rest.
const WORKERS: usize = 2;

/// A runtime that stops with its last owner and never waits for a server then.
pub struct Engine(Option<Runtime>);

impl Engine {
    /// Starts the threads.
    pub fn start() -> Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(WORKERS).thread_name("s3").enable_all().build();
        Ok(Engine(Some(runtime.map_err(|e| Error::io("start threads", e))?)))
    }

    /// Waits for a future; `tick` is called now and then meanwhile. Once `ctx` ends, the future is dropped, which closes its connection.
    pub fn wait<T>(&self, ctx: &Context, mut tick: impl FnMut(), future: impl Future<Output = T>) -> Result<T> {
        let runtime = self.0.as_ref().expect("it is taken by drop only");
        runtime.block_on(async {
            let mut future = pin!(future);
            loop {
                ctx.check()?;
                let done = match ctx.wait_slice() {
                    None => Ok(future.as_mut().await),
                    Some(slice) => tokio::time::timeout(slice, future.as_mut()).await,
                };
                tick();
                if let Ok(done) = done {
                    return Ok(done);
                }
            }
        })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
