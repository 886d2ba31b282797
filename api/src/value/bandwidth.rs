//! How much traffic a sandbox may cause on one network, each way.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Invalid;

/// Rates in bits a second, bursts in bits. A rate of 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Bandwidth {
    /// Towards the sandbox.
    #[serde(default)]
    pub ingress_rate: u64,
    /// What may come at once after a pause. Without effect while the rate is 0.
    #[serde(default)]
    pub ingress_burst: u64,
    #[serde(default)]
    pub egress_rate: u64,
    #[serde(default)]
    pub egress_burst: u64,
}

impl Bandwidth {
    #[must_use]
    pub const fn limits(&self) -> bool {
        self.ingress_rate > 0 || self.egress_rate > 0
    }

    /// A burst has to hold a packet and fit the kernel's 32 bits of bytes.
    pub fn check(&self) -> Result<(), Invalid> {
        for (what, rate, burst) in [
            ("ingress burst", self.ingress_rate, self.ingress_burst),
            ("egress burst", self.egress_rate, self.egress_burst),
        ] {
            let bad = |cause: &str, remedy: &str| Err(Invalid::new(what, &burst.to_string(), cause, remedy));
            if rate > 0 && burst == 0 {
                return bad("a rate needs a burst", "set both, in bits");
            }
            if rate > 0 && burst / 8 < LEAST {
                return bad("no packet fits into it", "use at least 16 kbit, better a tenth of the rate");
            }
            if burst / 8 > u64::from(u32::MAX) {
                return bad("it is 4 GiB or more", "use less; a tenth of the rate is plenty");
            }
        }
        Ok(())
    }
}

/// Bytes of a packet on the usual link, with its header.
const LEAST: u64 = 1514;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_with_its_rate_and_has_its_bounds() {
        let ingress =
            |rate, burst| Bandwidth { ingress_rate: rate, ingress_burst: burst, ..Bandwidth::default() };
        let egress =
            |rate, burst| Bandwidth { egress_rate: rate, egress_burst: burst, ..Bandwidth::default() };
        for fine in
            [ingress(0, 0), ingress(1_000_000, 100_000), egress(1, 34_359_738_367), egress(0, 4_294_967_295)]
        {
            assert_eq!(fine.check(), Ok(()), "{fine:?}");
        }
        for (bad, named) in [
            (ingress(1_000_000, 0), "ingress burst \"0\": a rate needs a burst"),
            (egress(1_000_000, 0), "egress burst"),
            (egress(1_000_000, 8 * 1513), "no packet fits"),
            (ingress(1, 34_359_738_368), "4 GiB"),
            (egress(0, u64::MAX), "4 GiB"),
        ] {
            let said = bad.check().unwrap_err().to_string();
            assert!(said.contains(named), "{bad:?}: {said}");
        }
        assert!(ingress(1, 20_000).limits() && !ingress(0, 20_000).limits());
    }
}
