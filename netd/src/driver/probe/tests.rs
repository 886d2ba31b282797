//! Two nodes and between them a wire that does what some devices do.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;

use netd_sys::netns::Netns;

use super::*;
use crate::driver::Vtep;
use crate::driver::overlay::tests::{machine, run};

fn vtep(number: u16) -> IpAddr {
    [192, 0, 2, number as u8].into()
}

/// Two nodes whose wires end in a third namespace.
fn nodes() -> [(Netns, Kernel); 2] {
    run("ip netns add wire");
    [1, 2].map(|number| {
        run(&format!(
            "ip netns add n{number}; ip link add u netns n{number} type veth peer name w{number} netns wire"
        ));
        run(&format!(
            "ip -n n{number} link set lo up; ip -n n{number} link set u up; ip -n wire link set w{number} up"
        ));
        run(&format!("ip -n n{number} addr add 192.0.2.{number}/24 dev u"));
        let home = Netns::open(Path::new(&format!("/run/netns/n{number}"))).expect("node");
        let mut kernel = home.run(Kernel::open).expect("enter").expect("kernel");
        kernel.vtep = Some(Vtep { address: vtep(number), port: 4789 });
        (home, kernel)
    })
}

struct Wire(Option<Child>);

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Frames are copied as they are: a checksum that is left to the device is never filled in.
fn careless() -> Wire {
    let program = "exec ip netns exec wire socat INTERFACE:w1 INTERFACE:w2";
    let child = Command::new("sh").args(["-c", program]).stdin(Stdio::null()).spawn().expect("socat runs");
    Wire(Some(child))
}

fn sound() -> Wire {
    run("ip -n wire link add br0 type bridge; ip -n wire link set br0 up");
    run("ip -n wire link set w1 master br0; ip -n wire link set w2 master br0");
    Wire(None)
}

fn target(number: u16) -> Target {
    Target { node: format!("n{number}").into(), number, vtep: vtep(number), since: SystemTime::UNIX_EPOCH }
}

/// Tries the second from the first until something arrives.
fn outcome(prepare: impl FnOnce() -> Wire) -> (Outcome, [(Netns, Kernel); 2], Wire) {
    let mut both = nodes();
    let wire = prepare();
    let now = Instant::now();
    let mut trials = Vec::new();
    for ((home, kernel), (own, other)) in both.iter_mut().zip([(1, 2), (2, 1)]) {
        let trial = home.run(|| {
            kernel.look_at_underlay([vtep(other)].into_iter()).expect("looked at");
            kernel.trial(own, vec![target(other)], false, now).expect("made").expect("due")
        });
        trials.push(trial.expect("enter"));
    }
    let device = trials[1].device();
    let home = both[1].0.try_clone().expect("a namespace");
    let streams = both[1].0.try_clone().expect("a namespace");
    std::thread::spawn(move || home.run(|| answer(device, 2)));
    std::thread::spawn(move || streams.run(|| take(device, 2, &AtomicBool::new(false))));
    let (home, kernel) = &mut both[0];
    let deadline = Instant::now() + Duration::from_secs(20);
    let outcome = loop {
        let outcome = home.run(|| trials[0].run(|| [7; NONCE])).expect("enter");
        if outcome.reached[0].1 != Reach::Nothing || Instant::now() > deadline {
            break outcome;
        }
    };
    home.run(|| kernel.tried(&outcome, now)).expect("enter").expect("noted");
    (outcome, both, wire)
}

#[test]
fn a_sound_way_carries_what_fits_and_is_left_alone() {
    machine(|| {
        let (outcome, mut both, _wire) = outcome(sound);
        assert_eq!((outcome.reached[0].1, outcome.checksums_are_wrong), (Reach::Everything, false));
        assert!(run("ip netns exec n1 ethtool -k nxprobe").contains("tx-checksum-ip-generic: on"));
        let (home, kernel) = &mut both[0];
        let again =
            home.run(|| kernel.trial(1, vec![target(2)], false, Instant::now() + 2 * AGAIN)).expect("enter");
        assert!(again.expect("asked").is_none(), "all is well");
        let anew = home.run(|| kernel.trial(1, vec![target(2)], true, Instant::now())).expect("enter");
        assert!(anew.expect("asked").is_some(), "somebody wants to know");
        let returned = Target { since: SystemTime::UNIX_EPOCH + AGAIN, ..target(2) };
        let again = home.run(|| kernel.trial(1, vec![returned], false, Instant::now())).expect("enter");
        assert!(again.expect("asked").is_some(), "it has been away");
        home.run(|| kernel.remove_probe()).expect("enter").expect("removed");
        assert_eq!(run("ip -n n1 -o link show type vxlan"), "");
    });
}

#[test]
fn a_device_that_gets_checksums_wrong_is_found_and_not_left_them() {
    machine(|| {
        let (outcome, mut both, _wire) = outcome(careless);
        // What comes back of a stream is the other node's to get right, which finds out for itself.
        assert_eq!((outcome.reached[0].1, outcome.checksums_are_wrong), (Reach::Packets, true));
        both[1].0.run(|| offload::set_checksums(DEVICE, false)).expect("enter").expect("set");
        let (home, kernel) = &mut both[0];
        let again =
            home.run(|| kernel.trial(1, vec![target(2)], false, Instant::now() + AGAIN)).expect("enter");
        let again = again.expect("asked").expect("it is tried again");
        assert_eq!(home.run(|| again.run(|| [8; NONCE])).expect("enter").reached[0].1, Reach::Everything);
        assert!(both[0].1.checksums_are_wrong());
        assert!(run("ip netns exec n1 ethtool -k nxprobe").contains("tx-checksum-ip-generic: off"));
    });
}

#[test]
fn a_way_that_carries_less_than_its_devices_say_is_told_from_one_that_carries_nothing() {
    machine(|| {
        let (outcome, ..) = outcome(|| {
            let wire = sound();
            run("ip -n wire link set w2 mtu 1400");
            wire
        });
        assert_eq!((outcome.reached[0].1, outcome.checksums_are_wrong), (Reach::Small, false));
    });
}

/// What one device is to cut up does not get through, as with one that cuts up wrongly what is inside of tunnels.
fn drops_what_is_to_be_cut_up() -> Wire {
    let wire = sound();
    run("ip netns exec wire nft 'add table bridge t
         add chain bridge t c { type filter hook forward priority 0; }
         add rule bridge t c ether type ip udp dport 4789 meta length > 1500 counter drop'");
    wire
}

#[test]
fn a_device_that_cuts_up_wrongly_is_found_by_a_stream_and_not_left_it() {
    machine(|| {
        let (outcome, both, _wire) = outcome(drops_what_is_to_be_cut_up);
        assert_eq!((outcome.reached[0].1, outcome.checksums_are_wrong), (Reach::Everything, true));
        assert!(both[0].1.checksums_are_wrong());
        let features = run("ip netns exec n1 ethtool -k nxprobe");
        assert!(features.contains("tx-checksum-ip-generic: off"), "{features}");
    });
}
