//! Hosts that have nothing but an Ethernet in common: network namespaces, each with an interface of its own, and a switch
//! between them.
//!
//! ```text
//!  host 0: 10.77.0.1 ──┐
//!  host 1: 10.77.0.2 ──┤ switch, a namespace too: 10.77.0.254
//!  host 2: 10.77.0.3 ──┘
//! ```
//! The namespaces have no names: they are gone with the last process and the last handle, however a test ends.

use std::{
    fs::File,
    net::IpAddr,
    os::fd::AsRawFd,
    process::{self, Command},
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

/// A few hosts and the switch between them.
#[derive(Debug)]
pub struct Hosts {
    switch: Namespace,
    hosts: Vec<Namespace>,
}

impl Hosts {
    /// Makes so many hosts, all of which reach each other.
    ///
    /// # Panics
    /// If this process may not make namespaces, or the program `ip` is missing.
    pub fn new(count: u8) -> Hosts {
        let switch = Namespace::new();
        // With an address of its own: else it has that of one of its ports, takes in what comes through this port even when
        // it is no port any more, and has another one afterwards.
        switch.ip("link add name switch address 02:00:00:00:00:fe mtu 1500 type bridge");
        switch.ip("address add 10.77.0.254/24 dev switch");
        switch.ip("link set switch up");
        let host = |number| {
            let host = Namespace::new();
            // The end of the cable that is in the switch is called as the host; the other end is pushed through the wall.
            let wall = host.path();
            switch.ip(&format!("link add port{number} mtu 1500 type veth peer name cable mtu 1500 netns {wall}"));
            switch.ip(&format!("link set port{number} master switch up"));
            host.ip(&format!("address add 10.77.0.{}/24 dev cable", number + 1));
            host.ip("link set cable up");
            host.ip("link set lo up");
            host
        };
        let hosts = (0..count).map(host).collect();
        Hosts { switch, hosts }
    }

    pub fn count(&self) -> u8 {
        self.hosts.len() as u8
    }

    pub fn address(&self, host: u8) -> IpAddr {
        assert!(usize::from(host) < self.hosts.len(), "there is no host {host}");
        IpAddr::from([10, 77, 0, host + 1])
    }

    pub fn switch_address(&self) -> IpAddr {
        IpAddr::from([10, 77, 0, 254])
    }

    /// Runs `work` on a host, in a thread of its own. What it starts and opens belongs to the host.
    pub fn on<T: Send>(&self, host: u8, work: impl FnOnce() -> T + Send) -> T {
        self.hosts[usize::from(host)].inside(work)
    }

    /// The network of a host, for whoever cannot hold on to all of them.
    ///
    /// # Panics
    /// If there are no descriptors left.
    pub fn handle(&self, host: u8) -> Namespace {
        Namespace(self.hosts[usize::from(host)].0.try_clone().expect("there is a descriptor"))
    }

    /// Runs `work` where the switch is.
    pub fn on_switch<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.switch.inside(work)
    }

    /// Pulls the cable of a host out of the switch: both ends see that it is out.
    pub fn pull_cable(&self, host: u8) {
        self.switch.ip(&format!("link set port{host} down"));
    }

    pub fn plug_cable(&self, host: u8) {
        self.switch.ip(&format!("link set port{host} up"));
    }

    /// The switch drops all from and to a host; no end sees anything.
    pub fn silence(&self, host: u8) {
        self.switch.ip(&format!("link set port{host} nomaster"));
    }

    pub fn hear(&self, host: u8) {
        self.switch.ip(&format!("link set port{host} master switch"));
    }
}

/// A network of its own.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    fn new() -> Namespace {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .unwrap_or_else(|cause| panic!("no network namespace can be made, which takes root: {cause}"));
            File::open("/proc/thread-self/ns/net").expect("a thread can name its namespace")
        });
        Namespace(made.join().expect("a network namespace is made"))
    }

    /// A name of it that others can open while this is there.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.0.as_raw_fd())
    }

    /// Runs `work` in it, in a thread of its own.
    ///
    /// # Panics
    /// If `work` does.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET).expect("who has made a namespace may enter it");
            work()
        };
        thread::scope(|scope| scope.spawn(enter).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn ip(&self, arguments: &str) {
        let output = self.inside(|| Command::new("ip").args(arguments.split(' ')).output());
        let output = output.unwrap_or_else(|cause| panic!("`ip`, of the package iproute2, cannot be run: {cause}"));
        assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
