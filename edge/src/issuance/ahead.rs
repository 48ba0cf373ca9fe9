//! Looks, before a name is ordered, whether the order can come to anything: the name has an address, one of this edge's
//! where those are known, and its domain permits the authority (CAA, RFC 8659). Only what is certain counts; what cannot
//! be found out is for the authority to say.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};

/// Asks name servers.
pub(super) struct Ahead {
    /// The system's if none is named.
    resolver: Option<SocketAddr>,
    /// Where the internet reaches this edge, if that is known.
    addresses: Vec<IpAddr>,
}

/// A CAA record, as far as it is about who may issue.
struct Permit {
    /// For wildcards alone.
    is_wild: bool,
    /// In lower case; nobody if it is empty.
    whose: String,
}

impl Ahead {
    pub(super) fn new(resolver: Option<SocketAddr>, addresses: Vec<IpAddr>) -> Self {
        Self { resolver, addresses }
    }

    /// Whether `name` may be ordered from an authority of these `identities`; with `is_led_here` it has to lead to this
    /// edge as well.
    ///
    /// # Errors
    /// What is wrong, and what to do about it.
    pub(super) async fn look(
        &self,
        name: &str,
        is_led_here: bool,
        identities: &[String],
    ) -> Result<(), String> {
        let Ok(resolver) = self.resolver() else { return Ok(()) };
        let bare = name.strip_prefix("*.").unwrap_or(name);
        if is_led_here && bare == name {
            self.leads_here(&resolver, name).await?;
        }
        if identities.is_empty() {
            return Ok(());
        }
        // The closest domain that says anything counts.
        let mut domain = Some(bare);
        while let Some(asked) = domain.filter(|domain| domain.contains('.')) {
            match resolver.lookup(absolute(asked), RecordType::CAA).await {
                Ok(found) => {
                    let records =
                        found.answers().iter().filter_map(|record| permit(&record.data)).collect::<Vec<_>>();
                    let has_any = found.answers().iter().any(|record| matches!(record.data, RData::CAA(_)));
                    if has_any {
                        return judge(asked, bare != name, &records, identities);
                    }
                }
                Err(error) if error.is_no_records_found() => {}
                Err(_) => return Ok(()),
            }
            domain = asked.split_once('.').map(|(_, parent)| parent);
        }
        Ok(())
    }

    async fn leads_here(&self, resolver: &TokioResolver, name: &str) -> Result<(), String> {
        let found: Vec<IpAddr> = match resolver.lookup_ip(absolute(name)).await {
            Ok(found) => found.iter().collect(),
            Err(error) if error.is_no_records_found() => {
                let why = if error.is_nx_domain() {
                    "there is no such name in DNS"
                } else {
                    "the name has no address in DNS"
                };
                return Err(format!("{why}: lead {name} to this edge with an A, AAAA or CNAME record"));
            }
            Err(_) => return Ok(()),
        };
        if self.addresses.is_empty() || found.iter().any(|address| self.addresses.contains(address)) {
            return Ok(());
        }
        let list = |all: &[IpAddr]| {
            all.iter().take(MOST_LISTED).map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
        };
        Err(format!(
            "{name} leads to {}, and not to this edge at {}: change its records, or the addresses in [acme]",
            list(&found),
            list(&self.addresses)
        ))
    }

    /// A new one each time: the system's servers may have changed, and what it would keep is old.
    fn resolver(&self) -> Result<TokioResolver, NetError> {
        let mut builder = match self.resolver {
            None => TokioResolver::builder_tokio()?,
            Some(address) => {
                let mut config = NameServerConfig::udp_and_tcp(address.ip());
                config.connections.iter_mut().for_each(|connection| connection.port = address.port());
                let config = ResolverConfig::from_name_servers(vec![config]);
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
        };
        let options = builder.options_mut();
        options.cache_size = 0;
        options.timeout = ANSWER_LIMIT;
        options.attempts = 1;
        options.try_tcp_on_error = true;
        builder.build()
    }
}

fn permit(data: &RData) -> Option<Permit> {
    let RData::CAA(record) = data else { return None };
    let is_wild = match record.tag.to_ascii_lowercase().as_str() {
        "issue" => false,
        "issuewild" => true,
        _ => return None,
    };
    // What follows is for the authority alone.
    let whose = record.value.split(|byte| *byte == b';').next().unwrap_or_default();
    Some(Permit { is_wild, whose: String::from_utf8_lossy(whose).trim().to_ascii_lowercase() })
}

/// What the records of a domain say about an authority (RFC 8659 4).
fn judge(domain: &str, is_wild: bool, records: &[Permit], identities: &[String]) -> Result<(), String> {
    let has_wild = records.iter().any(|record| record.is_wild);
    let counts = |record: &&Permit| record.is_wild == (is_wild && has_wild);
    let relevant: Vec<&Permit> = records.iter().filter(counts).collect();
    if relevant.is_empty() || relevant.iter().any(|record| identities.contains(&record.whose)) {
        return Ok(());
    }
    let permitted: Vec<&str> =
        relevant.iter().map(|record| record.whose.as_str()).filter(|whose| !whose.is_empty()).collect();
    let permitted = if permitted.is_empty() { "nobody".to_owned() } else { permitted.join(", ") };
    let (whom, tag) = (identities.join(" or "), if is_wild && has_wild { "issuewild" } else { "issue" });
    Err(format!(
        "the CAA records of {domain} permit {permitted}, and not {whom}: add `{domain}. CAA 0 {tag} \"{}\"`",
        identities.first().map_or("", String::as_str)
    ))
}

/// With a dot at the end, no search domain is tried.
fn absolute(name: &str) -> String {
    format!("{name}.")
}

/// One attempt at one server over one transport.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// Addresses in a message.
const MOST_LISTED: usize = 4;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use hickory_resolver::proto::op::{Message, ResponseCode};
    use hickory_resolver::proto::rr::Record;
    use hickory_resolver::proto::rr::rdata::{A, CAA};
    use tokio::net::UdpSocket;

