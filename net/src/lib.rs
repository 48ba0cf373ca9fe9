//! What both ends of a tunnel need of sockets: who is let in where there is not room for all, and who may
//! ask what of the small listeners. Knows addresses, sockets and heads of requests; knows no tunnel, no
//! document and nothing of what is answered.
//!
//! Read in this order: [`network`] (addresses and sources), [`admission`] (who stays), [`accept`] and
//! [`clients`] (the loops), [`places`] (what is held for long), [`guard`] (who may ask), [`proxy_protocol`] (who really comes), [`log_limiter`],
//! [`judge`] and [`outbound`] (requests that others have us make), [`unread`] and [`unsent`] (what waits on a connection over HTTP/2 on its way in and out), [`crumbs`] (bodies
//! in small pieces).

pub mod accept;
pub mod admission;
pub mod clients;
pub mod crumbs;
mod frames;
pub mod give_way;
pub mod guard;
pub mod judge;
pub mod log_limiter;
pub mod network;
pub mod outbound;
pub mod places;
pub mod proxy_protocol;
pub mod unread;
pub mod unsent;
