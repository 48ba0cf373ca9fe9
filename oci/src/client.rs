//! What registries can be asked (OCI distribution specification 1.1). Everything that comes is compared
//! with the digest that it was asked by.

use std::collections::HashMap;
use std::sync::Mutex;

use anyhow::{Context, anyhow, bail, ensure};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode, Uri};
use serde::Deserialize;

use crate::auth::{self, Challenge, Credentials};
use crate::digest::Digest;
use crate::manifest::{self, Blob, Descriptor, INDEX, MANIFEST, Named};
use crate::reference::Reference;
use crate::transport::Transport;

/// Asks registries. Remembers the tokens that it was given.
pub struct Client {
    transport: Transport,
    /// Registries that are spoken to in clear besides those on this machine.
    insecure: Vec<String>,
    /// An Authorization header by registry, repository and what it is for.
    granted: Mutex<HashMap<String, String>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Pull,
    Push,
}

impl Client {
    /// `insecure` are registries, as references write them, that are spoken to in clear.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(insecure: &[String]) -> anyhow::Result<Self> {
        Ok(Self {
            transport: Transport::new()?,
            insecure: insecure.iter().map(|registry| registry.to_ascii_lowercase()).collect(),
            granted: Mutex::default(),
        })
    }

    /// A manifest and its digest; `None` if the registry has no such.
    ///
    /// # Errors
    /// The registry cannot be asked, or hands out something else than was asked for.
    pub async fn manifest(&self, reference: &Reference) -> anyhow::Result<Option<(Digest, Bytes)>> {
        let path = format!("manifests/{}", reference.wanted());
        let request = self.request(Method::GET, reference, &path)?;
        let request = request.header(ACCEPT, MANIFEST).header(ACCEPT, INDEX);
        let answer = self.ask(reference, Access::Pull, request.body(Bytes::new())?, LARGEST_MANIFEST).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let bytes = good(answer)?.into_body();
        let found = Digest::of(&bytes);
        if let Some(wanted) = reference.digest {
            ensure!(found == wanted, "tampered with: {wanted} was asked for and {found} came");
        }
        Ok(Some((found, bytes)))
    }

    /// The component that a manifest or an index leads to.
    ///
    /// # Errors
    /// There is none, or more than one, or the registry cannot be asked.
    pub async fn component(&self, reference: &Reference, json: &[u8]) -> anyhow::Result<Blob> {
        match manifest::named(json)? {
            Named::Component(component) => Ok(component),
            Named::Listed(one) => {
                let found = self.manifest(&reference.at(one.digest)).await?;
                let (_, json) = found.context("the registry does not have what its index lists")?;
                manifest::component(&json)
            }
        }
    }

    /// What refers to a manifest: by the registry's own list, or that under a tag where it keeps none.
    ///
    /// # Errors
    /// The registry cannot be asked.
    pub(crate) async fn referrers(
        &self,
        reference: &Reference,
        manifest: Digest,
    ) -> anyhow::Result<Vec<Descriptor>> {
        let request = self.request(Method::GET, reference, &format!("referrers/{manifest}"))?;
        let request = request.header(ACCEPT, INDEX).body(Bytes::new())?;
        let answer = self.ask(reference, Access::Pull, request, LARGEST_MANIFEST).await?;
        if answer.status().is_success()
            && let Ok(listed) = manifest::listed(answer.body())
        {
            return Ok(listed);
        }
        let tag = Some(format!("sha256-{}", manifest.hex()));
        let place = Reference { tag, digest: None, ..reference.clone() };
        match self.manifest(&place).await? {
            Some((_, json)) => manifest::listed(&json),
            None => Ok(Vec::new()),
        }
    }

    /// What lies beside a manifest.
    ///
    /// # Errors
    /// It cannot be had, is larger than `limit` bytes or is not what its digest says.
    pub async fn blob(&self, reference: &Reference, blob: Blob, limit: usize) -> anyhow::Result<Bytes> {
        let size = usize::try_from(blob.size)?;
        ensure!(size <= limit, "it has {size} bytes, {limit} are allowed");
        let request = self.request(Method::GET, reference, &format!("blobs/{}", blob.digest))?;
        let bytes =
            good(self.ask(reference, Access::Pull, request.body(Bytes::new())?, size).await?)?.into_body();
        let found = Digest::of(&bytes);
        ensure!(found == blob.digest, "tampered with: {} was asked for and {found} came", blob.digest);
        Ok(bytes)
    }

    /// Hands a component over under the reference's tag, or by digest alone; its manifest's digest comes back.
    ///
    /// # Errors
    /// The registry refuses any of it.
    pub async fn push(&self, reference: &Reference, wasm: Bytes) -> anyhow::Result<Digest> {
        let component = manifest::blob(&wasm);
        let (config, manifest) = manifest::write(component);
        let digest = Digest::of(&manifest);
        if let Some(wanted) = reference.digest {
            ensure!(
                wanted == digest,
                "this component's manifest is {digest}, and the reference says {wanted}"
            );
        }
        self.upload(reference, wasm).await.context("the component")?;
        self.upload(reference, config.into()).await.context("the config")?;
        self.put_manifest(
            reference,
            reference.tag.as_deref().unwrap_or(&digest.to_string()),
            manifest.into(),
        )
        .await
        .context("the manifest")?;
        Ok(digest)
    }

    /// Hands over a manifest, or an index, whose parts are there.
    ///
    /// # Errors
    /// The registry refuses it.
    pub async fn put_manifest(
        &self,
        reference: &Reference,
        name: &str,
        manifest: Bytes,
    ) -> anyhow::Result<()> {
        let request = self.request(Method::PUT, reference, &format!("manifests/{name}"))?;
        let request = request.header(CONTENT_TYPE, manifest::kind(&manifest)).body(manifest)?;
        good(self.ask(reference, Access::Push, request, LARGEST_ANSWER).await?)?;
        Ok(())
    }

    /// Hands over one part, unless it is there.
    ///
    /// # Errors
    /// The registry refuses it.
    pub async fn upload(&self, reference: &Reference, bytes: Bytes) -> anyhow::Result<()> {
        let digest = Digest::of(&bytes);
        let there = self.request(Method::HEAD, reference, &format!("blobs/{digest}"))?.body(Bytes::new())?;
        if self.ask(reference, Access::Push, there, LARGEST_ANSWER).await?.status() == StatusCode::OK {
            return Ok(());
        }
        let begin = self.request(Method::POST, reference, "blobs/uploads/")?;
        let begin = begin.header("content-length", "0").body(Bytes::new())?;
        let base = begin.uri().clone();
        let begun = good(self.ask(reference, Access::Push, begin, LARGEST_ANSWER).await?)?;
        let place = begun.headers().get(LOCATION).and_then(|place| place.to_str().ok());
        let place = resolve(&base, place.context("the registry does not say where to put it")?)?;
        ensure!(place.authority() == base.authority(), "the registry wants it put on another host");
        let mark = if place.query().is_some() { '&' } else { '?' };
        let request = Request::put(format!("{place}{mark}digest={digest}"))
            .header(CONTENT_TYPE, "application/octet-stream")
            .body(bytes)?;
        good(self.ask(reference, Access::Push, request, LARGEST_ANSWER).await?)?;
        Ok(())
    }

    fn request(
        &self,
        method: Method,
        reference: &Reference,
        path: &str,
    ) -> anyhow::Result<http::request::Builder> {
        let scheme = if self.is_insecure(reference) { "http" } else { "https" };
        let host =
            if reference.registry == "docker.io" { "registry-1.docker.io" } else { &reference.registry };
        let uri: Uri = format!("{scheme}://{host}/v2/{}/{path}", reference.repository).parse()?;
        Ok(Request::builder().method(method).uri(uri))
    }

    fn is_insecure(&self, reference: &Reference) -> bool {
        reference.is_local() || self.insecure.contains(&reference.registry)
    }

    /// Asks, says who we are if the registry wants to know, and follows where what is read lies elsewhere.
    async fn ask(
        &self,
        reference: &Reference,
        access: Access,
        request: Request<Bytes>,
        limit: usize,
    ) -> anyhow::Result<Response<Bytes>> {
        let key =
            format!("{}/{} {}", reference.registry, reference.repository, u8::from(access == Access::Push));
        let mut granted = self.granted().get(&key).cloned();
        let mut may_prove = true;
        loop {
            let mut one = request.clone();
            if let Some(proof) = &granted {
                one.headers_mut().insert(AUTHORIZATION, secret(proof)?);
            }
            // An error's own words are short.
            let answer = self.transport.send(one, limit.max(LARGEST_ANSWER)).await?;
            if answer.status() == StatusCode::UNAUTHORIZED && may_prove {
                may_prove = false;
                let proof = self.prove(reference, access, &answer).await?;
                self.granted().insert(key.clone(), proof.clone());
                granted = Some(proof);
                continue;
            }
            if answer.status().is_redirection() && request.method() == Method::GET {
                return self.follow(reference, request.uri(), answer, limit).await;
            }
            return Ok(answer);
        }
    }

    /// Where registries keep blobs elsewhere; no credentials go there.
    async fn follow(
        &self,
        reference: &Reference,
        base: &Uri,
        mut answer: Response<Bytes>,
        limit: usize,
    ) -> anyhow::Result<Response<Bytes>> {
        let mut base = base.clone();
        for _ in 0..MOST_REDIRECTS {
            let place = answer.headers().get(LOCATION).and_then(|place| place.to_str().ok());
            base = resolve(&base, place.context("a redirect to nowhere")?)?;
            self.check(reference, &base)?;
            answer = self
                .transport
                .send(Request::get(base.clone()).body(Bytes::new())?, limit.max(LARGEST_ANSWER))
                .await?;
            if !answer.status().is_redirection() {
                return Ok(answer);
            }
        }
        bail!("more than {MOST_REDIRECTS} redirects")
    }

    /// A registry that is spoken to over TLS leads nowhere in clear.
    fn check(&self, reference: &Reference, place: &Uri) -> anyhow::Result<()> {
        ensure!(
            place.scheme_str() == Some("https") || self.is_insecure(reference),
            "the registry leads to a place in clear"
        );
        Ok(())
    }

    /// An Authorization header for what the registry has asked.
    async fn prove(
        &self,
        reference: &Reference,
        access: Access,
        answer: &Response<Bytes>,
    ) -> anyhow::Result<String> {
        let registry = &reference.registry;
        let challenges =
            answer.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenge = challenges.filter_map(Challenge::read).next();
        let challenge =
            challenge.with_context(|| format!("{registry} wants to know who we are, and not how"))?;
        let credentials = auth::credentials(registry)?;
        let unknown = || {
            anyhow!(
                "{registry} wants to know who we are, and Docker's configuration does not say\n  help: `docker login {registry}`, or write auths into ~/.docker/config.json"
            )
        };
        match challenge {
            Challenge::Basic => Ok(credentials.ok_or_else(unknown)?.basic()),
            Challenge::Bearer { realm, service, scope } => {
                let actions = if access == Access::Push { "pull,push" } else { "pull" };
                let scope = scope.unwrap_or_else(|| format!("repository:{}:{actions}", reference.repository));
                let query = query(&[("service", service.as_deref()), ("scope", Some(&scope))]);
                let mark = if realm.contains('?') { '&' } else { '?' };
                let place: Uri = format!("{realm}{mark}{query}").parse().context("where tokens are")?;
                self.check(reference, &place)?;
                self.token(&place, credentials.as_ref())
                    .await
                    .with_context(|| format!("a token for {registry}"))
            }
        }
    }

    async fn token(&self, place: &Uri, credentials: Option<&Credentials>) -> anyhow::Result<String> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let mut request = Request::get(place.clone()).body(Bytes::new())?;
        if let Some(credentials) = credentials {
            request.headers_mut().insert(AUTHORIZATION, secret(&credentials.basic())?);
        }
        let answer = good(self.transport.send(request, LARGEST_ANSWER).await?)?;
        let token: Token =
            serde_json::from_slice(answer.body()).map_err(|_| anyhow!("the answer is no token"))?;
        let token = token.token.or(token.access_token).context("the answer has no token")?;
        Ok(format!("Bearer {token}"))
    }

    fn granted(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        self.granted.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn secret(text: &str) -> anyhow::Result<HeaderValue> {
    let mut value =
        HeaderValue::from_str(text).map_err(|_| anyhow!("a credential that is no header value"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn good(answer: Response<Bytes>) -> anyhow::Result<Response<Bytes>> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    // {"errors": [{"code": …, "message": …}]}
    let json: serde_json::Value = serde_json::from_slice(answer.body()).unwrap_or_default();
    let said = json.pointer("/errors/0/message").and_then(serde_json::Value::as_str).unwrap_or_default();
    let said: String = said.chars().filter(|character| !character.is_control()).take(LONGEST_WORDS).collect();
    if said.is_empty() {
        bail!("the registry answers {status}")
    } else {
        bail!("the registry answers {status}: {said}")
    }
}

fn resolve(base: &Uri, place: &str) -> anyhow::Result<Uri> {
    if place.contains("://") {
        return Ok(place.parse()?);
    }
    ensure!(place.starts_with('/') && !place.starts_with("//"), "a relative place");
    let (scheme, authority) =
        (base.scheme_str().unwrap_or("https"), base.authority().map_or("", |host| host.as_str()));
    Ok(format!("{scheme}://{authority}{place}").parse()?)
}

fn query(pairs: &[(&str, Option<&str>)]) -> String {
    let escape = |text: &str| -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        text.bytes()
            .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
            .collect()
    };
    let pairs = pairs.iter().filter_map(|(name, value)| Some(format!("{name}={}", escape((*value)?))));
    pairs.collect::<Vec<_>>().join("&")
}

const LARGEST_MANIFEST: usize = 1 << 20;
/// Of what is not a component: tokens and errors.
const LARGEST_ANSWER: usize = 256 * 1024;
const MOST_REDIRECTS: usize = 5;
const LONGEST_WORDS: usize = 200;
