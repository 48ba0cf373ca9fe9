//! What the child still may ask of the kernel once it has its component: memory, its three pipes, and
//! its end. Knows nothing of compilers.

/// Leaves this process no more than what compiling takes: it can open no file and no socket, start no
/// program and no process, and touch no other. What it asks for besides is refused, not the end of it.
/// Cannot be taken back.
///
/// # Errors
/// If this system or its kernel has no such filter, and then nothing has changed.
#[cfg(target_os = "linux")]
pub(super) fn seal() -> Result<(), String> {
    use seccompiler::{SeccompAction, SeccompFilter, TargetArch, apply_filter_all_threads};

    let architecture = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| error.to_string())?;
    let rules = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let refused = SeccompAction::Errno(u32::try_from(libc::EPERM).unwrap_or(1));
    let filter = SeccompFilter::new(rules, refused, SeccompAction::Allow, architecture);
    let program: seccompiler::BpfProgram =
        filter.and_then(TryInto::try_into).map_err(|error| error.to_string())?;
    apply_filter_all_threads(&program).map_err(|error| error.to_string())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn seal() -> Result<(), String> {
    Err("this system has no filter for system calls".to_owned())
}

/// What an allocator, a compiler on one thread, and the end of a process take. None of these names
/// anything outside of the process but descriptors that it has.
#[cfg(target_os = "linux")]
const ALLOWED: &[i64] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_fcntl,
    libc::SYS_ppoll,
    libc::SYS_mmap,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_membarrier,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getrusage,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs::File;
    use std::io::ErrorKind;
    use std::net::TcpListener;
    use std::process::{Command, Stdio};

    use super::*;

    /// What a child of the tests is started with.
    const CHILD: &str = "seal::tests::as_a_child";

    #[test]
    #[ignore = "the child of another test: it seals its whole process"]
    fn as_a_child() {
        crate::confine().expect("it may have less");
        seal().expect("this kernel has filters");
        let refused = |outcome: Result<(), std::io::Error>, what: &str| {
            let error = outcome.expect_err(what);
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{what}: {error}");
        };
        refused(TcpListener::bind("127.0.0.1:0").map(drop), "a socket");
        refused(std::os::unix::net::UnixDatagram::unbound().map(drop), "a Unix socket");
        refused(File::open("/etc/hostname").map(drop), "a file to read");
        refused(File::create("/tmp/adit-sealed").map(drop), "a file to write");
        refused(Command::new("/bin/true").stdin(Stdio::null()).spawn().map(drop), "a program");
        refused(std::thread::Builder::new().spawn(|| ()).map(drop), "a thread");
        // It still compiles.
        let engine = wasmtime::Engine::new(wasmtime::Config::new().parallel_compilation(false));
        let wasm = b"\0asm\x0d\0\x01\0";
        let code = engine.and_then(|engine| engine.precompile_component(wasm)).expect("a component");
        assert!(!code.is_empty());
    }

    #[test]
    fn a_sealed_child_compiles_and_can_open_no_socket_no_file_and_no_program() {
        let mut child = Command::new(std::env::current_exe().expect("this test"));
        child.args(["--ignored", "--exact", CHILD, "--nocapture", "--test-threads=1"]);
        let outcome = child.output().expect("it starts");
        let said = String::from_utf8_lossy(&outcome.stdout);
        let why = String::from_utf8_lossy(&outcome.stderr);
        assert!(outcome.status.success() && said.contains("1 passed"), "{said}{why}");
    }
}
