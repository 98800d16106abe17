//! The binary in labs of the tests' own, as an operator types it. Needs root; says so where there is none.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod bad_input;
mod checks;
mod churn;
mod cluster;
mod commands;
mod consul;
mod container_dns;
mod demo;
mod docker;
mod docker_services;
mod engine_restart;
mod isolation;
mod network_driver;
mod plain;
mod setup_docker;
mod site;
mod stream;
mod survival;
