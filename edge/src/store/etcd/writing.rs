//! A transaction as etcd takes it, and what its answer says. Knows messages and keys; asks nobody.
//!
//! Every transaction writes two records besides: the line of the audit log, which also tells whether a transaction
//! whose answer was lost has been done, and the mark, whose revision is the one of the fleet's last change and whose
//! content differs each time, so that a history that was put back can be told from the one that was known.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;
use uuid::Uuid;

use super::messages::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, KeyValue, PutRequest, RangeRequest, Request,
    RequestOp, TxnRequest, TxnResponse,
};
use crate::store::timestamp::Timestamp;
use crate::store::{self, Commit, Operation, StoreRevision, Transaction};

/// Where a fleet's records are in etcd.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    root: String,
}

impl Keys {
    pub(super) fn of(fleet: &str) -> Self {
        Self { root: format!("/adit/{fleet}/") }
    }

    /// What says which fleet this is.
    pub(super) fn fleet(&self) -> String {
        format!("{}fleet", self.root)
    }

    /// The record without a name is the mark.
    pub(super) fn record(&self, key: &str) -> String {
        format!("{}s/{key}", self.root)
    }

    pub(super) fn mark(&self) -> String {
        self.record("")
    }

    pub(super) fn audit(&self, line: &str) -> String {
        format!("{}a/{line}", self.root)
    }

    /// The name of a record; `None` if it is none of this fleet.
    pub(super) fn name<'k>(&self, key: &'k [u8]) -> Option<&'k str> {
        let key = std::str::from_utf8(key).ok()?;
        key.strip_prefix(self.root.as_str())?.strip_prefix("s/")
    }
}

/// The key and the end of a range that holds what begins with `prefix`.
pub(super) fn range(prefix: &str) -> (Bytes, Bytes) {
    let end = store::behind(prefix).unwrap_or_else(|| "\0".to_owned());
    (prefix.to_owned().into(), end.into())
}

/// A transaction that may be sent again until it is answered: it is done once.
#[derive(Debug)]
pub(super) struct Writing {
    pub(super) request: TxnRequest,
    /// The records that it compares, in this order, and behind them the line of the audit log.
    compared: Vec<(String, i64)>,
}

/// It does not fit into one transaction of etcd.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge(pub(super) String);

impl Writing {
    pub(super) fn new(keys: &Keys, transaction: Transaction, now: Timestamp) -> Result<Self, TooLarge> {
        let id = Uuid::new_v4();
        let Transaction { compares, operations, note } = transaction;
        let mut compared: Vec<_> = compares
            .into_iter()
            .map(|compare| match compare {
                store::Compare::Absent(key) => (key, 0),
                store::Compare::At(key, revision) => (key, number(revision)),
            })
            .collect();
        let mut compare: Vec<_> =
            compared.iter().map(|(key, revision)| unchanged(keys.record(key), *revision)).collect();
        let line = keys.audit(&format!("{now} {id}"));
        compare.push(unchanged(line.clone(), 0));
        compared.push((String::new(), 0));

        // What is said last of a key counts, as everywhere; etcd takes one operation for each.
        let mut last = HashMap::new();
        let mut wanted: Vec<Request> = Vec::new();
        for operation in operations {
            let (key, request) = match operation {
                Operation::Put(key, value) => {
                    let put = PutRequest { key: keys.record(&key).into(), value, lease: 0 };
                    (key, Request::Put(put))
                }
                Operation::Remove(key) => {
                    let at = keys.record(&key).into();
                    (key, Request::DeleteRange(DeleteRangeRequest { key: at, range_end: Bytes::new() }))
                }
            };
            match last.get(&key) {
                Some(&at) => wanted[at] = request,
                None => {
                    last.insert(key, wanted.len());
                    wanted.push(request);
                }
            }
        }
        let mark = Bytes::copy_from_slice(id.as_bytes());
        wanted.push(Request::Put(PutRequest { key: keys.mark().into(), value: mark, lease: 0 }));
        let said = serde_json::json!({ "at": now, "actor": note.actor, "action": note.action, "subject": note.subject });
        let said = said.to_string().into();
        wanted.push(Request::Put(PutRequest { key: line.clone().into(), value: said, lease: 0 }));

        let failure = compared.iter().map(|(key, _)| keys.record(key));
        let failure = failure.take(compared.len() - 1).chain([line]).map(look).collect();
        let success = grouped(wanted, compare.len())?;
        let request = TxnRequest { compare, success, failure };
        let length = request.encoded_len();
        if length > LARGEST {
            return Err(TooLarge(format!("it has {length} bytes, and etcd takes {LARGEST} at once")));
        }
        Ok(Self { request, compared })
    }

