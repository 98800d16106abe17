//! `arpanet2 passwd PASSWORD`

use arpanet_core::Result;
use clap::Args;

use super::{Context, rekey};
use crate::agent::keys::{NewPassword, Turned};
use crate::args::PasswordOptions;
use crate::password::password;

#[derive(Debug, Args)]
pub(crate) struct PasswdArgs {
    /// The cluster's new password; - for standard input; may be left out with ARPANET2_PASSWORD or --password-file
    password: Option<String>,
    #[command(flatten)]
    password_options: PasswordOptions,
}

pub(crate) async fn run(context: &Context, args: PasswdArgs) -> Result<()> {
    let password = password(args.password, &args.password_options)?;
    let new = NewPassword {
        password: password.expose().to_owned(),
    };
    let turned: Turned = context.agent()?.post("/v1/password", &new).await?;
    context.printer.result(&turned, |turned| {
        rekey::render(
            "the cluster has another password, and with it another key",
            turned,
        )
    })
}
