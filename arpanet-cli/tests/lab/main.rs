//! The binary in labs of the tests' own, as an operator types it. Needs root; says so where there is none.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

/// One test for each discovery, in a site that the first makes, and the second with consul; and one over weave, where another makes
/// that: same commands, same results.
macro_rules! by_each_discovery {
    ($test:ident, $up:ident, $up_with_consul:ident, $hosts:literal $(, $up_over_weave:ident)?) => {
        mod $test {
            use crate::site::Site;

            #[tokio::test]
            async fn by_gossip() {
                if let Some(site) = Site::$up($hosts).await {
                    super::$test(site).await;
                }
            }

            #[tokio::test]
            async fn by_consul() {
                if let Some(site) = Site::$up_with_consul($hosts).await {
                    super::$test(site).await;
                }
            }

            $(
                #[tokio::test]
                async fn over_weave() {
                    if let Some(site) = Site::$up_over_weave($hosts).await {
                        super::$test(site).await;
                    }
                }
            )?
        }
    };
}

mod attacks;
mod bad_input;
mod bench;
// There it is public.
#[allow(unreachable_pub)]
#[path = "../../../arpanet-router/src/testing/beats.rs"]
mod beats;
mod chaos;
mod checks;
mod churn;
mod cluster;
mod commands;
mod consul;
mod consul_access;
mod consul_container;
mod consul_dns;
mod consul_founding;
mod consul_keys;
mod container_dns;
mod demo;
mod docker;
mod docker_services;
mod engine_restart;
/// The weave router of arpanet-weave's tests: this program is started again as it.
#[path = "../../../arpanet-weave/tests/fake/mod.rs"]
mod fake;
mod isolation;
mod kernel;
mod keys;
mod network_driver;
mod plain;
mod pull;
#[path = "../../../arpanet-docker/tests/registry/mod.rs"]
mod registry;
mod setup_docker;
mod site;
mod stream;
mod survival;
mod thirty;
mod weave;
mod why;
