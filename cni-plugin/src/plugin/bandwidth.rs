//! `bandwidth`: a container's rates, which the daemon keeps and the kernel enforces. They go with the endpoint, so DEL has
//! nothing to do.

use netd_api::network::{ChangeEndpoint, NetworkParams, UpdateEndpoint};
use netd_api::value::Bandwidth;
use serde_json::Value;

use super::chain::{attached, before, is_set, passed_on, refuse};
use crate::daemon::{Daemon, reference};
use crate::error::{Code, Failure, Result};
use crate::spec::{Config, Environment, Verb, bandwidth};

const NAME: &str = "bandwidth";

pub(super) fn run(verb: Verb, environment: &Environment, config: &Config) -> Result<Option<Value>> {
    match verb {
        Verb::Add => add(environment, config).map(Some),
        Verb::Check => check(environment, config).map(|()| None),
        Verb::Del | Verb::Gc | Verb::Status => Ok(None),
    }
}

/// The configuration's own rates before the runtime's.
pub(super) fn rates(config: &Config) -> Result<Option<Bandwidth>> {
    let root = config.root();
    for key in ["shapedSubnets", "unshapedSubnets"] {
        refuse(&root, key, "netd's rates are for all of a container's traffic on the network")?;
    }
    for (rate, burst) in [("ingressRate", "ingressBurst"), ("egressRate", "egressBurst")] {
        let (rate, given) = (root.member(rate)?.filter(is_set), root.member(burst)?.filter(is_set));
        if let (None, Some(burst)) = (rate, given) {
            return Err(burst.invalid(&"a burst needs a rate"));
        }
    }
    match bandwidth(Some(root.clone()))? {
        Some(own) => Ok(Some(own)),
        None => bandwidth(root.at(&["runtimeConfig", "bandwidth"])?),
    }
}

fn add(environment: &Environment, config: &Config) -> Result<Value> {
    let before = before(config, NAME)?;
    if let Some(rates) = rates(config)? {
        let daemon = Daemon::at(&config.socket)?;
        let sandbox = attached(&daemon, config, environment, NAME)?;
        let params = NetworkParams { name: reference(&config.network)? };
        let change = ChangeEndpoint { bandwidth: Some(rates), ..ChangeEndpoint::of(reference(&sandbox.id)?) };
        daemon.call::<UpdateEndpoint>(&params, &change).map_err(|error| {
            Failure::of_daemon(
                format!("cannot set the rates of {} on {}", sandbox.name, config.network),
                &error,
            )
        })?;
    }
    Ok(passed_on(before, config))
}

fn check(environment: &Environment, config: &Config) -> Result<()> {
    before(config, NAME)?;
    let Some(wanted) = rates(config)? else { return Ok(()) };
    let daemon = Daemon::at(&config.socket)?;
    let sandbox = attached(&daemon, config, environment, NAME)?;
    let found = sandbox.network_settings.networks[&*config.network].bandwidth.unwrap_or_default();
    if (found.ingress_rate, found.egress_rate) == (wanted.ingress_rate, wanted.egress_rate) {
        return Ok(());
    }
    let message = format!("the rates are {} and {} bit/s", found.ingress_rate, found.egress_rate);
    let details = format!("not {} and {}", wanted.ingress_rate, wanted.egress_rate);
    Err(Failure::new(Code::Wrong, message, details))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(more: &Value) -> Result<Option<(u64, u64)>> {
        let mut all = json!({ "cniVersion": "1.0.0", "name": "app", "type": "bandwidth" });
        for (key, value) in more.as_object().unwrap() {
            all[key] = value.clone();
        }
        let config = Config::read(all.to_string().as_bytes())?;
        Ok(rates(&config)?.map(|rates| (rates.ingress_rate, rates.egress_rate)))
    }

    #[test]
    fn the_configurations_rates_come_before_the_runtimes() {
        let containerd = json!({ "IngressRate": 1_000_000, "IngressBurst": 4_294_967_295_u64,
                                 "EgressRate": 0, "EgressBurst": 4_294_967_295_u64 });
        assert_eq!(read(&json!({})).unwrap(), None);
        assert_eq!(
            read(&json!({ "runtimeConfig": { "bandwidth": containerd } })).unwrap(),
            Some((1_000_000, 0))
        );
        let own = json!({ "egressRate": 2_000_000, "egressBurst": 200_000,
                          "runtimeConfig": { "bandwidth": containerd } });
        assert_eq!(read(&own).unwrap(), Some((0, 2_000_000)));
        let none = json!({ "ingressRate": 0, "ingressBurst": 0, "egressRate": 0, "egressBurst": 0 });
        assert_eq!(read(&none).unwrap(), None, "nothing is shaped");
    }

    #[test]
    fn rates_and_bursts_that_do_not_fit_are_refused() {
        for given in [
            json!({ "ingressRate": 1_000_000 }),
            json!({ "egressBurst": 1_000_000 }),
            json!({ "ingressRate": 1_000_000, "ingressBurst": 8_u64 << 32 }),
            json!({ "ingressRate": -1, "ingressBurst": 8 }),
            json!({ "runtimeConfig": { "bandwidth": { "ingressRate": 1_000_000 } } }),
        ] {
            assert_eq!(read(&given).unwrap_err().code, Code::InvalidConfig, "{given}");
        }
        let shaped =
            json!({ "ingressRate": 1_000_000, "ingressBurst": 100_000, "shapedSubnets": ["10.0.0.0/8"] });
        assert_eq!(read(&shaped).unwrap_err().code, Code::UnsupportedField);
    }
}
