//! The connector: keeps connections to edge servers open and hands each request that arrives
//! through the plugin chain of its rule to an origin.
//!
//! Read in this order: [`settings`] and [`config`] (what people write), [`generation`] (what runs),
//! [`proxy`] (one request), [`tunnel`] (how requests arrive), [`app`] (how it is put together).

pub mod app;
pub mod component;
pub mod config;
pub mod control;
pub mod generation;
pub mod health;
pub mod history;
pub mod origin;
pub mod proxy;
pub mod reader;
pub mod reload;
pub mod route;
pub mod settings;
pub mod start;
pub mod supply;
pub mod tenure;
pub mod tunnel;
pub mod watch;

pub use app::Host;
