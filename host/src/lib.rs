//! The connector: keeps connections to edge servers open and hands each request that arrives
//! through the plugin chain of its rule to an origin.
//!
//! Read in this order: [`config`] (what people write), [`generation`] (what runs), [`revision`] (how it changes),
//! [`proxy`] (one request), [`management`] (what a host says of itself), [`tunnel`] (how requests arrive), [`app`] (how it
//! is put together).

pub mod admin;
pub mod app;
mod bucket_server;
pub mod buckets;
pub mod component;
pub mod config;
pub mod contents;
pub mod generation;
pub mod health;
pub mod management;
pub mod origin;
pub mod proxy;
pub mod revision;
pub mod tunnel;

pub use app::Host;
