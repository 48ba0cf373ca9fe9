//! Has every wanted name certified: takes the claim of one that is due, orders it, and writes down what came of it. All
//! of that is in the state, so that another edge goes on where this one ended. Knows orders; how one goes is in
//! `order`, which are due in `wanted`, how many there may be in `budget`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use futures_util::FutureExt;
use instant_acme::{Account, AccountCredentials, Error, ExternalAccountKey, NewAccount};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::Terms;
use super::ahead::Ahead;
use super::authority::Authority;
use super::budget::{self, Share, Spent};
use super::order::{self, Bought, Failed};
use super::wanted::{Due, Wanted, due, fraction, wanted};
use crate::certificates::Certificates;
use crate::certificates::issued::opened;
use crate::state::publish::StaticTunnels;
use crate::state::snapshot::Snapshot;
use crate::state::{ChangeError, State};
use crate::store::records::certificates::{
    AuthorityAccount, Certificate, Challenge, ChallengeKind, LEDGER_KEY, Ledger, Order, authority_key,
    certificate_key, challenge_key, order_key,
};
use crate::store::records::to_json;
use crate::store::seal::SealKeys;
use crate::store::timestamp::Timestamp;
use crate::store::{AuditEntry, StoreRevision, Transaction};
use crate::tls::leaf::Leaf;

/// What orders for one edge.
pub(crate) struct Keeper {
    state: State,
    fixed: Arc<StaticTunnels>,
    own: OwnNames,
    certificates: Arc<Certificates>,
    ahead: Ahead,
    terms: Terms,
    keys: SealKeys,
    authority: Authority,
    /// By which its claims are known.
    id: String,
    account: Mutex<Option<Account>>,
    counts: Arc<Counts>,
}

/// Names of the edge itself that are to be certified.
pub(crate) struct OwnNames {
    /// The domain of quick tunnels.
    pub(crate) quick: Option<String>,
    pub(crate) api: Option<String>,
}

/// What became of the orders of this edge.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) issued: AtomicU64,
    pub(crate) failed: AtomicU64,
}

/// A name whose claim this edge has.
struct Claim {
    wanted: Wanted,
    is_renewal: bool,
    /// The record of the order before it was claimed.
    order: Option<Order>,
}

impl Keeper {
    /// # Errors
    /// What the operator has named is no authority.
    pub(crate) fn new(
        state: State,
        fixed: Arc<StaticTunnels>,
        own: OwnNames,
        certificates: Arc<Certificates>,
        terms: Terms,
        keys: SealKeys,
        counts: Arc<Counts>,
    ) -> anyhow::Result<Self> {
        let authority = Authority::new(&terms)?;
        let id = Uuid::new_v4().to_string();
        let account = Mutex::default();
        let ahead = Ahead::new(terms.resolver, terms.addresses.clone());
        Ok(Self { state, fixed, own, certificates, ahead, terms, keys, authority, id, account, counts })
    }

