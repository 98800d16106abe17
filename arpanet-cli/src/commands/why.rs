//! `arpanet2 why FROM TO`

use arpanet_core::why::Outcome;
use arpanet_core::{Error, ErrorKind, Result};
use clap::Args;
use reqwest::Method;

use super::Context;
use crate::agent::why::{Asked, Way};
use crate::output::table;

#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// A container of this host, a node, or an address
    from: String,
    /// A service, a container of this host, a node, or an address
    to: String,
}

pub(crate) async fn run(context: &Context, args: WhyArgs) -> Result<()> {
    let agent = context.agent()?;
    let asked = Asked {
        from: args.from,
        to: args.to,
    };
    let request = agent.request(Method::GET, "/v1/why").query(&asked);
    let way: Way = agent.json(request).await?;
    context.printer.result(&way, render)?;
    if way.arrives {
        return Ok(());
    }
    let mut stops = way.steps.iter();
    let stop = stops.find(|step| step.outcome == Outcome::Stops);
    let found = stop.map_or("it is not known why", |step| step.found.as_str());
    let message = format!("{} does not reach {}: {found}", asked.from, asked.to);
    let error = Error::new(ErrorKind::Unavailable, message);
    Err(match stop.and_then(|step| step.hint.as_deref()) {
        Some(hint) => error.with_hint(hint),
        None => error,
    })
}

fn render(way: &Way) -> String {
    let rows = way.steps.iter().map(|step| {
        let outcome = match step.outcome {
            Outcome::Passes => "ok",
            Outcome::Stops => "stops",
            _ => "unknown",
        };
        vec![
            step.stage.to_string(),
            outcome.to_owned(),
            step.found.clone(),
        ]
    });
    table(&["STEP", "OUTCOME", "FOUND"], rows)
}
