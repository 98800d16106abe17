#![doc = include_str!("../README.md")]

pub mod directory;
pub mod paas;
pub mod rolling;
