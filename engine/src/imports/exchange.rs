//! The `exchange` interface: what is known of the exchange that a plugin is called for. Outside of one nothing is.

use std::sync::Arc;

use super::super::bindings::adit::plugin::exchange as bound;
use super::super::store::State;
use crate::exchange::{Exchange, Full};
use bound::{Error, RequestLine};

impl State {
    fn known(&self) -> Option<&Arc<Exchange>> {
        self.exchange.as_ref()
    }
}

impl bound::Host for State {
    fn rule(&mut self) -> String {
        self.known().map_or_else(String::new, |exchange| exchange.rule().to_owned())
    }

    fn service(&mut self) -> String {
        self.known().map_or_else(String::new, |exchange| exchange.service().to_owned())
    }

    fn country(&mut self) -> Option<String> {
        self.known()?.visitor().country.clone()
    }

    fn client_port(&mut self) -> Option<u16> {
        self.known()?.visitor().port
    }

    fn http_version(&mut self) -> Option<String> {
        self.known()?.visitor().http_version.as_deref().map(str::to_owned)
    }

    fn tls_version(&mut self) -> Option<String> {
        self.known()?.visitor().tls_version.as_deref().map(str::to_owned)
    }

    fn attempt(&mut self) -> Option<u32> {
        self.known()?.visitor().attempt
    }

    fn request(&mut self) -> Option<RequestLine> {
        let exchange = self.known()?;
        let sent = exchange.request()?;
        Some(RequestLine {
            method: sent.method.to_string(),
            scheme: exchange.scheme().to_owned(),
            authority: sent.authority.clone(),
            path_with_query: sent.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }

    fn request_header(&mut self, name: String) -> Vec<String> {
        let Some(sent) = self.known().and_then(|exchange| exchange.request()) else { return Vec::new() };
        let values = sent.headers.get_all(name.as_str()).iter();
        values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    }

    fn answered_by(&mut self) -> Option<String> {
        self.known()?.answered_by()
    }

    fn get(&mut self, name: String) -> Option<Vec<u8>> {
        self.known()?.left(&name)
    }

    fn set(&mut self, name: String, value: Vec<u8>) -> Result<(), Error> {
        let exchange = self.known().ok_or(Error::NoExchange)?;
        exchange.leave(name, value).map_err(|Full| Error::Full)
    }
}
