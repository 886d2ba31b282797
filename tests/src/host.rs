//! A machine of the lab: a named network namespace with one link, `eth0`, to the switch.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::daemon::{Daemon, Setup};
use crate::place::Place;
use crate::snapshot::Snapshot;

#[derive(Clone)]
pub struct Host {
    pub place: Place,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
    number: u8,
    daemons: Arc<Mutex<Vec<(Daemon, Snapshot)>>>,
}

impl Deref for Host {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Host {
    pub(crate) fn join(router: &Place, name: &str, number: u8) -> Result<Self> {
        let (v4, v6) =
            (Ipv4Addr::new(192, 0, 2, number), Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, number.into()));
        router.look(&format!("ip netns add {name}"))?;
        let outside = format!(
            "link add p{number} type veth peer name eth0 netns {name}
             link set p{number} master sw up"
        );
        let inside = format!(
            "link set lo up
             link set eth0 up
             addr add {v4}/24 dev eth0
             addr add {v6}/64 dev eth0 nodad
             route add default via 192.0.2.254
             route add default via 2001:db8:2::fe"
        );
        let place =
            Place::new(name, Some(&PathBuf::from("/run/netns").join(name)), Arc::clone(&router.transcript));
        router.run_with("ip -batch -", outside.as_bytes(), SETUP)?.success()?;
        // Duplicate address detection would keep the link's own address changing for a second or two.
        place.enter(|| fs::write("/proc/sys/net/ipv6/conf/eth0/accept_dad", "0"))??;
        place.run_with("ip -batch -", inside.as_bytes(), SETUP)?.success()?;
        Ok(Self { place, v4, v6, number, daemons: Arc::default() })
    }

    /// The switch's end of its link, in the router.
    pub fn port(&self) -> String {
        format!("p{}", self.number)
    }

    /// Starts `netd run` here, with its own directories, and waits until it is ready.
    pub fn daemon(&self) -> Result<Daemon> {
        self.daemon_with(Setup::default())
    }

    pub fn daemon_with(&self, setup: Setup) -> Result<Daemon> {
        let daemon = self.daemon_launched(setup, &[])?;
        daemon.ready()?;
        Ok(daemon)
    }

    /// Starts it, with more in its environment, and does not wait.
    pub fn daemon_launched(&self, setup: Setup, env: &[(&str, String)]) -> Result<Daemon> {
        let before = Snapshot::take(&self.place)?;
        let mut daemons = self.daemons.lock().expect("no holder panics");
        let dir = Path::new("/run/lab").join(format!("{}-{}", self.name, daemons.len()));
        let daemon = Daemon::prepare(&self.place, &dir, setup, env)?;
        daemons.push((daemon.clone(), before));
        drop(daemons);
        daemon.launch()?;
        Ok(daemon)
    }

    /// Takes every daemon down for good and compares the host with what it was before its first daemon.
    pub(crate) fn finish(&self) -> Result<()> {
        let mut daemons = std::mem::take(&mut *self.daemons.lock().expect("no holder panics"));
        while let Some((daemon, before)) = daemons.pop() {
            daemon.purge()?;
            before
                .compare(&self.place, daemon.dir())
                .with_context(|| format!("after `netd down --purge` on {}", self.name))?;
        }
        Ok(())
    }

    /// Whether frames within bridges pass the host's rules.
    pub fn filter_bridges(&self, wanted: bool) -> Result<()> {
        for family in ["iptables", "ip6tables"] {
            let key = PathBuf::from(format!("/proc/sys/net/bridge/bridge-nf-call-{family}"));
            let value = u8::from(wanted).to_string();
            // Without br_netfilter there is no such key, and no such filter.
            self.enter(move || key.exists().then(|| fs::write(&key, value)).transpose())??;
        }
        Ok(())
    }

    pub(crate) fn sandbox_places(&self) -> Vec<Place> {
        self.daemons
            .lock()
            .map(|daemons| daemons.iter().flat_map(|(daemon, _)| daemon.sandboxes()).collect())
            .unwrap_or_default()
    }
}

const SETUP: Duration = Duration::from_secs(10);
