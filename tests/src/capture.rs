//! What passes a link, told by tcpdump.

use anyhow::Result;

use crate::command::Process;
use crate::place::Place;

pub struct Capture(Process);

impl Capture {
    /// Listens on `link` for what `filter` (tcpdump's language) lets through; ready when this returns.
    pub fn start(place: &Place, link: &str, filter: &str) -> Result<Self> {
        let process = place.start(&format!("tcpdump -i {link} -l -n -e -tt --immediate-mode {filter}"))?;
        process.says("listening on")?;
        Ok(Self(process))
    }

    /// Waits for a packet whose line contains `fragment`, and gives all lines so far.
    pub fn sees(&self, fragment: &str) -> Result<String> {
        self.0.says(fragment)
    }

    pub fn lines(&self) -> String {
        self.0.output()
    }
}
