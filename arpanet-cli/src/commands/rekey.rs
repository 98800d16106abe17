//! `arpanet2 rekey`

use arpanet_core::{NodeAddr, Result};

use super::Context;
use crate::agent::keys::Turned;

pub(crate) async fn run(context: &Context) -> Result<()> {
    let turned: Turned = context.agent()?.post("/v1/key", &()).await?;
    context.printer.result(&turned, |turned| {
        render("the cluster has another key", turned)
    })
}

/// What was done, and who does not know of it.
pub(super) fn render(done: &str, turned: &Turned) -> String {
    let mut text = format!("{done}: {}", turned.key);
    let list = |nodes: &[NodeAddr]| {
        let names: Vec<String> = nodes.iter().map(ToString::to_string).collect();
        names.join(", ")
    };
    if !turned.unconfirmed.is_empty() {
        text.push_str("\nnot confirmed yet, and tried again: ");
        text.push_str(&list(&turned.unconfirmed));
    }
    if !turned.down.is_empty() {
        text.push_str("\ndown, and given it when back: ");
        text.push_str(&list(&turned.down));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_not_confirmed_is_named() {
        let mut turned = Turned {
            key: 65537,
            unconfirmed: Vec::new(),
            down: Vec::new(),
        };
        assert_eq!(render("done", &turned), "done: 65537");
        turned.unconfirmed = vec!["0.2".parse().unwrap(), "0.3".parse().unwrap()];
        turned.down = vec!["1.4".parse().unwrap()];
        assert_eq!(
            render("done", &turned),
            "done: 65537\nnot confirmed yet, and tried again: 0.2, 0.3\ndown, and given it when back: 1.4"
        );
    }
}
