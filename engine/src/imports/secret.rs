//! The `secret` interface: what the document grants, by name. Nothing of it is logged.

use super::super::bindings::adit::plugin::secret as bound;
use super::super::store::State;

impl bound::Host for State {
    fn read(&mut self, name: String) -> Option<Vec<u8>> {
        let secret = self.sandbox.secrets.0.get(&name).cloned();
        if secret.is_none() {
            self.sandbox.deny_name("secret", &name);
        }
        secret
    }
}
