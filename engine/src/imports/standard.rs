//! What others standardise for configuration, values and logs, on what a plugin has here: `wasi:config`,
//! `wasi:keyvalue` and `wasi:logging`. They are drafts, each of which fits its own version alone.

mod bindings;

use std::collections::BTreeMap;
use std::time::Instant;

use tracing::Level;
use wasmtime::component::{HasSelf, Linker, Resource};

use super::super::bindings::adit::plugin::key_value::Error;
use super::super::store::State;
use super::key_value::{Listed, Store};
use bindings::{config, config_draft, draft, draft2, logging};

/// The interfaces that are linked.
const INTERFACES: [&str; 10] = [
    "wasi:config/store@0.2.0-draft-2024-09-27",
    "wasi:config/store@0.2.0-rc.1",
    "wasi:keyvalue/store@0.2.0-draft",
    "wasi:keyvalue/atomics@0.2.0-draft",
    "wasi:keyvalue/batch@0.2.0-draft",
    "wasi:keyvalue/store@0.2.0-draft2",
    "wasi:keyvalue/atomics@0.2.0-draft2",
    "wasi:keyvalue/batch@0.2.0-draft2",
    "wasi:logging/logging",
    "wasi:logging/logging@0.1.0-draft",
];
const CONFIGURATION: &str = "wasi:config/store";
/// The bucket that a guest gets that names none, where several are granted.
const DEFAULT_BUCKET: &str = "default";
/// Bytes of values, with their keys, that are read at once.
const READ_AT_ONCE: usize = 16 * 1024 * 1024;
const TOO_MUCH: &str = "query result exceeds limit of 16 MiB";

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
    config_draft::wasi::config::store::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    draft::wasi::keyvalue::store::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    draft::wasi::keyvalue::atomics::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    draft2::wasi::keyvalue::store::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    draft2::wasi::keyvalue::atomics::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    draft::wasi::keyvalue::batch::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    draft2::wasi::keyvalue::batch::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
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

/// `store` of one version of `wasi:config`.
macro_rules! config {
    ($version:ident) => {
        impl $version::wasi::config::store::Host for State {
            fn get(&mut self, key: String) -> Result<Option<String>, $version::wasi::config::store::Error> {
                Ok(self.sandbox.config.get(&key).cloned())
            }

            fn get_all(&mut self) -> Result<Vec<(String, String)>, $version::wasi::config::store::Error> {
                Ok(self.sandbox.config.clone().into_iter().collect())
            }
        }
    };
}

config!(config);
config!(config_draft);

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
    fn opened(&self, bucket: &Resource<Opened>) -> wasmtime::Result<Result<(Store, Instant), Error>> {
        let store = self.bucket(&self.resources.get(bucket)?.0);
        Ok(store.map(|store| (store, self.sandbox.time.instant())))
    }

    /// The bucket that a guest means: where it names none, the only one that is granted, or else `default`.
    fn meant(&self, identifier: String) -> String {
        let buckets = &self.sandbox.buckets;
        if !identifier.is_empty() || buckets.contains_key("") {
            return identifier;
        }
        let only = buckets.keys().next().filter(|_| buckets.len() == 1);
        only.cloned().unwrap_or_else(|| DEFAULT_BUCKET.to_owned())
    }
}

/// Whether an import is one of these.
pub(super) fn serves(import: &str) -> bool {
    INTERFACES.contains(&import)
}

