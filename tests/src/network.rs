//! A network between the edges and a host that has addresses of its own: two namespaces, of which one is
//! the host's and one a router that swallows what it is told to. Needs Linux, `ip` and the right to make
//! namespaces; where they are missing, whoever wants a network is told so and goes without.
//!
//! ```text
//! edges .1 to .100 ── .126 router .254 ── .129 host        of one /24 of 198.18.0.0/15 (RFC 2544)
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::process;

/// It is gone when dropped; what runs inside should be gone before.
pub struct Network {
    name: String,
    subnet: [u8; 3],
}

impl Network {
    /// `None` where the machine forbids it, which is [a skip](crate::skip). Room for so many edge servers.
    pub fn new(edges: usize) -> Option<Self> {
        static NETWORKS: AtomicU32 = AtomicU32::new(0);
        sweep();
        let run = std::process::id();
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let place = run.wrapping_add(number * 97);
        let subnet = [198, 18 + (place >> 8 & 1) as u8, place as u8];
        let network = Self { name: format!("{PREFIX}{run}-{number}"), subnet };
        if let Err(reason) = network.make() {
            crate::skip(&format!("this machine allows no network namespaces: {reason}"));
            return None;
        }
        network.connect(edges).expect("whoever may make namespaces may connect them");
        Some(network)
    }

    fn make(&self) -> Result<(), String> {
        let (router, host) = (self.router(), self.inner());
        ip(&["netns", "add", &router])?;
        ip(&["netns", "add", &host])?;
        ip(&["link", "add", &self.near(), "type", "veth", "peer", "name", "outer", "netns", &router])?;
        ip(&["-n", &router, "link", "add", "inner", "type", "veth", "peer", "name", "uplink", "netns", &host])
    }

    fn connect(&self, edges: usize) -> Result<(), String> {
        let (router, host, near) = (self.router(), self.inner(), self.near());
        let at = |last| self.at(last);
        // One more for an origin.
        for number in 0..=edges {
            ip(&["address", "add", &format!("{}/25", self.edge(number)), "dev", &near])?;
        }
        ip(&["link", "set", "dev", &near, "up"])?;
        ip(&["-n", &router, "address", "add", &format!("{}/25", at(126)), "dev", "outer"])?;
        ip(&["-n", &router, "address", "add", &format!("{}/25", at(254)), "dev", "inner"])?;
        ip(&["-n", &host, "address", "add", &format!("{}/25", self.host()), "dev", "uplink"])?;
        for (space, device) in
            [(&router, "outer"), (&router, "inner"), (&router, "lo"), (&host, "uplink"), (&host, "lo")]
        {
            ip(&["-n", space, "link", "set", "dev", device, "up"])?;
        }
        ip(&["-n", &host, "route", "add", "default", "via", &at(254).to_string()])?;
        ip(&["route", "add", &format!("{}/25", at(128)), "via", &at(126).to_string(), "dev", &near])?;
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        ip(&["netns", "exec", &router, "sh", "-c", forward])
    }

    /// Where an edge server listens.
    pub fn edge(&self, number: usize) -> IpAddr {
        self.at(u8::try_from(number + 1).expect("a handful of edges"))
    }

    /// Where an origin listens that the host inside reaches, with so many edges.
    pub fn origin(&self, edges: usize) -> IpAddr {
        self.edge(edges)
    }

    /// The address of the host inside.
    pub fn host(&self) -> IpAddr {
        self.at(129)
    }

    /// Becomes the product, inside.
    pub fn inside(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.inner()]).arg(process::adit());
        command
    }

    /// From now on the router swallows all that goes to this address or comes from it.
    pub fn swallow(&self, address: IpAddr) {
        self.rules("add", address);
    }

    /// And from now on it passes it on again.
    pub fn pass(&self, address: IpAddr) {
        self.rules("del", address);
    }

    fn rules(&self, change: &str, address: IpAddr) {
        for direction in ["from", "to"] {
            let rule = ["-n", &self.router(), "rule", change, direction, &address.to_string(), "blackhole"];
            ip(&rule).expect("a rule of the router");
        }
    }

    fn at(&self, last: u8) -> IpAddr {
        let [first, second, third] = self.subnet;
        Ipv4Addr::new(first, second, third, last).into()
    }

    fn router(&self) -> String {
        format!("{}-router", self.name)
    }

    fn inner(&self) -> String {
        format!("{}-host", self.name)
    }

    /// The edges' device; its name may have 15 characters.
    fn near(&self) -> String {
        format!("adt{}x{}", self.subnet[1], self.subnet[2])
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The devices go with their namespaces. What was never made cannot be removed.
        let _ = ip(&["netns", "del", &self.router()]);
        let _ = ip(&["netns", "del", &self.inner()]);
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

/// Removes what runs that were killed have left.
fn sweep() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let run = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if run.is_some_and(|run| !Path::new("/proc").join(run).exists()) {
            let _ = ip(&["netns", "del", &name]);
        }
    }
}

/// Begins the name of every namespace; the id of the test's process follows.
const PREFIX: &str = "adit-e2e-";
