//! `adit edge credentials`.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use adit_protocol::credentials::{Credentials, TunnelSecret};
use anyhow::Context;
use uuid::Uuid;

use crate::Failure;

/// Makes a tunnel's identity and writes it where only its owner can read it.
pub(crate) fn create(output: &Path) -> Result<(), Failure> {
    let id = write(output)?;
    println!("tunnel {id} in {}", output.display());
    Ok(())
}

fn write(output: &Path) -> anyhow::Result<Uuid> {
    let credentials = make()?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o400)
        .open(output)
        .and_then(|mut file| file.write_all(credentials.to_json().as_bytes()))
        .with_context(|| format!("writing {}", output.display()))?;
    Ok(credentials.tunnel_id)
}

/// A new tunnel with a random secret of 32 bytes.
pub(crate) fn make() -> anyhow::Result<Credentials> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).context("random bytes for the tunnel secret")?;
    Ok(Credentials {
        account_tag: Uuid::new_v4().simple().to_string(),
        tunnel_secret: TunnelSecret::new(&secret).context("the tunnel secret")?,
        tunnel_id: Uuid::new_v4(),
        endpoint: None,
    })
}
