//! The endpoints of entries and sessions.

use arpanet_core::Result;
use bytes::Bytes;

use crate::client::{Client, json, missing_is_done, part, parts};
use crate::error::unreadable;
use crate::reading::{Answer, Reading};
use crate::transport::Request;
use crate::wire::{NewSession, Pair, Session};

impl Client {
    pub(crate) async fn pair(&self, key: &str, reading: Reading) -> Result<Answer<Option<Pair>>> {
        let request = reading.ask(format!("/v1/kv/{}", parts(key)));
        let answer = self.read_or_none::<Vec<Pair>>(request).await?;
        Ok(Answer {
            value: answer
                .value
                .and_then(|pairs| pairs.into_iter().find(|pair| pair.key == key)),
            index: answer.index,
            has_leader: answer.has_leader,
        })
    }

    pub(crate) async fn pairs(&self, prefix: &str, reading: Reading) -> Result<Answer<Vec<Pair>>> {
        let request = reading
            .ask(format!("/v1/kv/{}", parts(prefix)))
            .with("recurse", "");
        let answer = self.read_or_none(request).await?;
        let mut pairs: Vec<Pair> = answer.value.unwrap_or_default();
        pairs.retain(|pair| pair.key.starts_with(prefix));
        Ok(Answer {
            value: pairs,
            index: answer.index,
            has_leader: answer.has_leader,
        })
    }

    pub(crate) async fn keys(&self, prefix: &str, reading: Reading) -> Result<Vec<String>> {
        let request = reading
            .ask(format!("/v1/kv/{}", parts(prefix)))
            .with("keys", "");
        let answer = self.read_or_none(request).await?;
        let mut keys: Vec<String> = answer.value.unwrap_or_default();
        keys.retain(|key| key.starts_with(prefix));
        Ok(keys)
    }

    /// Stores a value by its own request, which may be longer than one in a transaction. Whether it was stored.
    pub(crate) async fn put_pair(
        &self,
        key: &str,
        flags: u64,
        cas: Option<u64>,
        value: Bytes,
    ) -> Result<bool> {
        let mut request = Request::put(format!("/v1/kv/{}", parts(key)))
            .with("flags", flags.to_string())
            .body(value);
        if let Some(index) = cas {
            request = request.with("cas", index.to_string());
        }
        self.transport.json(request).await
    }

    pub(crate) async fn delete_pair(&self, key: &str) -> Result<()> {
        let request = Request::delete(format!("/v1/kv/{}", parts(key)));
        self.transport.done(request).await.map(drop)
    }

    pub(crate) async fn create_session(&self, session: &NewSession) -> Result<String> {
        // One that is made twice ends by itself.
        let request = Request::put("/v1/session/create").body(json(session)?);
        let response = self.transport.send_again(request).await?;
        let session: Session = self.transport.read(&response)?;
        if session.id.is_empty() {
            return Err(unreadable(&self.transport.at, "the session has no id"));
        }
        Ok(session.id)
    }

    /// `NotFound` for one that ended.
    pub(crate) async fn renew_session(&self, id: &str) -> Result<()> {
        let request = Request::put(format!("/v1/session/renew/{}", part(id)));
        let response = self.transport.send_again(request).await?;
        self.transport.there(response).map(drop)
    }

    pub(crate) async fn destroy_session(&self, id: &str) -> Result<()> {
        let request = Request::put(format!("/v1/session/destroy/{}", part(id)));
        missing_is_done(self.transport.send_again(request).await.map(drop))
    }

    /// Whether a session is there.
    pub(crate) async fn has_session(&self, id: &str, reading: Reading) -> Result<Answer<bool>> {
        let request = reading.ask(format!("/v1/session/info/{}", part(id)));
        let answer: Answer<Option<Vec<Session>>> = self.read(request).await?;
        let sessions = answer.value.unwrap_or_default();
        Ok(Answer {
            value: !sessions.is_empty(),
            index: answer.index,
            has_leader: answer.has_leader,
        })
    }
}
