//! What others standardise for configuration, values and logs, on what a plugin has here: `wasi:config`,
//! `wasi:keyvalue` and `wasi:logging`. They are drafts, each of which fits its own version alone.

use std::collections::BTreeMap;

use tracing::Level;
use wasmtime::component::{HasSelf, Linker, Resource};

use super::super::bindings::adit::plugin::key_value::Error;
use super::super::store::State;
use super::key_value::Bucket;

/// The interfaces that are linked.
pub(super) const INTERFACES: [&str; 7] = [
    "wasi:config/store@0.2.0-rc.1",
    "wasi:keyvalue/store@0.2.0-draft",
    "wasi:keyvalue/atomics@0.2.0-draft",
    "wasi:keyvalue/store@0.2.0-draft2",
    "wasi:keyvalue/atomics@0.2.0-draft2",
    "wasi:logging/logging",
    "wasi:logging/logging@0.1.0-draft",
];
/// Keys of a bucket that are listed at once.
const LISTED: usize = 1000;

mod config {
    wasmtime::component::bindgen!({
        inline: "
            package wasi:config@0.2.0-rc.1;
            interface store {
                variant error { upstream(string), io(string) }
                get: func(key: string) -> result<option<string>, error>;
                get-all: func() -> result<list<tuple<string, string>>, error>;
            }
            world imports { import store; }
        ",
        world: "imports",
    });
}

mod draft {
    wasmtime::component::bindgen!({
        inline: "
            package wasi:keyvalue@0.2.0-draft;
            interface store {
                variant error { no-such-store, access-denied, other(string) }
                record key-response { keys: list<string>, cursor: option<u64> }
                open: func(identifier: string) -> result<bucket, error>;
                resource bucket {
                    get: func(key: string) -> result<option<list<u8>>, error>;
                    set: func(key: string, value: list<u8>) -> result<_, error>;
                    delete: func(key: string) -> result<_, error>;
                    exists: func(key: string) -> result<bool, error>;
                    list-keys: func(cursor: option<u64>) -> result<key-response, error>;
                }
            }
            interface atomics {
                use store.{bucket, error};
                increment: func(bucket: borrow<bucket>, key: string, delta: u64) -> result<u64, error>;
            }
            world imports { import store; import atomics; }
        ",
        world: "imports",
        imports: { default: trappable },
        with: { "wasi:keyvalue/store.bucket": super::Opened },
    });
}

mod draft2 {
    wasmtime::component::bindgen!({
        inline: "
            package wasi:keyvalue@0.2.0-draft2;
            interface store {
                variant error { no-such-store, access-denied, other(string) }
                record key-response { keys: list<string>, cursor: option<string> }
                open: func(identifier: string) -> result<bucket, error>;
                resource bucket {
                    get: func(key: string) -> result<option<list<u8>>, error>;
                    set: func(key: string, value: list<u8>) -> result<_, error>;
                    delete: func(key: string) -> result<_, error>;
                    exists: func(key: string) -> result<bool, error>;
                    list-keys: func(cursor: option<string>) -> result<key-response, error>;
                }
            }
            interface atomics {
                use store.{bucket, error};
                variant cas-error { store-error(error), cas-failed(cas) }
                resource cas {
                    new: static func(bucket: borrow<bucket>, key: string) -> result<cas, error>;
                    current: func() -> result<option<list<u8>>, error>;
                }
                increment: func(bucket: borrow<bucket>, key: string, delta: s64) -> result<s64, error>;
                swap: func(cas: cas, value: list<u8>) -> result<_, cas-error>;
            }
            world imports { import store; import atomics; }
        ",
        world: "imports",
        imports: { default: trappable },
        with: { "wasi:keyvalue/store.bucket": super::Opened, "wasi:keyvalue/atomics.cas": super::Seen },
    });
}

mod logging {
    wasmtime::component::bindgen!({
        inline: "
            package wasi:logging;
            interface logging {
                enum level { trace, debug, info, warn, error, critical }
                log: func(level: level, context: string, message: string);
            }
            world imports { import logging; }
        ",
        world: "imports",
    });
}

/// An opened bucket, by its name.
// What is generated exports it anew.
#[allow(unreachable_pub)]
pub struct Opened(String);

/// A value as it was when somebody looked, for a swap of what has not changed since.
#[allow(unreachable_pub)]
pub struct Seen {
    bucket: String,
    key: String,
    value: Option<Vec<u8>>,
}

pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    config::wasi::config::store::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    draft::wasi::keyvalue::store::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    draft::wasi::keyvalue::atomics::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    draft2::wasi::keyvalue::store::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    draft2::wasi::keyvalue::atomics::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    logging::wasi::logging::logging::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    // The same with a version, as some have it.
    linker.instance("wasi:logging/logging@0.1.0-draft")?.func_wrap(
        "log",
        |mut store: wasmtime::StoreContextMut<'_, State>,
         (level, context, message): (logging::wasi::logging::logging::Level, String, String)| {
            logging::wasi::logging::logging::Host::log(store.data_mut(), level, context, message);
            Ok(())
        },
    )
}

impl config::wasi::config::store::Host for State {
    fn get(&mut self, key: String) -> Result<Option<String>, config::wasi::config::store::Error> {
        Ok(self.sandbox.config.get(&key).cloned())
    }

    fn get_all(&mut self) -> Result<Vec<(String, String)>, config::wasi::config::store::Error> {
        Ok(self.sandbox.config.clone().into_iter().collect())
    }
}

impl logging::wasi::logging::logging::Host for State {
    fn log(&mut self, level: logging::wasi::logging::logging::Level, context: String, message: String) {
        use logging::wasi::logging::logging::Level as Theirs;
        let level = match level {
            Theirs::Trace => Level::TRACE,
            Theirs::Debug => Level::DEBUG,
            Theirs::Info => Level::INFO,
            Theirs::Warn => Level::WARN,
            Theirs::Error | Theirs::Critical => Level::ERROR,
        };
        let message = if context.is_empty() { message } else { format!("{context}: {message}") };
        self.sandbox.log.write(level, &self.request, &message);
    }
}

/// What is common to the versions: an operation on a granted bucket.
impl State {
    fn opened(&mut self, name: &str) -> Result<(&Bucket, usize, std::time::Instant), Error> {
        let now = self.sandbox.time.instant();
        let (bucket, quota) = self.bucket(name)?;
        Ok((bucket, quota, now))
    }

    fn name_of(&self, bucket: &Resource<Opened>) -> wasmtime::Result<String> {
        Ok(self.resources.get(bucket)?.0.clone())
    }
}

/// The configuration by key: texts as they are, and all else as JSON.
pub(crate) fn configuration(json: &str) -> BTreeMap<String, String> {
    let keys: BTreeMap<String, serde_json::Value> = serde_json::from_str(json).unwrap_or_default();
    let text = |value: serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    keys.into_iter().map(|(key, value)| (key, text(value))).collect()
}

/// `store` of one version of `wasi:keyvalue`; what differs is a cursor.
macro_rules! store {
    ($draft:ident, $cursor:ty) => {
        const _: () = {
            use $draft::wasi::keyvalue::store as theirs;

            impl theirs::Host for State {
                fn open(
                    &mut self,
                    identifier: String,
                ) -> wasmtime::Result<Result<Resource<Opened>, theirs::Error>> {
                    if self.opened(&identifier).is_err() {
                        return Ok(Err(theirs::Error::NoSuchStore));
                    }
                    Ok(Ok(self.resources.push(Opened(identifier))?))
                }
            }

            impl theirs::HostBucket for State {
                fn get(
                    &mut self,
                    bucket: Resource<Opened>,
                    key: String,
                ) -> wasmtime::Result<Result<Option<Vec<u8>>, theirs::Error>> {
                    let name = self.name_of(&bucket)?;
                    let value = self.opened(&name).map(|(bucket, _, now)| bucket.value(&key, now));
                    Ok(value.map_err(theirs::Error::from))
                }

                fn set(
                    &mut self,
                    bucket: Resource<Opened>,
                    key: String,
                    value: Vec<u8>,
                ) -> wasmtime::Result<Result<(), theirs::Error>> {
                    let name = self.name_of(&bucket)?;
                    let opened = self.opened(&name);
                    let done =
                        opened.and_then(|(bucket, quota, now)| bucket.put(key, value, None, quota, now));
                    Ok(done.map_err(theirs::Error::from))
                }

                fn delete(
                    &mut self,
                    bucket: Resource<Opened>,
                    key: String,
                ) -> wasmtime::Result<Result<(), theirs::Error>> {
                    let name = self.name_of(&bucket)?;
                    let done = self.opened(&name).map(|(bucket, ..)| bucket.remove(&key));
                    Ok(done.map_err(theirs::Error::from))
                }

                fn exists(
                    &mut self,
                    bucket: Resource<Opened>,
                    key: String,
                ) -> wasmtime::Result<Result<bool, theirs::Error>> {
                    let name = self.name_of(&bucket)?;
                    let there = self.opened(&name).map(|(bucket, _, now)| bucket.value(&key, now).is_some());
                    Ok(there.map_err(theirs::Error::from))
                }

                fn list_keys(
                    &mut self,
                    bucket: Resource<Opened>,
                    cursor: Option<$cursor>,
                ) -> wasmtime::Result<Result<theirs::KeyResponse, theirs::Error>> {
                    let name = self.name_of(&bucket)?;
                    let begin: usize = cursor.and_then(|cursor| cursor.to_string().parse().ok()).unwrap_or(0);
                    let listed = self.opened(&name).map(|(bucket, _, now)| {
                        let all = bucket.keys(now);
                        let end = begin.saturating_add(LISTED);
                        let cursor = (end < all.len()).then(|| end.to_string().parse().ok()).flatten();
                        theirs::KeyResponse {
                            keys: all.into_iter().skip(begin).take(LISTED).collect(),
                            cursor,
                        }
                    });
                    Ok(listed.map_err(theirs::Error::from))
                }

                fn drop(&mut self, bucket: Resource<Opened>) -> wasmtime::Result<()> {
                    self.resources.delete(bucket)?;
                    Ok(())
                }
            }

            impl From<Error> for theirs::Error {
                fn from(error: Error) -> Self {
                    match error {
                        Error::NoSuchBucket => Self::NoSuchStore,
                        Error::Full => Self::Other("the bucket is full".to_owned()),
                        Error::TooLarge => Self::Other("the key or the value is too large".to_owned()),
                        Error::NotANumber => Self::Other("the value is not a number".to_owned()),
                    }
                }
            }
        };
    };
}