    use super::*;

    /// A name server that knows these and nothing else.
    async fn server(known: HashMap<&'static str, Vec<RData>>) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut question = [0; 512];
            loop {
                let (length, from) = socket.recv_from(&mut question).await.unwrap();
                let asked = Message::from_vec(&question[..length]).unwrap();
                let query = asked.queries[0].clone();
                let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
                let name = query.name().to_lowercase().to_ascii();
                match known.get(name.trim_end_matches('.')) {
                    None => answer.metadata.response_code = ResponseCode::NXDomain,
                    Some(all) => {
                        let fits = all.iter().filter(|data| data.record_type() == query.query_type());
                        answer.add_answers(
                            fits.map(|data| Record::from_rdata(query.name().clone(), 1, data.clone())),
                        );
                    }
                }
                answer.add_query(query);
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        address
    }

    fn caa(tag: &str, value: &str) -> RData {
        let mut record = CAA::new_issue(false, None, Vec::new());
        (record.tag, record.value) = (tag.to_owned(), value.as_bytes().to_vec());
        RData::CAA(record)
    }

    #[tokio::test]
    async fn what_cannot_come_to_anything_is_told_from_what_can_and_from_what_nobody_knows() {
        let here = RData::A(A::new(192, 0, 2, 1));
        let server = server(HashMap::from([
            ("free.test", vec![here.clone()]),
            ("ours.test", vec![here.clone(), caa("issue", "CA.test; account=1")]),
            ("a.ours.test", vec![here.clone()]),
            ("others.test", vec![here.clone(), caa("issue", "other.test")]),
            ("deep.others.test", vec![here.clone(), caa("iodef", "mailto:x@y.test")]),
            ("nobodys.test", vec![here.clone(), caa("issue", ";")]),
            ("wild.test", vec![here, caa("issue", "ca.test"), caa("issuewild", "other.test")]),
            ("empty.test", Vec::new()),
            ("away.test", vec![RData::A(A::new(198, 51, 100, 7))]),
        ]))
        .await;
        let ahead = Ahead::new(Some(server), vec!["192.0.2.1".parse().unwrap()]);
        let identities = ["ca.test".to_owned()];
        for (name, said) in [
            ("free.test", ""),
            ("ours.test", ""),
            ("a.ours.test", ""),
            ("others.test", "permit other.test, and not ca.test: add `others.test. CAA 0 issue \"ca.test\"`"),
            ("deep.others.test", ""),
            ("nobodys.test", "permit nobody"),
            ("wild.test", ""),
            ("*.wild.test", "CAA 0 issuewild \"ca.test\""),
            ("*.ours.test", ""),
            ("*.others.test", "permit other.test"),
            ("empty.test", "the name has no address in DNS"),
            ("nowhere.test", "there is no such name in DNS: lead nowhere.test to this edge"),
            ("away.test", "leads to 198.51.100.7, and not to this edge at 192.0.2.1"),
        ] {
            let looked = ahead.look(name, true, &identities).await;
            match looked {
                Ok(()) => assert_eq!(said, "", "{name}"),
                Err(error) => assert!(!said.is_empty() && error.contains(said), "{name}: {error}"),
            }
        }
        assert!(ahead.look("others.test", true, &[]).await.is_ok(), "who says nothing is not looked for");
        assert!(
            ahead.look("empty.test", false, &identities).await.is_ok(),
            "by DNS alone it needs no address"
        );
        let elsewhere = Ahead::new(Some(server), Vec::new());
        assert!(
            elsewhere.look("away.test", true, &identities).await.is_ok(),
            "where the edge is is not known"
        );
        let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let silent = Ahead::new(Some(nobody), Vec::new());
        assert!(silent.look("nowhere.test", true, &identities).await.is_ok(), "nothing is certain");
    }
}
