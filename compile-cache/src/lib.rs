//! Machine code of components: compiled by a child process, or here for one that serves nobody, kept in a private folder, mapped from
//! there. Knows wasmtime's compiler and loader; does not know what a component is for.
//!
//! Read in this order: [`Code`] (asks for the code of a component), `child` (how the child is run
//! and what it may take), `folder` (what is kept, and why it may be run), [`confine`],
//! [`compile`] and `seal` (the child's side).

mod child;
mod compiler;
mod folder;
mod seal;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tracing::{debug, warn};
use wasmtime::Engine;
use wasmtime::component::Component;

pub use child::Program;
pub use compiler::{compile, confine};
use folder::Folder;

/// Where the code of a component came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Compiled before, by this process or an earlier one.
    Kept,
    /// Compiled just now, by a child.
    Child,
    /// Compiled just now, in this process.
    Here,
}

/// Why there is no code.
#[derive(Debug, thiserror::Error)]
pub enum CodeError {
    /// It is the component's fault, or it takes too much: do not try elsewhere.
    #[error("{reason}")]
    Refused { reason: String },
    /// No child could be asked: the component may be fine.
    #[error("no process to compile it in: {reason}")]
    NoChild { reason: String },
}

/// Provides the machine code of components. Clones are the same.
#[derive(Debug, Clone)]
pub struct Code {
    /// What compiles; `None` if this process does.
    program: Option<Arc<Program>>,
    /// `None` if nothing can be kept.
    folder: Option<Arc<Folder>>,
}

impl Code {
    /// `program` compiles; `folder` is made if it is not there, and used only if it belongs to this
    /// user alone. Without one, or with one that cannot be used, nothing is kept.
    pub fn new(program: Program, folder: Option<&Path>) -> Self {
        Self { program: Some(Arc::new(program)), ..Self::that_compiles_here(folder) }
    }

    /// The same, but this process compiles: for one that serves nobody, and whose user waits.
    pub fn that_compiles_here(folder: Option<&Path>) -> Self {
        let folder = folder.and_then(|path| match Folder::open(path) {
            Ok(folder) => Some(Arc::new(folder)),
            Err(error) => {
                let path = path.display();
                warn!(%path, %error, "compiled plugins are not kept");
                None
            }
        });
        Self { program: None, folder }
    }

    /// The code of a component, from the folder or else from a child. Takes from milliseconds to
    /// minutes, of which this process works only the first few. Needs a tokio runtime with its I/O
    /// and its timer. May be dropped midway, which ends the child.
    pub async fn component(
        &self,
        engine: &Engine,
        wasm: Arc<[u8]>,
    ) -> Result<(Component, Origin), CodeError> {
        let digest: [u8; 32] = {
            let wasm = wasm.clone();
            blocking(move || Sha256::digest(&wasm).into()).await?
        };
        if let Some(folder) = &self.folder {
            let (folder, engine) = (folder.clone(), engine.clone());
            if let Some(component) = blocking(move || folder.load(&engine, &digest)).await? {
                return Ok((component, Origin::Kept));
            }
        }
        let (code, origin) = match &self.program {
            Some(program) => (program.run(&wasm).await?, Origin::Child),
            None => (compile_here(engine, wasm).await?, Origin::Here),
        };
        let (folder, engine) = (self.folder.clone(), engine.clone());
        let component = blocking(move || {
            if let Some(folder) = &folder {
                match folder.keep(&engine, &digest, &code) {
                    Ok(()) => {
                        if let Some(component) = folder.load(&engine, &digest) {
                            return Ok(component);
                        }
                    }
                    Err(error) => warn!(%error, "a compiled plugin cannot be kept"),
                }
            }
            folder::load(&engine, &code)
        });
        let component = component.await?.map_err(|error| {
            debug!(%error, "what the child compiled");
            CodeError::NoChild { reason: format!("what the child made does not fit: {error}") }
        })?;
        Ok((component, origin))
    }
}

async fn compile_here(engine: &Engine, wasm: Arc<[u8]>) -> Result<Vec<u8>, CodeError> {
    let engine = engine.clone();
    let code = blocking(move || engine.precompile_component(&wasm)).await?;
    code.map_err(|error| CodeError::Refused { reason: error.root_cause().to_string() })
}

/// Where compiled plugins are kept unless somebody says otherwise: what systemd made for this
/// service, or the user's folder for what can be made again. `None` if the environment names none.
pub fn usual_folder() -> Option<PathBuf> {
    let named = |name: &str| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    // systemd names several, separated by colons, if a unit asks for several.
    let systemd = named("CACHE_DIRECTORY")
        .and_then(|paths| paths.to_str().and_then(|paths| paths.split(':').next()).map(PathBuf::from));
    let user = named("XDG_CACHE_HOME")
        .or_else(|| named("HOME").map(|home| home.join(".cache")))
        .map(|folder| folder.join("adit"));
    systemd.or(user).filter(|folder| folder.is_absolute()).map(|folder| folder.join("plugins"))
}

/// How long a child may take, in CPU time and on the wall.
const CPU_LIMIT: Duration = Duration::from_secs(300);
const WALL_LIMIT: Duration = Duration::from_secs(900);
/// Bytes of address space that a child may have.
const MEMORY_LIMIT: u64 = 4 << 30;
/// Most bytes of machine code of one component.
const LARGEST_CODE: u64 = 512 << 20;

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, CodeError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| CodeError::NoChild { reason: error.to_string() })
}