    /// Works until `stop`. An order that is under way then is begun anew by whoever comes after its claim.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changes = self.state.changes();
        let (mut orders, mut questions) = (JoinSet::new(), JoinSet::new());
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
                Some(_) = orders.join_next(), if !orders.is_empty() => {}
                Some(_) = questions.join_next(), if !questions.is_empty() => {}
                changed = changes.changed() => if changed.is_err() { return },
            }
            let now = Timestamp::now();
            let wanted = self.state.read(|snapshot| self.wanted(snapshot));
            while orders.len() < AT_ONCE {
                let Some((claim, transaction)) =
                    self.state.read(|snapshot| self.pick(snapshot, &wanted, now))
                else {
                    break;
                };
                // Whoever else has claimed it, or has used up what there is, was first.
                if !is_written(&self.state.change(transaction).await) {
                    break;
                }
                orders.spawn(self.clone().fill(claim));
            }
            if questions.is_empty()
                && let Some(name) = self.state.read(|snapshot| questionable(snapshot, &wanted, now))
            {
                questions.spawn(self.clone().ask(name));
            }
            let old = self.state.read(|snapshot| unwanted(snapshot, &wanted, now));
            if let Some(transaction) = old {
                let _ = self.state.change(transaction).await;
            }
            // A thousand changes are looked at together.
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(BREATH) => {}
            }
        }
    }

    fn wanted(&self, snapshot: &Snapshot) -> Vec<Wanted> {
        let by_dns = self.terms.challenges.contains(&ChallengeKind::Dns);
        let zones = if by_dns { self.terms.zones.as_slice() } else { &[] };
        let mut all =
            wanted(snapshot, &self.fixed, self.own.quick.as_deref(), self.own.api.as_deref(), zones);
        all.retain(|wanted| !self.certificates.covers(&wanted.name));
        all
    }

    /// The next name to order, with what claims it: of those that are due one of the account that has had fewest.
    fn pick(&self, snapshot: &Snapshot, wanted: &[Wanted], now: Timestamp) -> Option<(Claim, Transaction)> {
        let empty = Ledger::default();
        let kept = snapshot.order_ledger.as_ref();
        let ledger = kept.map_or(&empty, |kept| &kept.record);
        let mut best: Option<(usize, Timestamp, &Wanted, Due)> = None;
        for wanted in wanted {
            let order = snapshot.orders.get(&wanted.name).map(|kept| &kept.record);
            if order.is_some_and(|order| order.next > now) {
                continue;
            }
            let known = snapshot.certificates.get(&wanted.name).map(|kept| &kept.record);
            let Some(due) = due(&wanted.name, known, now) else { continue };
            match self.terms.limits.room(ledger, &wanted.share, due == Due::Renewal, now) {
                Ok(()) => {}
                Err(Spent::Zone | Spent::Account) => continue,
                Err(Spent::All) => return None,
            }
            let had = budget::had(ledger, &wanted.share.account, now);
            let since = order.map_or(now, |order| order.next);
            if best.is_none_or(|(least, first, ..)| (had, since) < (least, first)) {
                best = Some((had, since, wanted, due));
            }
        }
        let (_, _, wanted, due) = best?;
        let is_renewal = due == Due::Renewal;
        let before = snapshot.orders.get(&wanted.name);
        let order = before.map(|kept| kept.record.clone());
        let claimed = Order {
            holder: Some(self.id.clone()),
            next: now.after(CLAIM),
            failures: order.as_ref().map_or(0, |order| order.failures),
            error: order.as_ref().and_then(|order| order.error.clone()),
        };
        let at = order_key(&wanted.name);
        let transaction =
            if_as(note("certificate.order", &wanted.name), &at, before.map(|kept| kept.revision))
                .put(at, to_json(&claimed));
        let transaction = if_as(transaction, LEDGER_KEY, kept.map(|kept| kept.revision));
        let noted = budget::noted(ledger, &wanted.share, is_renewal, now);
        let claim = Claim { wanted: wanted.clone(), is_renewal, order };
        Some((claim, transaction.put(LEDGER_KEY, to_json(&noted))))
    }

    /// Orders a claimed name, and writes down what came of it.
    async fn fill(self: Arc<Self>, claim: Claim) {
        let name = &claim.wanted.name;
        let Share { account: tenant, zone } = &claim.wanted.share;
        info!(name, tenant, zone, renewal = claim.is_renewal, "ordering a certificate");
        let bought = timeout(LONGEST_ORDER, self.obtain(name)).await;
        let bought = bought.unwrap_or_else(|_| Err("the order took too long".to_owned().into()));
        let sealed = bought.and_then(|bought| self.record(name, bought).map_err(Failed::from));
        let (outcome, transaction) = match sealed {
            Ok(record) => {
                info!(name, until = %record.not_after, "a certificate is issued");
                self.counts.issued.fetch_add(1, Ordering::Relaxed);
                let transaction = note("certificate.issue", name)
                    .put(certificate_key(name), to_json(&record))
                    .remove(order_key(name));
                ("issued", transaction)
            }
            Err(Failed { why, is_unknown }) => {
                if is_unknown {
                    self.forget_account().await;
                }
                let failures = claim.order.as_ref().map_or(0, |order| order.failures).saturating_add(1);
                let next = Timestamp::now().after(pause(failures, name));
                warn!(name, why, failures, %next, "no certificate was issued");
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
                // Authorities and name servers quote strangers, and people read it on terminals.
                let printable = |letter: char| if letter.is_control() { ' ' } else { letter };
                let error: String = why.chars().map(printable).take(LONGEST_ERROR).collect();
                let order = Order { holder: None, next, failures, error: Some(error) };
                ("failed", note("certificate.fail", name).put(order_key(name), to_json(&order)))
            }
        };
        // Only as long as the claim is ours: whoever has it after us writes its own.
        let Some(revision) = self.held(name) else {
            return warn!(name, outcome, "the claim of a name was lost before its order had ended");
        };
        let transaction = transaction.if_at(order_key(name), revision).remove(challenge_key(name));
        if let Err(error) = self.state.change(transaction).await {
            warn!(name, outcome, %error, "what came of an order cannot be noted: it is tried again later");
        }
    }

    /// At which revision this edge has the claim.
    fn held(&self, name: &str) -> Option<StoreRevision> {
        self.state.read(|snapshot| {
            let kept = snapshot.orders.get(name)?;
            (kept.record.holder.as_deref() == Some(&*self.id)).then_some(kept.revision)
        })
    }

    async fn obtain(&self, name: &str) -> Result<Bought, Failed> {
        self.look_ahead(name).await?;
        let account = self.account().await?;
        let known = self.state.read(|snapshot| {
            snapshot
                .certificates
                .get(name)
                .map(|kept| (kept.record.chain.clone(), kept.record.directory.clone()))
        });
        // Only its own authority knows what is replaced.
        let known = known.filter(|(_, directory)| *directory == self.terms.directory);
        let before = known.and_then(|(chain, _)| first(&chain));
        let (state, subject) = (self.state.clone(), name.to_owned());
        let show = move |challenge: Challenge| {
            let (state, subject) = (state.clone(), subject.clone());
            async move {
                let at = challenge_key(&subject);
                let transaction = note("challenge.show", &subject).put(at, to_json(&challenge));
                // Whichever edge of this state is asked looks into the store before it says that there is nothing.
                let written = state.change(transaction).await;
                if is_written(&written) { Ok(()) } else { written.map_err(|error| error.to_string()) }
            }
            .boxed()
        };
        order::place(&account, name, before.as_ref(), &self.terms.challenges, show).await
    }

    /// What would come to nothing is not ordered: that would cost more than it tells.
    async fn look_ahead(&self, name: &str) -> Result<(), String> {
        let is_led_here =
            matches!(self.terms.challenges.first(), Some(ChallengeKind::Http | ChallengeKind::TlsAlpn));
        let identities = self.authority.identities(&self.terms.directory).await.unwrap_or_default();
        let looked = timeout(LONGEST_LOOK, self.ahead.look(name, is_led_here, &identities));
        // What takes longer is for the authority to find out.
        looked.await.unwrap_or(Ok(()))
    }

    fn record(&self, name: &str, bought: Bought) -> Result<Certificate, String> {
        let Bought { chain, key } = bought;
        let leaf = first(&chain).ok_or("the authority has sent no certificate that can be read")?;
        let key = self.keys.seal(&certificate_key(name), &key).ok_or("the private key cannot be sealed")?;
        let moment = |seconds: i64| {
            (UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())).into()
        };
        let record = Certificate {
            chain,
            key,
            not_before: moment(leaf.not_before),
            not_after: moment(leaf.not_after),
            directory: self.terms.directory.clone(),
            renew_at: None,
            ask_at: Some(Timestamp::now()),
        };
        if !leaf.names.iter().any(|own| own == name) || opened(name, &record, &self.keys).is_none() {
            return Err("the authority has sent a certificate for another name or key".to_owned());
        }
        Ok(record)
    }

    /// The account at the authority: the one that all edges of this state have, or a new one.
    async fn account(&self) -> Result<Account, Failed> {
        let known = self.account.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(account) = known {
            return Ok(account);
        }
        let at = authority_key(&self.authority_id());
        let account = match self.kept_account(&at).await? {
            Some(account) => account,
            None => {
                let contact = self.terms.email.as_ref().map(|email| format!("mailto:{email}"));
                let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
                let wish = NewAccount {
                    contact: &contact,
                    terms_of_service_agreed: true,
                    only_return_existing: false,
                };
                let directory = self.terms.directory.clone();
                let builder = Account::builder_with_http(Box::new(self.authority.clone()));
                let external = self.terms.external.as_ref();
                let external = external.map(|known| ExternalAccountKey::new(known.id.clone(), &known.key));
                let (account, credentials) =
                    builder.create(&wish, directory.clone(), external.as_ref()).await?;
                let credentials = serde_json::to_vec(&credentials).map_err(|error| error.to_string())?;
                let credentials = self
                    .keys
                    .seal(&at, &credentials)
                    .ok_or_else(|| "the account cannot be sealed".to_owned())?;
                let record = AuthorityAccount { directory, credentials };
                let transaction =
                    note("authority.account", &record.directory).if_absent(&at).put(&at, to_json(&record));
                match self.state.change(transaction).await {
                    Ok(()) => account,
                    // Another edge was first, which need not be known here yet; this account stays unused.
                    Err(_) => {
                        self.state.catch_up().await;
                        let kept = self.kept_account(&at).await?;
                        kept.ok_or_else(|| "the account cannot be written".to_owned())?
                    }
                }
            }
        };
        *self.account.lock().unwrap_or_else(PoisonError::into_inner) = Some(account.clone());
        Ok(account)
    }

    async fn kept_account(&self, at: &str) -> Result<Option<Account>, Failed> {
        let id = self.authority_id();
        let sealed = self
            .state
            .read(|snapshot| snapshot.authorities.get(&id).map(|kept| kept.record.credentials.clone()));
        let Some(sealed) = sealed else { return Ok(None) };
        let opened = self.keys.open(at, &sealed);
        let opened = opened.ok_or_else(|| "no key of the key file opens the account".to_owned())?;
        let credentials: AccountCredentials =
            serde_json::from_slice(&opened).map_err(|error| error.to_string())?;
        let builder = Account::builder_with_http(Box::new(self.authority.clone()));
        Ok(Some(builder.from_credentials(credentials).await?))
    }

    /// The authority does not know it: the next order makes another.
    async fn forget_account(&self) {
        *self.account.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let id = self.authority_id();
        let kept = self.state.read(|snapshot| snapshot.authorities.get(&id).map(|kept| kept.revision));
        if let Some(revision) = kept {
            let at = authority_key(&id);
            let transaction = note("authority.forget", &self.terms.directory).if_at(&at, revision).remove(at);
            let _ = self.state.change(transaction).await;
        }
    }

    fn authority_id(&self) -> String {
        let digest = Sha256::digest(&self.terms.directory);
        digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Asks the authority when it would have a certificate renewed (RFC 9773).
    async fn ask(self: Arc<Self>, name: String) {
        let kept = self.state.read(|snapshot| {
            snapshot.certificates.get(&name).map(|kept| (kept.record.clone(), kept.revision))
        });
        let Some((record, revision)) = kept else { return };
        let said = async {
            let account = self.account().await?;
            let leaf = first(&record.chain).and_then(|leaf| order::identifier(&leaf));
            let leaf = leaf.ok_or_else(|| "the certificate cannot be read".to_owned())?;
            match account.renewal_info(&leaf).await {
                Ok((info, again)) => {
                    let seconds =
                        |moment: i64| Duration::from_secs(u64::try_from(moment).unwrap_or_default());
                    let (start, end) = (
                        seconds(info.suggested_window.start.unix_timestamp()),
                        seconds(info.suggested_window.end.unix_timestamp()),
                    );
                    let within = start + end.saturating_sub(start).mul_f64(fraction(&name));
                    Ok((Some(Timestamp::from(UNIX_EPOCH + within)), again))
                }
                Err(Error::Unsupported(_)) => Ok((None, ASK_SELDOM)),
                Err(error) => Err(Failed::from(error)),
            }
        };
        let said = timeout(LONGEST_ORDER, said).await;
        let (renew_at, again) = match said {
            Ok(Ok((renew_at, again))) => (renew_at, again.clamp(ASK_OFTEN, ASK_SELDOM)),
            Ok(Err(_)) | Err(_) => (record.renew_at, ASK_AFTER_FAILURE),
        };
        if renew_at != record.renew_at {
            info!(name, renew_at = ?renew_at, "the authority says when a certificate is to be renewed");
        }
        let record = Certificate { renew_at, ask_at: Some(Timestamp::now().after(again)), ..record };
        let at = certificate_key(&name);
        let transaction = note("certificate.window", &name).if_at(&at, revision).put(at, to_json(&record));
        let _ = self.state.change(transaction).await;
    }
}