    /// What an answer says. `None`: it says something that cannot be.
    pub(super) fn outcome(&self, answer: &TxnResponse) -> Option<Commit> {
        if answer.succeeded {
            let revision = answer.header.as_ref()?.revision;
            return Some(Commit::Done(revision_of(revision)));
        }
        let found = answer.responses.iter().map(|one| one.range.as_ref().map(|range| range.kvs.first()));
        let found: Vec<Option<&KeyValue>> = found.collect::<Option<_>>()?;
        // It was sent before, and was done.
        if let Some(line) = found.get(self.compared.len() - 1)? {
            return Some(Commit::Done(revision_of(line.mod_revision)));
        }
        let differs = |(found, (_, wanted)): &(&Option<&KeyValue>, &(String, i64))| {
            found.map_or(0, |record| record.mod_revision) != *wanted
        };
        let (_, (key, _)) = found.iter().zip(&self.compared).find(differs)?;
        Some(Commit::Conflict { key: key.clone() })
    }
}

/// That a key is as it was at this revision; 0: that it is not there.
fn unchanged(key: String, revision: i64) -> Compare {
    let target = if revision == 0 { CompareTarget::Create } else { CompareTarget::Mod };
    Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key: key.into(),
        create_revision: (revision == 0).then_some(0),
        mod_revision: (revision != 0).then_some(revision),
    }
}

fn look(key: String) -> RequestOp {
    Request::Range(RangeRequest { key: key.into(), keys_only: true, ..RangeRequest::default() }).into()
}

/// As many as etcd takes in one transaction, else in transactions within it, which are done with it. It allows each of
/// those as many as are left of its limit behind the longest list of the one around it.
fn grouped(wanted: Vec<Request>, compares: usize) -> Result<Vec<RequestOp>, TooLarge> {
    let count = wanted.len();
    if compares > MOST_OPERATIONS {
        return Err(TooLarge(format!(
            "it depends on {compares} records, and etcd compares {MOST_OPERATIONS}"
        )));
    }
    if count <= MOST_OPERATIONS {
        return Ok(wanted.into_iter().map(RequestOp::from).collect());
    }
    let fits = |groups: &usize| count.div_ceil(*groups) + compares.max(*groups) <= MOST_OPERATIONS;
    let Some(groups) = (2..MOST_OPERATIONS).find(fits) else {
        return Err(TooLarge(format!("it changes {count} records; make several changes of it")));
    };
    let mut wanted = wanted.into_iter();
    let size = count.div_ceil(groups);
    let group = |_| {
        let success = wanted.by_ref().take(size).map(RequestOp::from).collect();
        Request::Txn(TxnRequest { success, ..TxnRequest::default() }).into()
    };
    Ok((0..groups).map(group).collect())
}

/// Revisions of etcd are positive.
pub(super) fn revision_of(number: i64) -> StoreRevision {
    StoreRevision(u64::try_from(number).unwrap_or_default())
}

