//! Writes down every call, and has chosen ones fail.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use arpanet_core::{Error, ErrorKind, Result};

#[derive(Debug, Clone, Default)]
pub(crate) struct Journal(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    calls: Vec<String>,
    failing: Range<usize>,
}

impl Journal {
    /// Begins anew: the calls of these numbers, counted from 0, will fail.
    pub(crate) fn begin(&self, failing: Range<usize>) {
        *self.0.lock().unwrap() = Inner {
            calls: Vec::new(),
            failing,
        };
    }

    /// A call is made.
    pub(crate) fn call(&self, name: impl Into<String>) -> Result<()> {
        let mut inner = self.0.lock().unwrap();
        let number = inner.calls.len();
        let name = name.into();
        inner.calls.push(name.clone());
        if inner.failing.contains(&number) {
            return Err(Error::new(ErrorKind::Exhausted, format!("{name} fails")));
        }
        Ok(())
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.0.lock().unwrap().calls.clone()
    }
}