/// A certificate whose authority is to be asked when it would have it renewed.
fn questionable(snapshot: &Snapshot, wanted: &[Wanted], now: Timestamp) -> Option<String> {
    let mut all = wanted.iter().filter_map(|wanted| snapshot.certificates.get_key_value(&wanted.name));
    let is_due = |kept: &Certificate| kept.ask_at.is_none_or(|at| at <= now);
    all.find(|(_, kept)| is_due(&kept.record)).map(|(name, _)| name.clone())
}

/// Forgets what was noted about names that lead nowhere any more: their failures at once, their certificates when they
/// have ended.
fn unwanted(snapshot: &Snapshot, wanted: &[Wanted], now: Timestamp) -> Option<Transaction> {
    let is_wanted = |name: &str| wanted.binary_search_by(|known| known.name.as_str().cmp(name)).is_ok();
    let orders = snapshot.orders.iter();
    let orders = orders.filter(|(name, kept)| kept.record.holder.is_none() && !is_wanted(name));
    let orders = orders.map(|(name, kept)| (order_key(name), kept.revision));
    let ended = snapshot.certificates.iter();
    let ended = ended.filter(|(name, kept)| kept.record.not_after < now && !is_wanted(name));
    let ended = ended.map(|(name, kept)| (certificate_key(name), kept.revision));
    let old: Vec<_> = orders.chain(ended).take(MOST_AT_ONCE).collect();
    (!old.is_empty()).then(|| {
        let transaction = note("certificate.forget", &format!("{} records", old.len()));
        old.into_iter().fold(transaction, |all, (key, revision)| all.if_at(&key, revision).remove(key))
    })
}

