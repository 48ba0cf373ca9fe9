//! What an operator says about where the state is kept: in the data folder, or in etcd for a fleet.

use std::sync::Arc;

use adit_config_reader::Spanned;

use super::{Rules, document};
use crate::store::etcd::{self, Terms};
use crate::tls::Identity;

impl Rules<'_> {
    /// `None`: a file in the data folder.
    pub(super) fn store(
        &mut self,
        section: Option<Spanned<document::Store>>,
        has_api: bool,
    ) -> Option<Terms> {
        let section = section?;
        let span = section.span();
        let document::Store { url, ca, certificate, private_key, allow_old } = section.into_inner();
        if !has_api {
            let help = "add [api]: what is kept there is what the control API changes";
            self.mistakes.add_with_help(span.clone(), "a store but no [api]", help);
        }
        let usual = "like \"etcd://10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379/main\"";
        let url = self.required(&span, "url", url, usual)?;
        let address = match url.get_ref().parse::<etcd::address::Address>() {
            Ok(address) => address,
            Err(error) => {
                self.mistakes.add_with_help(url.span(), error.to_string(), format!("write it {usual}"));
                return None;
            }
        };
        let tls = match (ca, certificate, private_key) {
            (None, None, None) if address.is_on_this_machine() => None,
            (None, None, None) => {
                let message = "secrets would be sent to another machine in the clear";
                let help = "give it `ca`, `certificate` and `private-key`, as etcd's --trusted-ca-file and --client-cert-auth want them";
                self.mistakes.add_with_help(url.span(), message, help);
                return None;
            }
            (Some(ca), Some(certificate), Some(key)) => {
                let (at_ca, at_certificate, at_key) = (ca.span(), certificate.span(), key.span());
                let authority = Identity::read_chain(&self.folder.join(ca.into_inner()));
                let chain = Identity::read_chain(&self.folder.join(certificate.into_inner()));
                let key = Identity::read_key(&self.folder.join(key.into_inner()));
                let authority = authority.map_err(|error| self.mistakes.add(at_ca, error.to_string()));
                let chain =
                    chain.map_err(|error| self.mistakes.add(at_certificate.clone(), error.to_string()));
                let key = key.map_err(|error| self.mistakes.add(at_key, error.to_string()));
                let tls = etcd::tls(authority.ok()?, chain.ok()?, key.ok()?);
                let tls = tls.map_err(|error| self.mistakes.add(at_certificate, error.to_string()));
                Some(Arc::new(tls.ok()?))
            }
            _ => {
                let message = "only some of `ca`, `certificate` and `private-key`";
                let help = "give all three; etcd on this machine is reached in the clear without any";
                self.mistakes.add_with_help(span, message, help);
                return None;
            }
        };
        let allow_old = allow_old.is_some_and(Spanned::into_inner);
        Some(Terms { address, tls, allow_old })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::settings::Settings;
    use crate::tls::DevelopmentCa;

    #[test]
    fn a_store_is_on_this_machine_or_spoken_to_in_secret() {
        let folder = tempfile::tempdir().unwrap();
        let root = DevelopmentCa::open(folder.path()).unwrap().path().to_owned();
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec!["edge".to_owned()]).unwrap().self_signed(&key).unwrap();
        fs::write(folder.path().join("leaf.pem"), leaf.pem()).unwrap();
        fs::write(folder.path().join("leaf.key"), key.serialize_pem()).unwrap();
        let parse = |keys: &str, api: &str| {
            let text = format!(
                "[visitors]\nhttp = \"127.0.0.1:0\"\n[[server]]\nregion = \"west\"\nlisten = \"127.0.0.1:0\"\n{api}\n[store]\n{keys}\n"
            );
            Settings::parse("edge.toml", &text, folder.path()).map_err(|mistakes| mistakes.to_string())
        };
        let api = "[api]\nlisten = \"127.0.0.1:0\"";
        let remote = "url = \"etcd://10.0.0.1:2379/main\"";
        let files = format!("ca = {root:?}\ncertificate = \"leaf.pem\"\nprivate-key = \"leaf.key\"");

        let local = parse("url = \"etcd://localhost:2379/main\"", api).unwrap().store.unwrap();
        assert!(local.tls.is_none() && !local.allow_old && local.address.fleet == "main");
        let all = parse(&format!("{remote}\n{files}\nallow-old = true"), api).unwrap().store.unwrap();
        assert!(all.tls.is_some() && all.allow_old);

        for (keys, api, said) in [
            (remote, api, "in the clear"),
            ("", api, "`url` is missing"),
            ("url = \"http://10.0.0.1:2379\"", api, "begin with etcd://"),
            ("url = \"etcd://10.0.0.1:2379\"", api, "name of the fleet"),
            ("url = \"etcd://localhost:2379/main\"", "[[tunnel]]", "a store but no [api]"),
            (&format!("{remote}\ncertificate = \"leaf.pem\""), api, "only some of"),
            (&format!("{remote}\n{}", files.replace("leaf.key", "none.key")), api, "none.key"),
        ] {
            let mistakes = parse(keys, api).unwrap_err();
            assert!(mistakes.contains(said), "{keys}: {mistakes}");
        }
    }
}
