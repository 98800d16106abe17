//! How reads are made, and what they answer.

use std::time::Duration;

use crate::config::Consistency;
use crate::feed::Age;
use crate::transport::{Request, Response};

/// How a read is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) mode: Consistency,
    /// The index to wait beyond, and for how long.
    pub(crate) block: Option<(u64, Duration)>,
    /// Whether somebody asks so again and again.
    pub(crate) followed: bool,
}

impl Reading {
    /// What is there now.
    pub(crate) const fn now(mode: Consistency) -> Self {
        Self {
            mode,
            block: None,
            followed: false,
        }
    }

    /// What is there once it is beyond the index, or after the wait.
    pub(crate) const fn beyond(mode: Consistency, index: u64, wait: Duration) -> Self {
        Self {
            mode,
            block: Some((index, wait)),
            followed: false,
        }
    }

    /// The same, by somebody who asks so again and again.
    pub(crate) const fn followed(mut self) -> Self {
        self.followed = true;
        self
    }

    pub(crate) fn ask(self, path: impl Into<String>) -> Request {
        let request = Request {
            at_once: self.followed,
            ..Request::get(path)
        };
        let request = match self.mode {
            Consistency::Default => request,
            Consistency::Consistent => request.with("consistent", ""),
            Consistency::Stale => request.with("stale", ""),
        };
        match self.block {
            None | Some((0, _)) => request,
            Some((index, wait)) => Request {
                // Consul adds up to a sixteenth, so that not all come back at once.
                wait: wait + wait / 16,
                ..request
            }
            .with("index", index.to_string())
            .with("wait", format!("{}ms", wait.as_millis())),
        }
    }
}

/// What was read, and of when it is.
#[derive(Debug, Clone)]
pub(crate) struct Answer<T> {
    pub(crate) value: T,
    pub(crate) index: u64,
    /// Whether whoever answered knew of a leader.
    pub(crate) has_leader: bool,
}

impl<T> Answer<T> {
    pub(crate) const fn age(&self) -> Age {
        Age {
            index: self.index,
            is_anew: false,
        }
    }

    pub(crate) fn of(response: &Response, value: T) -> Self {
        Self {
            value,
            index: response.index(),
            has_leader: response.has_leader(),
        }
    }
}