pub(super) fn number(revision: StoreRevision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

/// What etcd takes by default (`--max-txn-ops` is 128), less what it may count besides.
const MOST_OPERATIONS: usize = 126;
/// Bytes that etcd takes by default (`--max-request-bytes` is 1.5 MiB), less what it adds.
const LARGEST: usize = (1 << 20) + (448 << 10);

#[cfg(test)]
mod tests {
    use super::super::messages::{Header, RangeResponse, ResponseOp};
    use super::*;
    use crate::store::AuditEntry;

    fn note() -> AuditEntry {
        AuditEntry { actor: "a".to_owned(), action: "b", subject: "c".to_owned() }
    }

    fn writing(transaction: Transaction) -> Result<Writing, TooLarge> {
        Writing::new(&Keys::of("main"), transaction, Timestamp::now())
    }

    fn puts(count: usize) -> Transaction {
        (0..count).fold(Transaction::new(note()), |all, number| all.put(format!("k/{number}"), "v"))
    }

    #[test]
    fn what_is_too_much_for_one_list_stays_one_transaction() {
        for count in [1, 124, 125, 126, 127, 500, 3_900] {
            let request = writing(puts(count)).unwrap().request;
            let mut keys = Vec::new();
            for one in &request.success {
                match one.request.as_ref().unwrap() {
                    Request::Put(put) => keys.push(put.key.clone()),
                    Request::Txn(group) => {
                        let lists = [group.success.len(), group.compare.len(), group.failure.len()];
                        let outside = [request.success.len(), request.compare.len(), request.failure.len()];
                        // As etcd checks it, with its limit of 128.
                        assert!(
                            lists.iter().max().unwrap() + outside.iter().max().unwrap() <= 128,
                            "{count}"
                        );
                        keys.extend(group.success.iter().map(|one| match one.request.as_ref().unwrap() {
                            Request::Put(put) => put.key.clone(),
                            other @ (Request::Range(_) | Request::DeleteRange(_) | Request::Txn(_)) => {
                                panic!("{other:?}")
                            }
                        }));
                    }
                    other @ (Request::Range(_) | Request::DeleteRange(_)) => panic!("{other:?}"),
                }
            }
            assert!(request.success.len() <= 128);
            assert_eq!(keys.len(), count + 2, "with the mark and the line of the audit log");
            keys.sort();
            keys.dedup();
            assert_eq!(keys.len(), count + 2);
        }
        assert!(writing(puts(5_000)).unwrap_err().0.contains("5002 records"));
        let many = (0..127).fold(puts(1), |all, number| all.if_absent(number.to_string()));
        assert!(writing(many).unwrap_err().0.contains("depends on 128"));
        let long = Transaction::new(note()).put("k", vec![0; 1_600_000]);
        assert!(writing(long).unwrap_err().0.contains("bytes"));
    }

    #[test]
    fn what_is_said_last_of_a_key_counts() {
        let transaction = Transaction::new(note()).put("a", "1").put("b", "2").remove("a").put("b", "3");
        let request = writing(transaction).unwrap().request;
        let said = request.success.iter().map(|one| one.request.clone().unwrap()).take(2);
        let [Request::DeleteRange(a), Request::Put(b)] = &said.collect::<Vec<_>>()[..] else { panic!() };
        assert_eq!(
            (&a.key[..], &b.key[..], &b.value[..]),
            (&b"/adit/main/s/a"[..], &b"/adit/main/s/b"[..], &b"3"[..])
        );
    }

    #[test]
    fn an_answer_says_what_differed_or_that_it_was_done_before() {
        let transaction = Transaction::new(note()).if_absent("a").if_at("b", StoreRevision(7)).put("c", "1");
        let writing = writing(transaction).unwrap();
        let header = Some(Header { cluster_id: 1, revision: 20 });
        let range = |found: i64| {
            let record = KeyValue { mod_revision: found, ..KeyValue::default() };
            let kvs = if found == 0 { Vec::new() } else { vec![record] };
            ResponseOp { range: Some(RangeResponse { kvs, ..RangeResponse::default() }) }
        };
        let refused = |found: [i64; 3]| {
            let responses = found.map(range).to_vec();
            writing.outcome(&TxnResponse { header: header.clone(), succeeded: false, responses })
        };
        let conflict = |key: &str| Some(Commit::Conflict { key: key.to_owned() });
        assert_eq!(refused([3, 7, 0]), conflict("a"));
        assert_eq!(refused([0, 8, 0]), conflict("b"));
        assert_eq!(refused([0, 0, 0]), conflict("b"));
        assert_eq!(refused([3, 9, 15]), Some(Commit::Done(StoreRevision(15))), "whatever came after it");
        assert_eq!(refused([0, 7, 0]), None, "nothing differs");
        assert_eq!(writing.outcome(&TxnResponse::default()), None);
        let done = TxnResponse { header, succeeded: true, responses: Vec::new() };
        assert_eq!(writing.outcome(&done), Some(Commit::Done(StoreRevision(20))));
    }
}