/// Whether an import is of the configuration.
pub(super) fn is_configuration(import: &str) -> bool {
    serves(import) && import.split_once('@').is_some_and(|(name, _)| name == CONFIGURATION)
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
                async fn open(
                    &mut self,
                    identifier: String,
                ) -> wasmtime::Result<Result<Resource<Opened>, theirs::Error>> {
                    let identifier = self.meant(identifier);
                    if self.bucket(&identifier).is_err() {
                        return Ok(Err(theirs::Error::AccessDenied));
                    }
                    Ok(Ok(self.resources.push(Opened(identifier))?))
                }
            }

            impl theirs::HostBucket for State {
                async fn get(
                    &mut self,
                    bucket: Resource<Opened>,
                    key: String,
                ) -> wasmtime::Result<Result<Option<Vec<u8>>, theirs::Error>> {
                    match self.opened(&bucket)? {
                        Ok((store, now)) => Ok(store.value(key, now).await?.map_err(Into::into)),
                        Err(error) => Ok(Err(error.into())),
                    }
                }

                async fn set(
                    &mut self,
                    bucket: Resource<Opened>,
                    key: String,
                    value: Vec<u8>,
                ) -> wasmtime::Result<Result<(), theirs::Error>> {
                    match self.opened(&bucket)? {
                        Ok((store, now)) => Ok(store.put(key, value, None, now).await?.map_err(Into::into)),
                        Err(error) => Ok(Err(error.into())),
                    }
                }

                async fn delete(
                    &mut self,
                    bucket: Resource<Opened>,
                    key: String,
                ) -> wasmtime::Result<Result<(), theirs::Error>> {
                    match self.opened(&bucket)? {
                        Ok((store, _)) => Ok(store.remove(key).await?.map_err(Into::into)),
                        Err(error) => Ok(Err(error.into())),
                    }
                }

                async fn exists(
                    &mut self,
                    bucket: Resource<Opened>,
                    key: String,
                ) -> wasmtime::Result<Result<bool, theirs::Error>> {
                    match self.opened(&bucket)? {
                        Ok((store, now)) => {
                            let value = store.value(key, now).await?;
                            Ok(value.map(|value| value.is_some()).map_err(Into::into))
                        }
                        Err(error) => Ok(Err(error.into())),
                    }
                }

                async fn list_keys(
                    &mut self,
                    bucket: Resource<Opened>,
                    cursor: Option<$cursor>,
                ) -> wasmtime::Result<Result<theirs::KeyResponse, theirs::Error>> {
                    let begin = cursor.and_then(|cursor| cursor.to_string().parse().ok()).unwrap_or(0);
                    let listed = match self.opened(&bucket)? {
                        Ok((store, now)) => store.keys(begin, now).await?,
                        Err(error) => Err(error),
                    };
                    let response = |Listed { keys, next }| {
                        let cursor = next.and_then(|next: u64| next.to_string().parse().ok());
                        theirs::KeyResponse { keys, cursor }
                    };
                    Ok(listed.map(response).map_err(Into::into))
                }

                async fn drop(&mut self, bucket: Resource<Opened>) -> wasmtime::Result<()> {
                    self.resources.delete(bucket)?;
                    Ok(())
                }
            }

            impl From<Error> for theirs::Error {
                fn from(error: Error) -> Self {
                    match error {
                        Error::NoSuchBucket => Self::AccessDenied,
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

/// `batch` of one version; what differs is how a key without a value is told.
macro_rules! batch {
    ($draft:ident, $told:ty, $tell:expr) => {
        const _: () = {
            use $draft::wasi::keyvalue::{batch, store::Error as Theirs};

            impl batch::Host for State {
                async fn get_many(
                    &mut self,
                    bucket: Resource<Opened>,
                    keys: Vec<String>,
                ) -> wasmtime::Result<Result<Vec<$told>, Theirs>> {
                    let (store, now) = match self.opened(&bucket)? {
                        Ok(opened) => opened,
                        Err(error) => return Ok(Err(error.into())),
                    };
                    let (mut told, mut left) = (Vec::with_capacity(keys.len()), READ_AT_ONCE);
                    for key in keys {
                        let value = match store.value(key.clone(), now).await? {
                            Ok(value) => value,
                            Err(error) => return Ok(Err(error.into())),
                        };
                        let length = key.len() + value.as_ref().map_or(0, Vec::len);
                        let Some(rest) = left.checked_sub(length) else {
                            return Ok(Err(Theirs::Other(TOO_MUCH.to_owned())));
                        };
                        left = rest;
                        told.push($tell(key, value));
                    }
                    Ok(Ok(told))
                }

                async fn set_many(
                    &mut self,
                    bucket: Resource<Opened>,
                    pairs: Vec<(String, Vec<u8>)>,
                ) -> wasmtime::Result<Result<(), Theirs>> {
                    let (store, now) = match self.opened(&bucket)? {
                        Ok(opened) => opened,
                        Err(error) => return Ok(Err(error.into())),
                    };
                    for (key, value) in pairs {
                        if let Err(error) = store.put(key, value, None, now).await? {
                            return Ok(Err(error.into()));
                        }
                    }
                    Ok(Ok(()))
                }

                async fn delete_many(
                    &mut self,
                    bucket: Resource<Opened>,
                    keys: Vec<String>,
                ) -> wasmtime::Result<Result<(), Theirs>> {
                    let store = match self.opened(&bucket)? {
                        Ok((store, _)) => store,
                        Err(error) => return Ok(Err(error.into())),
                    };
                    for key in keys {
                        if let Err(error) = store.remove(key).await? {
                            return Ok(Err(error.into()));
                        }
                    }
                    Ok(Ok(()))
                }
            }
        };
    };
}

batch!(draft, Option<(String, Vec<u8>)>, |key, value: Option<Vec<u8>>| value.map(|value| (key, value)));
batch!(draft2, (String, Option<Vec<u8>>), |key, value| (key, value));

impl draft::wasi::keyvalue::atomics::Host for State {
    async fn increment(
        &mut self,
        bucket: Resource<Opened>,
        key: String,
        delta: u64,
    ) -> wasmtime::Result<Result<u64, draft::wasi::keyvalue::store::Error>> {
        let by = i64::try_from(delta).unwrap_or(i64::MAX);
        let sum = self.increased(&bucket, key, by).await?;
        Ok(sum.map(|sum| u64::try_from(sum).unwrap_or(0)).map_err(Into::into))
    }
}

impl draft2::wasi::keyvalue::atomics::Host for State {
    async fn increment(
        &mut self,
        bucket: Resource<Opened>,
        key: String,
        delta: i64,
    ) -> wasmtime::Result<Result<i64, draft2::wasi::keyvalue::store::Error>> {
        Ok(self.increased(&bucket, key, delta).await?.map_err(Into::into))
    }

    async fn swap(
        &mut self,
        cas: Resource<Seen>,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), draft2::wasi::keyvalue::atomics::CasError>> {
        use draft2::wasi::keyvalue::atomics::CasError;
        let Seen { bucket, key, value: seen } = self.resources.delete(cas)?;
        let now = self.sandbox.time.instant();
        let swapped = match self.bucket(&bucket) {
            Ok(store) => store.swap(key.clone(), seen, value, now).await?,
            Err(error) => Err(error),
        };
        match swapped {
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
    async fn new(
        &mut self,
        bucket: Resource<Opened>,
        key: String,
    ) -> wasmtime::Result<Result<Resource<Seen>, draft2::wasi::keyvalue::store::Error>> {
        let looked = match self.opened(&bucket)? {
            Ok((store, now)) => store.value(key.clone(), now).await?,
            Err(error) => Err(error),
        };
        let bucket = self.resources.get(&bucket)?.0.clone();
        match looked {
            Ok(value) => Ok(Ok(self.resources.push(Seen { bucket, key, value })?)),
            Err(error) => Ok(Err(error.into())),
        }
    }

    async fn current(
        &mut self,
        cas: Resource<Seen>,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, draft2::wasi::keyvalue::store::Error>> {
        Ok(Ok(self.resources.get(&cas)?.value.clone()))
    }

    async fn drop(&mut self, cas: Resource<Seen>) -> wasmtime::Result<()> {
        self.resources.delete(cas)?;
        Ok(())
    }
}

impl State {
    async fn increased(
        &mut self,
        bucket: &Resource<Opened>,
        key: String,
        by: i64,
    ) -> wasmtime::Result<Result<i64, Error>> {
        match self.opened(bucket)? {
            Ok((store, now)) => Ok(store.increase(key, by, None, now).await?),
            Err(error) => Ok(Err(error)),
        }
    }
}
