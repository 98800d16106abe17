//! Asking another server about a name of ours by the name that it has there, and telling what it says under the name that was
//! asked for. Pure.

use hickory_proto::op::Message;
use hickory_proto::rr::Name;

const NO_SUCH_NAME: u8 = 3;

/// The same question about another name; `None` where it is the same name, whatever its letters.
pub(crate) fn question(query: &Message, name: &Name) -> Option<Message> {
    let asked = query.queries.first()?;
    if asked.name() == name {
        return None;
    }
    let mut other = query.clone();
    other.queries[0].set_name(name.clone());
    Some(other)
}

/// The answer under the name of the first question; `None` for what can't be read.
pub(crate) fn answer(bytes: &[u8], query: &Message) -> Option<Message> {
    let asked = query.queries.first()?.name();
    let mut answer = Message::from_vec(bytes).ok()?;
    let other = answer.queries.first()?.name().clone();
    answer.queries.clone_from(&query.queries);
    for record in &mut answer.answers {
        if record.name == other {
            record.name = asked.clone();
        }
    }
    Some(answer)
}

/// Whether it says NXDOMAIN.
pub(crate) fn has_no_such_name(answer: &[u8]) -> bool {
    answer
        .get(3)
        .is_some_and(|flags| flags & 0x0f == NO_SUCH_NAME)
}
