//! Pages for a browser, as both ends show them: markup that text cannot become (`html`), the policy under which
//! they are sent (`answer`), who may see them (`door`), and pictures of numbers (`chart`).
//!
//! Knows heads and texts. Knows no tunnel; opens nothing.

mod answer;
mod assets;
mod chart;
mod door;
mod form;
mod html;

pub use answer::{Answer, download, forbidden, page, redirect, signed_in, signed_out};
pub use assets::{find as asset, script, style};
pub use chart::{Bar, time, waterfall};
pub use door::{Door, Host, Session, SignInError};
pub use form::{Form, value};
pub use html::Html;
