//! Any steps, one after another, lead to the same tables as all of the records at once.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Network { which: u8, there: bool, wide: bool },
    Service { which: u8, network: Option<u8>, shape: u8, drains: bool },
    Sandbox { which: u8, network: Option<u8>, service: u8, state: u8 },
    Peer { which: u8, network: Option<u8>, service: u8 },
    Node { lives: bool },
    Member { here: bool, drains: bool },
    Findings { service: u8, well: Option<bool> },
}

fn step() -> impl Strategy<Value = Step> {
    let network = || proptest::option::weighted(0.8, 0..2_u8);
    prop_oneof![
        (0..2_u8, any::<bool>(), any::<bool>()).prop_map(|(which, there, wide)| Step::Network {
            which,
            there,
            wide
        }),
        (0..3_u8, network(), 0..4_u8, any::<bool>())
            .prop_map(|(which, network, shape, drains)| Step::Service { which, network, shape, drains }),
        (0..3_u8, network(), 0..4_u8, 0..5_u8).prop_map(|(which, network, service, state)| Step::Sandbox {
            which,
            network,
            service,
            state
        }),
        (0..3_u8, network(), 0..4_u8).prop_map(|(which, network, service)| Step::Peer {
            which,
            network,
            service
        }),
        any::<bool>().prop_map(|lives| Step::Node { lives }),
        (any::<bool>(), any::<bool>()).prop_map(|(here, drains)| Step::Member { here, drains }),
        (0..3_u8, any::<Option<bool>>()).prop_map(|(service, well)| Step::Findings { service, well }),
    ]
}

const OUTSIDE: &str = "192.0.2.7:80";

fn shaped(which: u8, network: u8, shape: u8, drains: bool) -> Service {
    let answer = match shape {
        0 | 1 => vip(&format!("10.0.{network}.25{which}")),
        2 => Answer::Dnsrr,
        _ => Answer::Name("example.org".into()),
    };
    let mut service = service(&format!("v{which}"), &format!("id-n{network}"), answer);
    if shape == 1 {
        service.ports = vec![port(Some("http"), 80, 8080)];
    }
    if shape < 3 {
        let first = 8000 + u16::from(which) * 2;
        service.publishes =
            vec![publish(first, 80, PublishMode::Ingress), publish(first + 1, 90, PublishMode::Host)];
    }
    if which == 1 && shape < 3 {
        let address = OUTSIDE.parse().expect("an address");
        service.external = vec![ExternalBackend { address, weight: 1 }];
        service.health = Some(check());
    }
    if drains {
        service.draining.insert("endpoint-s0".into(), SystemTime::UNIX_EPOCH);
    }
    service
}

fn take(world: &mut World, step: &Step) {
    match *step {
        Step::Network { which, there, wide } => {
            let name = format!("n{which}");
            let network = if wide { overlay(&name) } else { testing::network(&name, &[]) };
            world.network(&format!("id-n{which}"), there.then_some(network));
        }
        Step::Service { which, network, shape, drains } => {
            let service = network.map(|network| shaped(which, network, shape, drains));
            world.tell_of_service(&format!("id-v{which}"), service);
        }
        Step::Sandbox { which, network, service, state } => {
            let states = [
                EndpointState::Starting,
                EndpointState::Ready,
                EndpointState::Draining,
                EndpointState::Leaving,
                EndpointState::Failing,
            ];
            let sandbox = network.map(|network| {
                let address = format!("10.0.{network}.{which}");
                let (name, network) = (format!("s{which}"), format!("id-n{network}"));
                serving(&name, &format!("id-v{service}"), &network, &address, states[usize::from(state)])
            });
            world.sandbox(&format!("id-s{which}"), sandbox);
        }
        Step::Peer { which, network, service } => {
            let id = format!("p/{which}");
            let peer = network.map(|network| {
                let (name, address) = (format!("p{which}"), format!("10.0.{network}.10{which}"));
                let serves = (service < 3).then(|| format!("id-v{service}"));
                let peer = peer(&name, "there", &format!("id-n{network}"), &address, serves.as_deref());
                Peer { id: id.as_str().into(), ..peer }
            });
            world.tell_of_peer(&id, peer);
        }
        Step::Findings { service, well } => {
            let found: Vec<_> = well.into_iter().map(|well| (OUTSIDE, well)).collect();
            world.tell_of_findings(&format!("id-v{service}"), &found);
        }
        Step::Node { lives } => world.tell_of_node("there", lives),
        Step::Member { here, drains } => {
            let availability = if drains { Availability::Drain } else { Availability::Active };
            world.tell_of_member(if here { "here" } else { "there" }, availability);
        }
    }
}

#[test]
fn a_service_whose_endpoints_come_at_once_is_told_once() {
    let mut world = world();
    world.with_network(&overlay("app"));
    world.put_service(&service("web", "id-app", Answer::Dnsrr));
    world.tell_of_node("there", true);
    world.release(true);
    for number in 0..300 {
        let (name, address) = (format!("p{number}"), format!("10.0.{}.{}", number / 200, number % 200));
        world.tell_of_peer(
            &format!("id-{name}"),
            Some(peer(&name, "there", "id-app", &address, Some("id-web"))),
        );
    }
    let changes = world.release(false);
    let services = changes.iter().filter(|change| matches!(change, Change::Proxy(Proxy::PutService(_))));
    assert_eq!(services.count(), 1);
    assert_eq!(world.addresses("id-app", "tasks.web").len(), 300);
}

proptest! {
    #[test]
    fn services_step_by_step_are_the_same_as_at_once(
        steps in proptest::collection::vec((step(), any::<bool>(), any::<bool>()), 0..50),
    ) {
        let mut world = world();
        for (step, ends, hold) in &steps {
            take(&mut world, step);
            if *ends {
                world.release(*hold);
            }
        }
        world.release(false);
        let mut at_once = Served::default();
        at_once.apply(world.projection.whole());
        prop_assert_eq!(&world.served, &at_once);
    }
}
