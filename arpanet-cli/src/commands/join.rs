//! `arpanet2 server` and `arpanet2 client`: A.B PASSWORD SEED-ADDR SEED-IP

use arpanet_core::Result;
use arpanet_core::addr::UNDERLAY_PORT;
use arpanet_core::roster::Role;

use super::Context;
use super::boot::{come_up, me};
use crate::agent::order::Order;
use crate::args::{JoinArgs, endpoint};
use crate::failure::usage;
use crate::output::say;
use crate::password::password;

pub(crate) fn run(context: &Context, args: JoinArgs, role: Role) -> Result<()> {
    let (argument, seed, ip) = match <[String; 3]>::try_from(args.rest) {
        Ok([password, seed, ip]) => (Some(password), seed, ip),
        Err(rest) => match <[String; 2]>::try_from(rest) {
            Ok([seed, ip]) => (None, seed, ip),
            Err(_) => {
                return Err(usage(
                    "the seed's address and ip are missing",
                    "arpanet2 server A.B PASSWORD SEED-ADDR SEED-IP, as in arpanet2 server 0.2 Apples 0.1 192.168.8.120",
                ));
            }
        },
    };
    let me = me(context, args.address, &args.node)?;
    let seed = seed.parse()?;
    let endpoint = endpoint(
        &ip,
        args.node
            .port
            .or(context.config.port)
            .unwrap_or(UNDERLAY_PORT),
    )?;
    if seed == args.address {
        return Err(usage(
            format!("{seed} is both this node and its seed"),
            "the first address is this node's own, the second is the seed's",
        ));
    }
    let password = password(argument, &args.password)?;
    let order = Order::Join {
        me,
        password: password.expose().to_owned(),
        role,
        seed,
        endpoint,
        replace: args.replace,
    };
    come_up(
        context,
        order,
        args.node.foreground,
        &format!("joining as {}", args.address),
    )?;
    say(format!("node {} is up", args.address));
    Ok(())
}
