//! Names of the world: real sockets towards upstream servers that behave in all the ways such servers do.

use crate::lab::Lab;
use crate::lab::fake::Fake;

#[test]
fn unknown_names_are_asked_of_the_host_servers() {
    let upstream = Fake::steady([192, 0, 2, 1]);
    let lab = Lab::forwarding(&[upstream.address]);
    let got = lab.dig("www.example.com A");
    assert_eq!(got.status, "NOERROR", "{}", got.whole);
    assert_eq!(got.answers, ["www.example.com. A 192.0.2.1"]);
    assert_eq!(lab.dig("WWW.Example.com A +tcp").answers, ["WWW.Example.com. A 192.0.2.1"]);
    assert_eq!(upstream.asked().len(), 1, "the second answer is a kept one");
}