store!(draft, u64);
store!(draft2, String);

impl draft::wasi::keyvalue::atomics::Host for State {
    fn increment(
        &mut self,
        bucket: Resource<Opened>,
        key: String,
        delta: u64,
    ) -> wasmtime::Result<Result<u64, draft::wasi::keyvalue::store::Error>> {
        let by = i64::try_from(delta).unwrap_or(i64::MAX);
        let sum = self.increased(&bucket, key, by)?;
        Ok(sum.map(|sum| u64::try_from(sum).unwrap_or(0)).map_err(Into::into))
    }
}

impl draft2::wasi::keyvalue::atomics::Host for State {
    fn increment(
        &mut self,
        bucket: Resource<Opened>,
        key: String,
        delta: i64,
    ) -> wasmtime::Result<Result<i64, draft2::wasi::keyvalue::store::Error>> {
        Ok(self.increased(&bucket, key, delta)?.map_err(Into::into))
    }

    fn swap(
        &mut self,
        cas: Resource<Seen>,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), draft2::wasi::keyvalue::atomics::CasError>> {
        use draft2::wasi::keyvalue::atomics::CasError;
        let Seen { bucket, key, value: seen } = self.resources.delete(cas)?;
        let opened = self.opened(&bucket);
        match opened.and_then(|(bucket, quota, now)| bucket.swap(&key, seen.as_deref(), value, quota, now)) {
            Ok(None) => Ok(Ok(())),
            Ok(Some(current)) => {
                let seen = self.resources.push(Seen { bucket, key, value: current.0 })?;
                Ok(Err(CasError::CasFailed(seen)))
            }
            Err(error) => Ok(Err(CasError::StoreError(error.into()))),
        }
    }
}

impl draft2::wasi::keyvalue::atomics::HostCas for State {
    fn new(
        &mut self,
        bucket: Resource<Opened>,
        key: String,
    ) -> wasmtime::Result<Result<Resource<Seen>, draft2::wasi::keyvalue::store::Error>> {
        let bucket = self.name_of(&bucket)?;
        match self.opened(&bucket).map(|(bucket, _, now)| bucket.value(&key, now)) {
            Ok(value) => Ok(Ok(self.resources.push(Seen { bucket, key, value })?)),
            Err(error) => Ok(Err(error.into())),
        }
    }

    fn current(
        &mut self,
        cas: Resource<Seen>,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, draft2::wasi::keyvalue::store::Error>> {
        Ok(Ok(self.resources.get(&cas)?.value.clone()))
    }

    fn drop(&mut self, cas: Resource<Seen>) -> wasmtime::Result<()> {
        self.resources.delete(cas)?;
        Ok(())
    }
}

impl State {
    fn increased(
        &mut self,
        bucket: &Resource<Opened>,
        key: String,
        by: i64,
    ) -> wasmtime::Result<Result<i64, Error>> {
        let name = self.name_of(bucket)?;
        let opened = self.opened(&name);
        Ok(opened.and_then(|(bucket, quota, now)| bucket.increase(key, by, None, quota, now)))
    }
}
