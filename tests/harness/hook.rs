//! A storage that calls the test after each put.

use std::sync::{Arc, Mutex};

use nfreezer::context::Context;
use nfreezer::error::Result;
use nfreezer::name::Name;
use nfreezer::storage::{Memory, Storage};

use super::faults::{Answer, Between, Call, Rule};

type Told = Box<dyn FnMut(&Name) -> Result<()> + Send>;

/// Calls a closure with the name of each object after its put. An error of the closure is the result of the put.
pub struct AfterPut(Mutex<Told>);
pub type Hook<S = Memory> = Between<AfterPut, S>;

pub fn hook<S: Storage>(inner: impl Into<Arc<S>>) -> Arc<Hook<S>> {
    Between::with(inner, AfterPut(Mutex::new(Box::new(|_| Ok(())))))
}

impl AfterPut {
    pub fn after_put(&self, told: impl FnMut(&Name) -> Result<()> + Send + 'static) {
        *self.0.lock().unwrap() = Box::new(told);
    }
}

impl Rule for AfterPut {
    fn call(&self, ctx: &Context, storage: &dyn Storage, call: Call<'_>) -> Result<Answer> {
        let answer = call.of(ctx, storage)?;
        if let Call::Put(name, _) = call {
            (self.0.lock().unwrap())(name)?;
        }
        Ok(answer)
    }
}
