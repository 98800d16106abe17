//! Where the password comes from.

use std::io::Read;

use arpanet_core::admission::Password;
use arpanet_core::{Error, ErrorKind, Result};

use crate::args::PasswordOptions;

/// The environment variable that holds the password.
const VARIABLE: &str = "ARPANET2_PASSWORD";

/// The argument, or standard input where it is `-`, or the file, or the environment.
pub(crate) fn password(argument: Option<String>, options: &PasswordOptions) -> Result<Password> {
    let unreadable = |what: String| {
        move |source: std::io::Error| {
            Error::new(
                ErrorKind::InvalidInput,
                format!("the password can't be read from {what}"),
            )
            .with_source(source)
        }
    };
    let text = match (argument.as_deref(), &options.password_file) {
        (Some("-"), _) => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(unreadable("standard input".to_owned()))?;
            text
        }
        (Some(text), _) => return Password::new(text),
        (None, Some(path)) => std::fs::read_to_string(path).map_err(unreadable(path.display().to_string()))?,
        (None, None) => std::env::var(VARIABLE).map_err(|_| {
            Error::new(ErrorKind::InvalidInput, "there is no password")
                .with_hint("give it as an argument, as - on standard input, in ARPANET2_PASSWORD or with --password-file")
        })?,
    };
    // The line end of a file or a pipe is no part of it.
    Password::new(text.trim_end_matches(['\r', '\n']))
}
