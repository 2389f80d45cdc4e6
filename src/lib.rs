//! Bartizan: a policy-enforcing firewall for the Model Context Protocol.

pub mod gate;
pub mod config;
pub mod audit;
pub mod policy;
pub mod edge;
pub mod demo;
pub mod run;
pub mod cli;