fn first(chain: &str) -> Option<Leaf> {
    Leaf::of(&CertificateDer::from_pem_slice(chain.as_bytes()).ok()?)
}

/// Whether a change is in the store, and this edge knows it by now or soon.
fn is_written(change: &Result<(), ChangeError>) -> bool {
    matches!(change, Ok(()) | Err(ChangeError::Behind))
}

fn note(action: &'static str, subject: &str) -> Transaction {
    Transaction::new(AuditEntry { actor: "edge".to_owned(), action, subject: subject.to_owned() })
}

fn if_as(transaction: Transaction, key: &str, revision: Option<StoreRevision>) -> Transaction {
    match revision {
        Some(revision) => transaction.if_at(key, revision),
        None => transaction.if_absent(key),
    }
}

/// How long to wait after so many failures in a row: from a minute to a day.
fn pause(failures: u32, name: &str) -> Duration {
    let usual = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_PAUSE);
    usual.mul_f64(1.0 - 0.1 * fraction(name))
}

const EVERY: Duration = Duration::from_secs(1);
const BREATH: Duration = Duration::from_millis(100);
/// Orders of one edge under way.
const AT_ONCE: usize = 4;
/// Whoever has claimed a name has it for so long; a crash costs as much.
const CLAIM: Duration = Duration::from_secs(10 * 60);
/// From the claim to the certificate.
const LONGEST_ORDER: Duration = Duration::from_secs(5 * 60);
/// For what name servers say before an order.
const LONGEST_LOOK: Duration = Duration::from_secs(15);
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);
/// Characters of what an authority says that are kept.
const LONGEST_ERROR: usize = 1000;
/// How often an authority is asked when it would have a certificate renewed, whatever it says itself.
const ASK_OFTEN: Duration = Duration::from_secs(60);
const ASK_SELDOM: Duration = Duration::from_secs(24 * 60 * 60);
const ASK_AFTER_FAILURE: Duration = Duration::from_secs(60 * 60);
/// Records that are forgotten in one go.
const MOST_AT_ONCE: usize = 100;
